"""CartPole in arrays: Gymnasium's CartPole-v0 and -v1, with their numbers and dynamics.

Gymnasium has a vectorised one of its own, which begins new episodes one step later
(AutoresetMode.NEXT_STEP) and takes several times as long.
"""

from typing import Any

import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

from envs.same_step import SameStepVectorEnv

HALF_WIDTH = 0.05
"""Episodes begin with each variable within plus or minus this."""


class CartPoleVector(SameStepVectorEnv):
    """State: position [m], velocity [m/s], angle [rad] and angular velocity [rad/s]."""

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 500,
        sutton_barto_reward: bool = False,
    ) -> None:
        """Make the copies.

        Args:
            num_envs: how many.
            max_episode_steps: steps after which an episode is truncated; None: never.
            sutton_barto_reward: reward -1 for falling and 0 else, instead of 1 a step.
        """
        one: Any = CartPoleEnv()
        super().__init__(num_envs, max_episode_steps, one, variables=4)
        self.sutton_barto_reward = sutton_barto_reward
        # Arrays without dimensions, which numpy takes in two thirds of a plain number's time.
        self._tau, self._gravity = np.array(one.tau), np.array(one.gravity)
        self._pole_share = np.array(one.polemass_length / one.total_mass)
        self._inertia = np.array(one.length * 4.0 / 3.0)
        self._inertia_share = np.array(one.length * one.masspole / one.total_mass)
        self._pushes = np.array([-1.0, 1.0]) * one.force_mag / one.total_mass  # by action
        self._limits = np.repeat([[one.x_threshold], [one.theta_threshold_radians]], num_envs, 1)
        self._ones = np.ones(num_envs)

    def _draw_starts(self, count: int) -> np.ndarray:
        return self.np_random.uniform(-HALF_WIDTH, HALF_WIDTH, (4, count))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # https://coneural.org/florian/papers/05_cart_pole.pdf, as Gymnasium has it.
        _, velocity, angle, spin = self.state
        places, velocities = self.state[0::2], self.state[1::2]
        sine, cosine = np.sin(angle), np.cos(angle)
        push = self._pushes[actions] + self._pole_share * sine * spin * spin
        angular = (self._gravity * sine - cosine * push) / (
            self._inertia - self._inertia_share * cosine * cosine
        )
        places += self._tau * velocities
        velocity += self._tau * (push - self._pole_share * angular * cosine)
        spin += self._tau * angular
        beyond = np.abs(places) > self._limits
        fallen = beyond[0] | beyond[1]
        return (-fallen.astype(float) if self.sutton_barto_reward else self._ones.copy()), fallen

    def observe(self) -> np.ndarray:
        """The states: (copies, 4) float32."""
        return self.state.T.astype(np.float32, order="C")
