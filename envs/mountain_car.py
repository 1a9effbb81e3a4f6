"""MountainCar in arrays: Gymnasium's MountainCar-v0, with its numbers and dynamics."""

import numpy as np
from gymnasium.envs.classic_control import MountainCarEnv

from envs.same_step import SameStepVectorEnv

FIRST_PLACES = (-0.6, -0.4)
"""Episodes begin between these, at rest."""


class MountainCarVector(SameStepVectorEnv):
    """State: position and velocity."""

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 200,
        goal_velocity: float = 0,
    ) -> None:
        """Make the copies.

        Args:
            num_envs: how many.
            max_episode_steps: steps after which an episode is truncated; None: never.
            goal_velocity: the least at which reaching the goal counts.
        """
        self._one = MountainCarEnv(goal_velocity=goal_velocity)
        super().__init__(num_envs, max_episode_steps, self._one, variables=2)

    def _draw_starts(self, count: int) -> np.ndarray:
        places = self.np_random.uniform(*FIRST_PLACES, count)
        return np.stack([places, np.zeros(count)])

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one, (place, velocity) = self._one, self.state
        velocity += (actions - 1) * one.force - np.cos(3.0 * place) * one.gravity
        np.clip(velocity, -one.max_speed, one.max_speed, out=velocity)
        place += velocity
        np.clip(place, one.min_position, one.max_position, out=place)
        velocity[(place == one.min_position) & (velocity < 0.0)] = 0.0
        there = (place >= one.goal_position) & (velocity >= one.goal_velocity)
        return np.full(self.num_envs, -1.0), there

    def observe(self) -> np.ndarray:
        """The states: (copies, 2) float32."""
        return self.state.T.astype(np.float32, order="C")
