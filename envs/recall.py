"""Recall: a cue at the first step, its answer asked for at the last. Needs memory.

With memory the optimal return is 1. Without, no policy earns more than 0.5 on average.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.same_step import SameStepVectorEnv

OPTIMAL_RETURN = 1.0
MEMORYLESS_RETURN = 0.5


class Recall(gymnasium.Env):
    """Observations are [cue in {-1, 1} at the first step and 0 after it, 1 when the answer is due].

    Args:
        delay: blank steps between the cue and the question, at least 0.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, delay: int = 2) -> None:
        self.delay = delay
        self._cue = 0
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._cue = int(self.np_random.integers(2))
        self._step = 0
        return np.array([2 * self._cue - 1, 0], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        asked = self._step == self.delay + 1
        done = self._step == self.delay + 2
        reward = float(done and int(action) == self._cue)
        return np.array([0, asked], dtype=np.float32), reward, done, False, {}


class RecallVector(SameStepVectorEnv):
    """Recall in arrays. State: the cue, 0 or 1; the step is what has elapsed."""

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int | None = None, delay: int = 2
    ) -> None:
        """Make the copies.

        Args:
            num_envs: how many.
            max_episode_steps: steps after which an episode is truncated; None: never.
            delay: as Recall has it.
        """
        super().__init__(num_envs, max_episode_steps, Recall(delay), variables=1)
        self.delay = delay

    def _draw_starts(self, count: int) -> np.ndarray:
        return self.np_random.integers(2, size=(1, count))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        done = self.elapsed == self.delay + 1
        return (done & (actions == self.state[0])).astype(float), done

    def observe(self) -> np.ndarray:
        """The cue while it is shown, and whether the answer is due: (copies, 2) float32."""
        shown = np.zeros((self.num_envs, 2), dtype=np.float32)
        shown[:, 0] = np.where(self.elapsed == 0, 2.0 * self.state[0] - 1.0, 0.0)
        shown[:, 1] = self.elapsed == self.delay + 1
        return shown


class Rememberer:
    """The optimal policy: keeps the cue and answers with it."""

    def __init__(self) -> None:
        self._cue = 0

    def act(self, observation: np.ndarray) -> int:
        if observation[0] != 0:
            self._cue = int(observation[0] > 0)
        return self._cue
