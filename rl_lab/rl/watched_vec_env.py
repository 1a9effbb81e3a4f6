"""Copies of an environment under watch: timed, counted, and checked for what is no number."""

from typing import Any, NoReturn

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from rl_lab.phases import PhaseClock


class NonFiniteError(Exception):
    """A NaN or infinity in what the environment gave; the message says where."""


class WatchedVecEnv(VecEnvWrapper):
    """Times the environment and stops on a NaN or an infinity, before anything learns from it."""

    def __init__(self, venv: VecEnv, clock: PhaseClock) -> None:
        super().__init__(venv)
        self._clock = clock
        self.steps = 0
        """Environment steps so far, summed over the copies; a resumed run sets it."""

    def reset(self) -> VecEnvObs:
        with self._clock.during("environment"):
            observations = self.venv.reset()
        self._check("observation", observations)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        with self._clock.during("environment"):
            self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        with self._clock.during("environment"):
            observations, rewards, dones, infos = self.venv.step_wait()
        self.steps += self.num_envs
        self._check("observation", observations)
        self._check("reward", rewards)
        for copy in np.flatnonzero(dones):
            self._check_last(int(copy), infos[copy].get("terminal_observation"))
        return observations, rewards, dones, infos

    def _check(self, source: str, value: VecEnvObs) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._check(f"{source} {key!r}", item)
            return
        array = np.asarray(value)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            return
        finite_copies = np.isfinite(array.reshape(self.num_envs, -1)).all(axis=1)
        self._stop(source, int(np.flatnonzero(~finite_copies)[0]))

    def _check_last(self, copy: int, observation: Any) -> None:
        """Check an episode's last observation, which comes beside the next one's first."""
        parts = observation.values() if isinstance(observation, dict) else [observation]
        for part in parts:
            array = np.asarray(part)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                self._stop("last observation", copy)

    def _stop(self, source: str, copy: int) -> NoReturn:
        raise NonFiniteError(
            f"NaN or infinity in the {source} of environment {copy} at step {self.steps:,}; "
            "nothing was learnt from it"
        )


def watched(model: BaseAlgorithm) -> WatchedVecEnv:
    """Find our wrapper in the stack around an agent's training environment."""
    vector: Any = model.env
    while not isinstance(vector, WatchedVecEnv):
        vector = vector.venv
    return vector
