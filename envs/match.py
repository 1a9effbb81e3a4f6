"""Match: do what the observation says. The simplest task that needs the observation at all.

Ten steps an episode (a time limit: truncated, never terminated). The optimal return is 10.
"""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

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


def optimal_action(observation: np.ndarray) -> Any:
    """The action that earns the optimal return."""
    return int(observation.argmax()) if observation.size > 1 else observation
