"""Hyperparameters that change while training, written as data.

    learning_rate: {schedule: linear, start: 1e-3, end: 0}               # over the whole budget
    learning_rate: {schedule: linear, start: 1e-3, end: 0, over: 50000}  # over 50,000 steps

Without `over` a schedule follows the budget, so another budget gives it another slope. That is
often wanted and never silent: `budget_notes` says it.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from rl_lab.recipes import Section

# SB3 stretches these over the budget itself; the value is a fraction of it.
BUDGET_FRACTIONS = ("exploration_fraction",)


class Schedule(Section):
    """A value that goes from `start` to `end`, then stays."""

    schedule: Literal["linear", "exponential"]
    """linear: equal steps; exponential: equal ratios (start and end must be positive)."""
    start: Annotated[float, Field(ge=0)]
    """Value at step 0."""
    end: Annotated[float, Field(ge=0)] = 0.0
    """Value from step `over` on."""
    over: Annotated[int, Field(gt=0)] | None = None
    """Environment steps it takes; null: the whole budget."""

    def value(self, step: float, budget: int) -> float:
        """The value at `step` environment steps into a budget of `budget`."""
        fraction = min(max(step / (self.over or budget), 0.0), 1.0)
        if self.schedule == "linear":
            return self.start + fraction * (self.end - self.start)
        return float(self.start * (self.end / self.start) ** fraction)

    def for_sb3(self, budget: int) -> Callable[[float], float]:
        """The schedule as SB3 takes it: a function of the part of the budget still to come."""
        return lambda remaining: self.value((1.0 - remaining) * budget, budget)


def budget_notes(hyperparameters: Mapping[str, Any], written: int, actual: int) -> list[str]:
    """Say what another budget does to the schedules of a recipe.

    Args:
        hyperparameters: as the recipe writes them.
        written: steps of the budget that the recipe was written for.
        actual: steps of the budget it is run with.

    Returns:
        A sentence for each schedule whose slope or end changes; empty if the budgets are equal.
    """
    notes: list[str] = []
    if written == actual:
        return notes
    for name, value in hyperparameters.items():
        if isinstance(value, Mapping) and "schedule" in value:
            over = value.get("over")
            if over is None:
                notes.append(
                    f"{name} follows the budget: it now goes from {value['start']:g} to "
                    f"{value.get('end', 0.0):g} over {actual:,} steps, not {written:,} "
                    f"(fix it with --algorithm.{name}.over {written})"
                )
            elif over > actual:
                notes.append(
                    f"{name} is still changing when the budget of {actual:,} steps ends: "
                    f"its schedule takes {over:,}"
                )
        elif name in BUDGET_FRACTIONS and isinstance(value, int | float):
            notes.append(
                f"{name} is a fraction of the budget: {value:g} now means "
                f"{round(value * actual):,} steps, not {round(value * written):,}"
            )
    return notes
