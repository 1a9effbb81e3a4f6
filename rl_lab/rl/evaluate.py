"""Judging an agent: episodes with known seeds, raw rewards, frozen statistics, no side effects.

Every episode starts from a seed of its own, so two agents judged with the same seeds face the same
starts and their returns can be compared in pairs. The copies of the environment share the episodes
out beforehand (copy j plays episodes j, j + copies, ...): counting whichever episodes end first
would favour short ones.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from rl_lab.rl import environments, seeding
from rl_lab.rl.recipe import Environment
from rl_lab.rl.watched_vec_env import NonFiniteError

MOST_COPIES = 10


@dataclass(frozen=True)
class Episode:
    """One evaluated episode."""

    seed: int
    episode_return: float
    """Sum of raw, undiscounted rewards."""
    length: int
    terminated: bool
    """True: the task ended it; false: a time limit cut it off."""
    success: bool | None
    """`is_success` of its last step, where the environment tells."""


def evaluate(
    model: BaseAlgorithm,
    environment: Environment,
    seeds: list[int],
    deterministic: bool,
    sampling_seed: int = 0,
) -> list[Episode]:
    """Play one episode from each seed.

    Args:
        model: the agent; its networks, generators and statistics are left as they were.
        environment: what to judge it on; made anew, so no earlier episode has a say.
        seeds: of the episodes.
        deterministic: greedy actions, or sampled ones.
        sampling_seed: of the sampling.

    Returns:
        The episodes, in the order of their seeds.
    """
    copies = min(len(seeds), MOST_COPIES)
    allotted = [seeds[copy::copies] for copy in range(copies)]
    with seeding.own_randomness(sampling_seed, model.action_space):
        vector = environments.make_vector(environment, [list(own) for own in allotted])
        vector = frozen_like(model, vector, environment.frame_stack)
        try:
            episodes = _play(model, vector, [len(own) for own in allotted], deterministic)
        except NonFiniteError as error:
            raise NonFiniteError(f"while judging the agent: {error}") from None
        finally:
            vector.close()
    return [replace(episodes[number], seed=seed) for number, seed in enumerate(seeds)]


def _play(
    model: BaseAlgorithm, vector: VecEnv, allotted: list[int], deterministic: bool
) -> dict[int, Episode]:
    """Play `allotted[j]` episodes on copy j; return them by number, as copy j has them."""
    copies = vector.num_envs
    played: dict[int, Episode] = {}
    ended = [0] * copies
    observations = vector.reset()
    states = None
    starts = np.ones(copies, dtype=bool)
    while ended != allotted:
        actions, states = act(model, vector, observations, states, starts, deterministic)
        observations, _, starts, infos = vector.step(actions)
        for copy in np.flatnonzero(starts).tolist():
            # Monitor, which sees the raw rewards, reports the episode. It says nothing when
            # AtariWrapper ends one at a lost life.
            report = infos[copy].get("episode")
            if report is None or ended[copy] == allotted[copy]:
                continue
            played[copy + ended[copy] * copies] = Episode(
                seed=-1,  # the caller knows it
                episode_return=float(report["r"]),
                length=int(report["l"]),
                terminated=not infos[copy].get("TimeLimit.truncated", False),
                success=_success(infos[copy]),
            )
            ended[copy] += 1
    return played


def act(
    model: BaseAlgorithm,
    vector: VecEnv,
    observations: Any,
    states: Any,
    starts: np.ndarray,
    deterministic: bool,
) -> tuple[np.ndarray, Any]:
    """Ask the policy for actions, with recurrent state and action masks where it has them."""
    masks = {"action_masks": get_action_masks(vector)} if isinstance(model, MaskablePPO) else {}
    return model.predict(
        observations, state=states, episode_start=starts, deterministic=deterministic, **masks
    )


def frozen_like(model: BaseAlgorithm, vector: VecEnv, frame_stack: int) -> VecEnv:
    """Wrap `vector` as the agent's training environment is, its statistics shared and frozen."""
    training = model.get_vec_normalize_env()
    if training is not None:
        frozen = VecNormalize(
            vector,
            training=False,
            norm_obs=training.norm_obs,
            norm_reward=False,
            clip_obs=training.clip_obs,
        )
        if training.norm_obs:
            frozen.obs_rms = training.obs_rms
        vector = frozen
    return environments.stack_and_transpose(vector, frame_stack)


def _success(info: dict[str, Any]) -> bool | None:
    return bool(info["is_success"]) if "is_success" in info else None


def summary(episodes: list[Episode]) -> dict[str, float]:
    """SB3's names for the numbers of one evaluation."""
    returns = np.array([episode.episode_return for episode in episodes])
    numbers = {
        "eval/mean_reward": float(returns.mean()),
        "eval/std_reward": float(returns.std()),
        "eval/mean_ep_length": float(np.mean([episode.length for episode in episodes])),
        "eval/episodes": float(len(episodes)),
        "eval/terminated": float(np.mean([episode.terminated for episode in episodes])),
    }
    successes = [episode.success for episode in episodes if episode.success is not None]
    if successes:
        numbers["eval/success_rate"] = float(np.mean(successes))
    return numbers
