"""The space of a search, checked before anything runs: every key, and values of every range."""

from collections.abc import Callable, Mapping
from typing import Any

from rl_lab.errors import UserError
from rl_lab.sweep_recipe import Parameter

NOT_SEARCHED = (
    "name", "description", "source", "seed", "threads", "device", "sweep", "logging", "checkpoints",
    "env.id", "budget", "evaluation", "target_return", "reference_return",
    "data", "judges", "evaluate", "ppo.looks",
)  # fmt: skip
"""Keys, with all within them, that do not change what is learnt, or by which trials are judged."""


def check(parameters: Mapping[str, Parameter], build: Callable[[dict[str, Any]], object]) -> None:
    """Try values of each parameter out, one at a time, the others as the recipe has them.

    Args:
        parameters: by dotted key.
        build: checks the recipe with some keys changed as far as can be done without training;
            raises a UserError.

    Raises:
        UserError: a key is none that may be searched, or a value cannot be used.
    """
    for key, parameter in parameters.items():
        if any(key == name or key.startswith(f"{name}.") for name in NOT_SEARCHED):
            raise UserError(
                f"sweep.parameters.{key}: it has to be the same for all trials, or they could not "
                "be compared"
            )
        for value in parameter.examples:
            try:
                build({key: value})
            except UserError as error:
                raise UserError(f"sweep.parameters.{key}: {error}") from None


def said(value: Any) -> str:
    """A value in a few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
