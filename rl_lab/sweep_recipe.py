"""What a search over a recipe's keys consists of: the `sweep` section, of either kind of recipe.

Only `rl-lab sweep` reads it. Training ignores it, and a run's recipe.yaml does not hold it.
"""

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from rl_lab.recipe_types import Positive, Share
from rl_lab.recipes import Section


class Parameter(Section):
    """The values a recipe key may take: a range, {low: 1e-5, high: 1e-2, log: true}, or choices."""

    low: float | None = None
    """Lowest value, itself included."""
    high: float | None = None
    """Highest value, itself included."""
    log: bool = False
    """Draw evenly on a logarithmic scale, as learning rates want it."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Distance of neighbouring values, from low on; null: any value between."""
    integer: bool = False
    """Whole numbers only."""
    choices: list[Any] | None = None
    """The values themselves, of any kind, in no order."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Parameter":
        if self.choices is not None:
            if self != Parameter.model_construct(choices=self.choices):
                raise ValueError("takes choices, or low and high, not both")
            if len(self.choices) < 2 or any(self.choices.count(one) > 1 for one in self.choices):
                raise ValueError("choices should be at least two, all different")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) should be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("takes log or step, not both")
        steps = (self.high - self.low) / (self.step or self.high - self.low)
        if abs(steps - round(steps)) > 1e-6 or steps < 0.5:
            raise ValueError(f"no whole number of steps of {self.step:g} leads from low to high")
        if self.integer:
            for value in (self.low, self.high, self.step or 1.0):
                if not value.is_integer():
                    raise ValueError(f"integer: {value:g} is no whole number")
        return self

    @property
    def examples(self) -> list[Any]:
        """Values to try out before a search: every choice, or both ends and one between."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            return [int(self.low), int(self.high)]
        # Odd enough to be found out where only whole numbers will do.
        between = self.low + (self.step or (self.high - self.low) * 0.3819660113)
        return [self.low, self.high, between]


class Pruning(Section):
    """Ending a trial early that does worse than the median of those before it did there."""

    warmup: Share = 0.25
    """Share of a trial that is always trained before it may end."""


class Sweep(Section):
    """A search for better values of some keys, by `rl-lab sweep`; training takes no notice of it.

    Trials are drawn by a tree-structured Parzen estimator (Bergstra et al., 2011; optuna's
    TPESampler). The best of them are trained again, beside the recipe as it is, on seeds that no
    trial used, for the best of many trials owes something to luck.
    """

    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    """What is searched: dotted recipe keys, each {low, high, log, step, integer} or {choices}."""
    trials: Positive = 20
    """Trials, pruned and failed ones included."""
    seeds_a_trial: Annotated[int, Field(ge=1, le=100)] = 1
    """Runs that a trial's value is the mean of; the same seeds for every trial."""
    startup_trials: Positive = 5
    """Trials drawn at random, and not pruned, before what they found is made use of."""
    pruning: Pruning | None = Pruning()
    """Ending bad trials early; null: every trial is trained to its end."""
    winners: Annotated[int, Field(ge=1, le=20)] = 3
    """Best trials that are trained again before any is called better."""
    fresh_seeds: Annotated[int, Field(ge=2, le=100)] = 5
    """Seeds, used by no trial, on which they and the recipe as it is are trained again."""

    @field_validator("parameters")
    @classmethod
    def _none_within_another(cls, value: dict[str, Parameter]) -> dict[str, Parameter]:
        for key in value:
            inner = next((name for name in value if name.startswith(f"{key}.")), None)
            if inner is not None:
                raise ValueError(f"{inner!r} is part of {key!r}; search one of them")
        return value
