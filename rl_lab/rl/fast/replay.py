"""Batches from SB3's replay buffers."""

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize


def sample(
    buffer: ReplayBuffer, batch_size: int, normalizer: VecNormalize | None
) -> ReplayBufferSamples:
    """Draw the transitions that `buffer.sample` would, by the same random numbers.

    Of a plain buffer each array is gathered once, and not copied into a tensor besides.
    Observations are (rows, features) float32.
    """
    plain = type(buffer) is ReplayBuffer and not buffer.optimize_memory_usage and normalizer is None
    if not plain:
        batch = buffer.sample(batch_size, env=normalizer)
        return batch._replace(
            observations=batch.observations.flatten(1).float(),
            next_observations=batch.next_observations.flatten(1).float(),
        )
    rows = np.random.randint(0, buffer.size(), size=batch_size)
    copies = np.random.randint(0, buffer.n_envs, size=batch_size)
    places = rows * buffer.n_envs + copies

    def gather(array: np.ndarray) -> torch.Tensor:
        flat = array.reshape(buffer.buffer_size * buffer.n_envs, -1)
        return torch.from_numpy(flat.take(places, axis=0))

    return ReplayBufferSamples(
        observations=gather(buffer.observations).float(),
        actions=gather(buffer.actions),
        next_observations=gather(buffer.next_observations).float(),
        dones=gather(buffer.dones) * (1 - gather(buffer.timeouts)),
        rewards=gather(buffer.rewards),
    )
