"""Many copies of one environment in a few arrays: what all such environments have in common.

A copy whose episode ends begins the next in the same step (Gymnasium's AutoresetMode.SAME_STEP):
what it shows is the new episode's first observation, and the old one's last is in the infos.
"""

import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class SameStepVectorEnv(VectorEnv):
    """Copies that step together. Subclasses say how they start, move and look, and when they end.

    All that a copy remembers from step to step is in `state` and `elapsed`, and all randomness
    comes from `np_random`: who puts the three back goes on as if nothing had been.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None,
        spaces_of: gymnasium.Env,
        variables: int,
    ) -> None:
        """Make the copies; `reset` puts them to a start.

        Args:
            num_envs: how many copies.
            max_episode_steps: steps after which an episode is truncated; None: never.
            spaces_of: the same environment, one copy; its spaces are taken over.
            variables: numbers that make up the state of a copy.

        Raises:
            ValueError: a time limit of less than a step.
        """
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}; it should be at least 1")
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.single_observation_space = spaces_of.observation_space
        self.single_action_space = spaces_of.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.state = np.zeros((variables, num_envs))
        """(variables, copies) float64, written in place."""
        self.elapsed = np.zeros(num_envs, dtype=np.int64)
        """(copies,) steps of the episode under way, written in place."""
        self._longest = np.array(max_episode_steps or sys.maxsize)

    # --- what a subclass says ------------------------------------------------------------------

    def _draw_starts(self, count: int) -> np.ndarray:
        """Draw the states, (variables, count), that episodes begin in."""
        raise NotImplementedError

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Write the next states; return rewards (copies,) and whether each copy has terminated."""
        raise NotImplementedError

    def observe(self) -> Any:
        """Return what the states look like, (copies, ...), in new arrays."""
        raise NotImplementedError

    def _last_infos(self) -> dict[str, np.ndarray]:
        """Return what is told of the states when an episode ends, each (copies,)."""
        return {}

    # --- Gymnasium's interface -----------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: of the one generator that all copies draw from; None: it is drawn on from.
            options: `reset_mask`, (copies,) bool: only these begin anew.

        Returns:
            The observations of all copies, and no infos.
        """
        super().reset(seed=seed)
        everyone = np.ones(self.num_envs, dtype=bool)
        self._begin((options or {}).get("reset_mask", everyone).nonzero()[0])
        return self.observe(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take an action with each copy.

        Args:
            actions: (copies, ...).

        Returns:
            Observations, rewards, terminations, truncations, and infos: empty, unless episodes
            ended, whose `final_obs` and `final_info` they then hold, as Gymnasium has them.
        """
        rewards, terminations = self._advance(actions)
        self.elapsed += 1
        truncations = self.elapsed >= self._longest
        observations = self.observe()
        ended = terminations | truncations
        copies = ended.nonzero()[0]
        if not copies.size:
            return observations, rewards, terminations, truncations, {}
        infos = self._of_ended(ended, observations)
        self._begin(copies)
        return self.observe(), rewards, terminations, truncations, infos

    def _begin(self, copies: np.ndarray) -> None:
        self.state[:, copies] = self._draw_starts(len(copies))
        self.elapsed[copies] = 0

    def _of_ended(self, ended: np.ndarray, observations: Any) -> dict[str, Any]:
        last = np.full(self.num_envs, None, dtype=object)
        for copy in ended.nonzero()[0].tolist():
            if isinstance(observations, dict):
                last[copy] = {key: part[copy] for key, part in observations.items()}
            else:
                last[copy] = observations[copy]
        told = self._last_infos()
        info = told | {f"_{key}": ended for key in told}
        return {"final_obs": last, "_final_obs": ended, "final_info": info, "_final_info": ended}
