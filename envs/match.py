"""Match: do what the observation says. The simplest task that needs the observation at all.

Ten steps an episode (a time limit: truncated, never terminated). The optimal return is 10.
"""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.same_step import SameStepVectorEnv

OPTIMAL_RETURN = 10.0
CHOICES = 4


class Match(gymnasium.Env):
    """Show a target; reward the action for being equal, or close, to it.

    Args:
        actions: `"discrete"`: targets are 4 choices, shown one-hot, reward 1 for the right one and
            0 else. `"continuous"`: targets are uniform in [-1, 1], reward 1 - |action - target|.
    """

    def __init__(self, actions: Literal["discrete", "continuous"] = "discrete") -> None:
        self.discrete = actions == "discrete"
        size = CHOICES if self.discrete else 1
        self.observation_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.action_space = (
            spaces.Discrete(CHOICES) if self.discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)
        )
        self._target = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._show_next(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.discrete:
            reward = float(int(action) == self._target)
        else:
            reward = 1.0 - abs(float(np.asarray(action).item()) - self._target)
        return self._show_next(), reward, False, False, {}

    def action_masks(self) -> np.ndarray:
        """For algorithms with action masks: the right choice and its neighbour are allowed."""
        allowed = np.zeros(CHOICES, dtype=bool)
        allowed[[int(self._target), (int(self._target) + 1) % CHOICES]] = True
        return allowed

    def _show_next(self) -> np.ndarray:
        if self.discrete:
            self._target = int(self.np_random.integers(CHOICES))
            return np.eye(CHOICES, dtype=np.float32)[self._target]
        self._target = float(np.float32(self.np_random.uniform(-1.0, 1.0)))
        return np.array([self._target], dtype=np.float32)


class MatchVector(SameStepVectorEnv):
    """Match in arrays. State: the target."""

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 10,
        actions: Literal["discrete", "continuous"] = "discrete",
    ) -> None:
        """Make the copies.

        Args:
            num_envs: how many.
            max_episode_steps: steps after which an episode is truncated; None: never.
            actions: as Match has it.
        """
        one = Match(actions)
        super().__init__(num_envs, max_episode_steps, one, variables=1)
        self.discrete = one.discrete

    def _draw_starts(self, count: int) -> np.ndarray:
        if self.discrete:
            return self.np_random.integers(CHOICES, size=(1, count))
        return self.np_random.uniform(-1.0, 1.0, (1, count)).astype(np.float32)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (target,) = self.state
        if self.discrete:
            rewards = (actions == target).astype(float)
        else:
            rewards = 1.0 - np.abs(actions[:, 0] - target)
        self.state[:] = self._draw_starts(self.num_envs)
        return rewards, np.zeros(self.num_envs, dtype=bool)

    def observe(self) -> np.ndarray:
        """The targets, one-hot or as they are: (copies, 4 or 1) float32."""
        (target,) = self.state
        if self.discrete:
            return np.eye(CHOICES, dtype=np.float32)[target.astype(int)]
        return target[:, None].astype(np.float32)

    def action_masks(self) -> np.ndarray:
        """As Match has them: (copies, 4) bool."""
        distance = (np.arange(CHOICES) - self.state[0][:, None]) % CHOICES
        return distance <= 1


def optimal_action(observation: np.ndarray) -> Any:
    """The action that earns the optimal return."""
    return int(observation.argmax()) if observation.size > 1 else observation
