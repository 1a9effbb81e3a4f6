"""Agents of finished, stopped or running runs, ready to act."""

import sys

from stable_baselines3.common.base_class import BaseAlgorithm

from rl_lab import checkpoint, recipes, threads
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.rl import agent
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from rl_lab.text import inert

MODELS = ("best", "last")
DETERMINISTIC = ("td3", "ddpg", "ars")


def recipe_of(run: Run) -> AgentRecipe:
    """Read a run's recipe, and pin the threads it was trained with.

    Raises:
        UserError: it is no agent's.
    """
    _, _, data = recipes.read(str(run.recipe_file))
    if "env" not in data:
        raise UserError(f"{run.name!r} trained a language model, not an agent; see `rl-lab report`")
    recipe = recipes.load(AgentRecipe, str(run.recipe_file))
    threads.pin(recipe.threads)
    return recipe


def load_agent(
    run: Run, recipe: AgentRecipe, which: str, sampled: bool
) -> tuple[BaseAlgorithm, int]:
    """Load a run's agent.

    Args:
        run: the run.
        recipe: its recipe.
        which: `"best"` by evaluation return, or `"last"`: the newest checkpoint.
        sampled: whether it is to sample its actions.

    Returns:
        The agent and the environment step it was saved at.

    Raises:
        UserError: `which` is neither, nothing whole was saved, or there is nothing to sample.
    """
    if sampled and recipe.algorithm.name in DETERMINISTIC:
        raise UserError(
            f"--sampled: {recipe.algorithm.name} explores by noise added in training only; its "
            "policy has no actions to sample"
        )
    snapshot = newest(run, which)
    return agent.load(recipe, snapshot), snapshot.step


def newest(run: Run, which: str) -> Snapshot:
    """The newest whole snapshot of a run's `"best"` or `"last"` model.

    Raises:
        UserError: `which` is neither, or nothing whole was saved.
    """
    if which not in MODELS:
        raise UserError(f"--model {which!r}: should be 'best' or 'last'")
    snapshot, damaged = checkpoint.latest(run.best if which == "best" else run.checkpoints)
    if snapshot is None:
        why = f": {damaged[0]}" if damaged else " yet"
        raise UserError(f"run {run.name!r} has no {which} model{why}")
    for sentence in damaged:
        print(f"note: {inert(sentence)}; an older one is used", file=sys.stderr)
    return snapshot
