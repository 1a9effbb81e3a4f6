"""Copies of an environment that take turns in this process, without copying what need not be."""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs


class SerialVecEnv(DummyVecEnv):
    """SB3's DummyVecEnv, value for value, but for its deep copies of observations and infos.

    Each `info` is copied one level deep: an array in it is the environment's own, as it is where
    there is one environment only.
    """

    def step_wait(self) -> VecEnvStepReturn:
        rewards = np.empty(self.num_envs, dtype=np.float32)
        dones = np.empty(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = []
        for copy, env in enumerate(self.envs):
            observation, reward, terminated, truncated, own = env.step(self.actions[copy])
            info = {**own, "TimeLimit.truncated": truncated and not terminated}
            if terminated or truncated:
                info["terminal_observation"] = observation
                observation, self.reset_infos[copy] = env.reset()
            rewards[copy] = reward
            dones[copy] = terminated or truncated
            infos.append(info)
            self._save_obs(copy, observation)
        return self._obs_from_buf(), rewards, dones, infos

    def _obs_from_buf(self) -> VecEnvObs:
        copied = {key: part.copy() for key, part in self.buf_obs.items()}
        return dict_to_obs(self.observation_space, copied)
