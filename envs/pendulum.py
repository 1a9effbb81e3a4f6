"""Pendulum in arrays: Gymnasium's Pendulum-v1, with its numbers and dynamics."""

import numpy as np
from gymnasium.envs.classic_control.pendulum import DEFAULT_X, DEFAULT_Y, PendulumEnv

from envs.same_step import SameStepVectorEnv


class PendulumVector(SameStepVectorEnv):
    """State: angle [rad], 0 is upright, and angular velocity [rad/s]."""

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int | None = 200, g: float = 10.0
    ) -> None:
        """Make the copies.

        Args:
            num_envs: how many.
            max_episode_steps: steps after which an episode is truncated; None: never.
            g: gravity [m/s^2].
        """
        self._one = PendulumEnv(g=g)
        super().__init__(num_envs, max_episode_steps, self._one, variables=2)
        self._farthest = np.array([[DEFAULT_X], [DEFAULT_Y]])

    def _draw_starts(self, count: int) -> np.ndarray:
        return self.np_random.uniform(-self._farthest, self._farthest, (2, count))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one, (angle, spin) = self._one, self.state
        torque = np.clip(actions[:, 0], -one.max_torque, one.max_torque)
        from_upright = (angle + np.pi) % (2.0 * np.pi) - np.pi
        costs = from_upright**2 + 0.1 * spin**2 + 0.001 * torque**2
        weight, lever = 3.0 * one.g / (2.0 * one.l), 3.0 / (one.m * one.l**2)
        spin += (weight * np.sin(angle) + lever * torque) * one.dt
        np.clip(spin, -one.max_speed, one.max_speed, out=spin)
        angle += spin * one.dt
        return -costs, np.zeros(self.num_envs, dtype=bool)

    def observe(self) -> np.ndarray:
        """Cosine and sine of the angle, and the velocity: (copies, 3) float32."""
        angle, spin = self.state
        shown = np.empty((self.num_envs, 3), dtype=np.float32)
        shown[:, 0] = np.cos(angle)
        shown[:, 1] = np.sin(angle)
        shown[:, 2] = spin
        return shown
