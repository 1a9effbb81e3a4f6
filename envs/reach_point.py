"""ReachPoint: move a point to a goal, rewarded only for being there. A goal environment.

Twenty steps an episode (a time limit). Reward is 0 within RADIUS of the goal and -1 elsewhere, so
chance teaches little, and hindsight (Andrychowicz et al., 2017) a lot. The policy that walks
straight loses 1 for each step it needs: never more than 1 + ceil(DIAGONAL / SPEED).
"""

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.same_step import SameStepVectorEnv

SPEED = 0.25
"""Farthest a coordinate moves in a step."""
RADIUS = 0.15
"""Distance from the goal that counts as there."""
MOST_STEPS_NEEDED = math.ceil(2.0 / SPEED)
"""From corner to corner, each coordinate crosses 2 at SPEED."""


def _reward(achieved_goal: np.ndarray, desired_goal: np.ndarray) -> np.ndarray:
    """(...,) float32 for goals (..., 2)."""
    distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
    return -(distance > RADIUS).astype(np.float32)


class ReachPoint(gymnasium.Env):
    """A point in the square [-1, 1] x [-1, 1], moved by up to SPEED in each direction.

    Observations are dicts of `observation` and `achieved_goal` (both where it is) and
    `desired_goal`, as goal environments have them; `compute_reward` takes batches.
    """

    def __init__(self) -> None:
        place = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {"observation": place, "achieved_goal": place, "desired_goal": place}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._place = np.zeros(2, dtype=np.float32)
        self._goal = np.zeros(2, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self._place = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        self._goal = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self._observe(), {"is_success": self._is_there()}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        moved = self._place + SPEED * np.clip(action, -1.0, 1.0)
        self._place = np.clip(moved, -1.0, 1.0).astype(np.float32)
        reward = float(self.compute_reward(self._place, self._goal, {}))
        return self._observe(), reward, False, False, {"is_success": self._is_there()}

    def compute_reward(
        self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any
    ) -> np.ndarray:
        """Return 0 where `achieved_goal` is within RADIUS of `desired_goal`, else -1.

        Args:
            achieved_goal: (..., 2).
            desired_goal: (..., 2).
            info: not used; part of the protocol.
        """
        return _reward(achieved_goal, desired_goal)

    def _is_there(self) -> bool:
        return bool(self.compute_reward(self._place, self._goal, {}) == 0.0)

    def _observe(self) -> dict[str, np.ndarray]:
        return {
            "observation": self._place.copy(),
            "achieved_goal": self._place.copy(),
            "desired_goal": self._goal.copy(),
        }


class ReachPointVector(SameStepVectorEnv):
    """ReachPoint in arrays. State: the point's coordinates, and the goal's."""

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = 20) -> None:
        """Make the copies.

        Args:
            num_envs: how many.
            max_episode_steps: steps after which an episode is truncated; None: never.
        """
        super().__init__(num_envs, max_episode_steps, ReachPoint(), variables=4)

    def _draw_starts(self, count: int) -> np.ndarray:
        return self.np_random.uniform(-1.0, 1.0, (4, count)).astype(np.float32)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = self.state[:2].astype(np.float32) + SPEED * np.clip(actions.T, -1.0, 1.0)
        self.state[:2] = np.clip(moved, -1.0, 1.0)
        return _reward(*self._places()), np.zeros(self.num_envs, dtype=bool)

    def compute_reward(
        self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any
    ) -> np.ndarray:
        """As ReachPoint has it."""
        return _reward(achieved_goal, desired_goal)

    def observe(self) -> dict[str, np.ndarray]:
        """As ReachPoint has it, each part (copies, 2) float32."""
        place, goal = self._places()
        return {"observation": place, "achieved_goal": place.copy(), "desired_goal": goal}

    def _last_infos(self) -> dict[str, np.ndarray]:
        return {"is_success": _reward(*self._places()) == 0.0}

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the points are, and their goals, each (copies, 2)."""
        places = self.state.T.astype(np.float32, order="C")
        return places[:, :2], places[:, 2:]


def optimal_action(observation: dict[str, np.ndarray]) -> np.ndarray:
    """Walk straight to the goal."""
    way = observation["desired_goal"] - observation["achieved_goal"]
    return np.clip(way / SPEED, -1.0, 1.0).astype(np.float32)
