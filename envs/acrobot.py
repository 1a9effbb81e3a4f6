"""Acrobot in arrays: Gymnasium's Acrobot-v1, with its numbers, dynamics and integration."""

import numpy as np
from gymnasium.envs.classic_control import AcrobotEnv

from envs.same_step import SameStepVectorEnv

GRAVITY = 9.8
HALF_WIDTH = 0.1
"""Episodes begin with each variable within plus or minus this."""


class AcrobotVector(SameStepVectorEnv):
    """State: the two joints' angles [rad] and their velocities [rad/s], as AcrobotEnv has them."""

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = 500) -> None:
        """Make the copies.

        Args:
            num_envs: how many.
            max_episode_steps: steps after which an episode is truncated; None: never.
        """
        one = AcrobotEnv
        super().__init__(num_envs, max_episode_steps, one(), variables=4)
        self._torques = np.array(one.AVAIL_TORQUE)  # by action
        self._fastest = np.array([[one.MAX_VEL_1], [one.MAX_VEL_2]])
        # The coefficients of the equations of motion (Sutton and Barto, 2018, section 11.3: its
        # "book" version), gathered, and as arrays, which numpy takes quicker than plain numbers.
        mass_1, mass_2, length = one.LINK_MASS_1, one.LINK_MASS_2, one.LINK_LENGTH_1
        centre_1, centre_2, inertia = one.LINK_COM_POS_1, one.LINK_COM_POS_2, one.LINK_MOI
        coupling = mass_2 * length * centre_2
        second = mass_2 * centre_2**2 + inertia
        self._coupling, self._second = np.array(coupling), np.array(second)
        self._first = np.array(mass_1 * centre_1**2 + mass_2 * length**2 + inertia + second)
        self._weight_1 = np.array((mass_1 * centre_1 + mass_2 * length) * GRAVITY)
        self._weight_2 = np.array(mass_2 * centre_2 * GRAVITY)

    def _draw_starts(self, count: int) -> np.ndarray:
        return self.np_random.uniform(-HALF_WIDTH, HALF_WIDTH, (4, count)).astype(np.float32)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        state, torque, dt = self.state, self._torques[actions], AcrobotEnv.dt
        # Fourth-order Runge-Kutta over one step.
        k1 = self._derivative(state, torque)
        k2 = self._derivative(state + 0.5 * dt * k1, torque)
        k3 = self._derivative(state + 0.5 * dt * k2, torque)
        k4 = self._derivative(state + dt * k3, torque)
        state += dt / 6.0 * (k1 + 2.0 * (k2 + k3) + k4)
        angles, velocities = state[:2], state[2:]
        beyond = np.abs(angles) > np.pi
        if beyond.any():
            angles[beyond] = (angles[beyond] + np.pi) % (2.0 * np.pi) - np.pi
        np.clip(velocities, -self._fastest, self._fastest, out=velocities)
        swung_up = -np.cos(angles[0]) - np.cos(angles[0] + angles[1]) > 1.0
        return swung_up - 1.0, swung_up

    def _derivative(self, state: np.ndarray, torque: np.ndarray) -> np.ndarray:
        """The time derivative of states, both (4, copies), under torques (copies,)."""
        angle_1, angle_2, spin_1, spin_2 = state
        coupled = self._coupling * np.cos(angle_2)
        drag = self._coupling * np.sin(angle_2)
        d1 = self._first + coupled + coupled
        d2 = self._second + coupled
        phi_2 = self._weight_2 * np.sin(angle_1 + angle_2)
        phi_1 = self._weight_1 * np.sin(angle_1) + phi_2 - drag * spin_2 * (spin_2 + 2.0 * spin_1)
        derivative = np.empty_like(state)
        derivative[:2] = state[2:]
        ratio = d2 / d1
        spin_up = (torque + ratio * phi_1 - drag * spin_1 * spin_1 - phi_2) / (
            self._second - ratio * d2
        )
        derivative[3] = spin_up
        derivative[2] = -(d2 * spin_up + phi_1) / d1
        return derivative

    def observe(self) -> np.ndarray:
        """Cosine and sine of either angle, and the velocities: (copies, 6) float32."""
        shown = np.empty((self.num_envs, 6), dtype=np.float32)
        angles = self.state[:2].T
        shown[:, 0:4:2] = np.cos(angles)
        shown[:, 1:4:2] = np.sin(angles)
        shown[:, 4:] = self.state[2:].T
        return shown
