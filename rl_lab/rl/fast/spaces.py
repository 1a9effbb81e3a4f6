"""What environments show and take, and what networks read and make."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from torch import Tensor

Features: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""(n, *shape) observations -> (n, D) float32, as SB3 preprocesses and flattens them."""


def features_of(space: spaces.Space, normalize_images: bool) -> Features:
    """Choose how observations are read."""
    if isinstance(space, spaces.Box) and not is_image_space(space):
        return lambda rows: rows.reshape(len(rows), -1).astype(np.float32, copy=False)

    def preprocessed(rows: np.ndarray) -> np.ndarray:
        tensor = preprocess_obs(torch.as_tensor(rows), space, normalize_images)
        assert isinstance(tensor, Tensor)
        return tensor.flatten(1).numpy()

    return preprocessed


def in_space(actions: np.ndarray, space: spaces.Space) -> np.ndarray:
    """(n, dimensions) actions as an environment takes them: a Box's are clipped to it."""
    if isinstance(space, spaces.Box):
        return np.clip(actions.reshape(-1, *space.shape), space.low, space.high)
    return actions[:, 0] if isinstance(space, spaces.Discrete) else actions
