"""The two kinds of experiment, told apart by their recipe: an agent's has `env`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rl_lab import recipes
from rl_lab.files import StorageError
from rl_lab.recipe_differences import Flat, defaults, differences, flat
from rl_lab.recipes import Section
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.run import Run
from rl_lab.signals import StopRequest

Recipe = AgentRecipe | LanguageRecipe


class TrainingFailed(Exception):
    """The run cannot go on, through no bug of the lab's: the message says why."""


@dataclass(frozen=True)
class Kind:
    """What the command line needs to know of a kind of experiment."""

    recipe: type[Section]
    check: Callable[[Any, str, bool], tuple[str, ...]]
    """(recipe, its name or file, whole): raise UserError if it cannot be built; return remarks."""
    train: Callable[[Run, Any, StopRequest, tuple[str, ...], bool], str]
    """(run, recipe, stop, remarks, fresh): train in this process; return the state it ended in."""


def kind_of(data: Mapping[str, Any]) -> Kind:
    """Tell what kind of experiment recipe data describe."""
    return LANGUAGE if "data" in data and "env" not in data else AGENT


def load(name: str, overrides: Mapping[str, Any] | None = None) -> tuple[Kind, Recipe]:
    """Find, read and check a recipe of either kind.

    Raises:
        UserError: as `recipes.load`.
    """
    _, _, data = recipes.read(name)
    kind = kind_of(recipes.override(data, overrides or {}))
    loaded: Any = recipes.load(kind.recipe, name, overrides)
    return kind, loaded


def differences_to_default(recipe: Mapping[str, Any]) -> tuple[str, list[Flat]]:
    """In what a run's recipe differs from the built-in one of its name, or from the defaults.

    Returns:
        What it is held against, and the differences as of `recipe_differences.differences`.
    """
    schema, name = kind_of(recipe).recipe, recipe.get("name")
    if name in recipes.built_in_names() and kind_of(recipes.read(name)[2]).recipe is schema:
        built_in = recipes.load(schema, str(name)).model_dump(mode="json")
        return f"the built-in recipe {name}", differences(flat(recipe), flat(built_in))
    required = frozenset(key for key, _ in recipes.fields(schema))
    return "the defaults", differences(flat(recipe), defaults(schema), required)


def _check_agent(recipe: AgentRecipe, name: str, whole: bool) -> tuple[str, ...]:
    from rl_lab.rl import agent, schedules
    from rl_lab.sinks import check_installed

    logging = recipe.logging
    check_installed(logging.tensorboard, logging.trackio, logging.wandb)
    agent.check(recipe, whole)
    _, _, data = recipes.read(name)
    written = (data.get("budget") or {}).get("steps", recipe.budget.steps)
    notes = schedules.budget_notes(recipe.algorithm.hyperparameters, written, recipe.budget.steps)
    return tuple(notes)


def _train_agent(
    run: Run, recipe: AgentRecipe, stop: StopRequest, notes: tuple[str, ...], fresh: bool
) -> str:
    del fresh  # an agent's run reuses nothing
    from rl_lab.rl import train

    try:
        return train.train(run, recipe, stop, notes)
    except (train.TrainingFailed, StorageError) as error:
        raise TrainingFailed(str(error)) from None


def _check_language(recipe: LanguageRecipe, name: str, whole: bool) -> tuple[str, ...]:
    del name, whole
    from rl_lab.rlhf.check import check

    check(recipe)
    return ()


def _train_language(
    run: Run, recipe: LanguageRecipe, stop: StopRequest, notes: tuple[str, ...], fresh: bool
) -> str:
    del notes
    from rl_lab.rlhf.experiment import train
    from rl_lab.rlhf.rollout import SamplerMismatchError

    try:
        return train(run, recipe, stop, fresh=fresh)
    except (FloatingPointError, SamplerMismatchError, StorageError) as error:
        raise TrainingFailed(str(error)) from None


AGENT = Kind(AgentRecipe, _check_agent, _train_agent)
LANGUAGE = Kind(LanguageRecipe, _check_language, _train_language)
