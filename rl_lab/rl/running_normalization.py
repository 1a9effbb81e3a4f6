"""SB3's VecNormalize, bit for bit, without what takes longer than a vectorised environment's step.

Half of that time went into numpy's `mean`, `var` and `clip`, which are Python around the few
array operations written out here, and into a deep copy that nothing needed.
"""

from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize


class Moments(RunningMeanStd):
    """A running mean and variance."""

    def update(self, arr: np.ndarray) -> None:
        """Take a batch, (batch, ...), into account."""
        if arr.dtype.char not in "fd":  # others are summed up in a finer type
            super().update(arr)
            return
        count = len(arr)
        mean = np.add.reduce(arr, axis=0) / count
        deviation = arr - mean
        variance = np.add.reduce(deviation * deviation, axis=0) / count
        self.update_from_moments(mean, variance, count)


class RunningNormalization(VecNormalize):
    """Normalises observations and rewards by their running moments."""

    obs_rms: Any  # Moments; of dict observations, a dict of them

    def __init__(self, venv: VecEnv, **settings: Any) -> None:
        """Wrap `venv`; settings are VecNormalize's."""
        super().__init__(venv, **settings)
        self.ret_rms = Moments(shape=())
        if not self.norm_obs:
            self.obs_rms = None
        elif isinstance(self.obs_rms, dict):
            self.obs_rms = {key: Moments(shape=one.mean.shape) for key, one in self.obs_rms.items()}
        else:
            self.obs_rms = Moments(shape=self.obs_rms.mean.shape)

    def normalize_obs(self, obs: Any) -> Any:
        """Normalise observations; the statistics stay as they are."""
        if not self.norm_obs or isinstance(self.obs_rms, dict):
            return super().normalize_obs(obs)
        return self._normalize_obs(obs, self.obs_rms).astype(np.float32)

    def _normalize_obs(self, obs: np.ndarray, obs_rms: RunningMeanStd) -> np.ndarray:
        normal = (obs - obs_rms.mean) / np.sqrt(obs_rms.var + self.epsilon)
        return np.minimum(np.maximum(normal, -self.clip_obs), self.clip_obs)

    def normalize_reward(self, reward: np.ndarray) -> np.ndarray:
        """Normalise rewards; the statistics stay as they are."""
        if self.norm_reward:
            reward = reward / np.sqrt(self.ret_rms.var + self.epsilon)
            reward = np.minimum(np.maximum(reward, -self.clip_reward), self.clip_reward)
        return reward.astype(np.float32)

    def as_sb3s(self) -> VecNormalize:
        """Return the same, frozen, of SB3's own classes: whoever reads its pickle has no lab."""
        own = VecNormalize(
            self.venv,
            training=False,
            norm_obs=self.norm_obs,
            norm_reward=self.norm_reward,
            clip_obs=self.clip_obs,
            clip_reward=self.clip_reward,
            gamma=self.gamma,
            epsilon=self.epsilon,
        )
        own.ret_rms = self.ret_rms.copy()
        if isinstance(self.obs_rms, dict):
            own.obs_rms = {key: moments.copy() for key, moments in self.obs_rms.items()}
        elif self.norm_obs:
            own.obs_rms = self.obs_rms.copy()
        return own
