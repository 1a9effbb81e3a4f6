"""What a replay buffer of images takes: each frame once, where that loses nothing."""

from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space

from rl_lab.rl.algorithms import algorithm_class
from rl_lab.rl.recipe import AgentRecipe

REMARK = (
    "the replay buffer keeps each image once, not again as the one before's next "
    "(algorithm.optimize_memory_usage: false keeps both)"
)
DECIDED = {"optimize_memory_usage", "replay_buffer_kwargs", "n_steps"}
"""Hyperparameters by which a recipe decides itself."""


def settings(recipe: AgentRecipe, observations: spaces.Space) -> dict[str, Any]:
    """Choose SB3's buffer that keeps each observation once; empty where it is not the right one.

    It cannot tell an episode that a time limit cut off from one that ended, so it is for
    environments without such a limit: Atari's is half an hour of play, which no agent comes to
    see. Nor does it go with hindsight or n-step returns.
    """
    if (
        not issubclass(algorithm_class(recipe.algorithm.name), OffPolicyAlgorithm)
        or not is_image_space(observations)
        or recipe.algorithm.hindsight is not None
        or recipe.algorithm.hyperparameters.keys() & DECIDED
        or _cut_off_by_the_lab(recipe)
        or gymnasium.spec(recipe.env.id).max_episode_steps is not None
        or any("TimeLimit" in str(wrapper) for wrapper in recipe.env.wrappers)
    ):
        return {}
    return {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    }


def _cut_off_by_the_lab(recipe: AgentRecipe) -> bool:
    """Whether episodes may be cut off for a failed copy or a NaN."""
    return bool(recipe.env.restarts or recipe.env.timeout or recipe.health.on_nan == "skip")
