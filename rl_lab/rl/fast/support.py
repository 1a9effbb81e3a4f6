"""What the fast methods cover, and what an algorithm's own methods are left to do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn

from rl_lab.rl.fast import perceptron


class ActsInBatches:
    """The part of a fast algorithm, before SB3's among its bases, that asks for actions."""

    falls_back: str | None
    """Why SB3's own methods are used; None: they are not."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """As SB3's; a batch of observations goes through the networks without their modules."""
        space: spaces.Space = self.observation_space  # type: ignore[attr-defined]
        batch = None if self.falls_back else batch_of(observation, space)
        if batch is None:
            return super().predict(observation, state, episode_start, deterministic)  # type: ignore[misc]
        with torch.no_grad():
            return self._act(batch, deterministic), state

    def _act(self, batch: Tensor, deterministic: bool) -> np.ndarray:
        """Actions as the environment takes them, for (copies, features) observations."""
        raise NotImplementedError


def not_covered(model: OffPolicyAlgorithm, networks: Sequence[nn.Module]) -> str | None:
    """Say in a few words why SB3's own methods are needed; None if they are not.

    Args:
        model: the algorithm, set up.
        networks: all that it has behind the features extractors.
    """
    space = model.observation_space
    if model.device.type != "cpu":
        return f"device {model.device.type}"
    if not isinstance(space, spaces.Box):
        return f"{type(space).__name__.lower()} observations"
    if is_image_space(space):
        return "image observations"
    if type(model.policy) is not model.policy_aliases["MlpPolicy"]:
        return f"policy {type(model.policy).__name__}"
    if model.policy.features_extractor_class is not FlattenExtractor:
        return "a features extractor"
    if not all(perceptron.passable(network) for network in networks):
        return "layers that are not linear, ReLU or tanh"
    return None


def batch_of(observation: Any, space: spaces.Space) -> Tensor | None:
    """Observations of several copies as (copies, features) float32; None if they are no such."""
    if not isinstance(observation, np.ndarray) or observation.shape[1:] != space.shape:
        return None
    return torch.from_numpy(observation.reshape(len(observation), -1).astype(np.float32))
