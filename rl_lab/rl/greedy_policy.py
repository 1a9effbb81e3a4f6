"""An agent's greedy policy as one network: raw observations in, the environment's actions out.

What surrounds an agent's network elsewhere is part of it: VecNormalize's frozen statistics, image
channels first, and what SB3's `predict` does to actions (squashing, scaling, clipping).
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import nn

from rl_lab.errors import UserError

MASKED = -1e8
"""What sb3-contrib puts in the place of a masked action's logit."""


def parts_of(space: spaces.Space) -> dict[str, spaces.Space]:
    """The parts of an observation by name; one that is no dictionary is its only part."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}


class GreedyPolicy(nn.Module):
    """Greedy actions of an agent that was loaded to act on the CPU; it shares its weights."""

    _low: torch.Tensor
    _high: torch.Tensor

    def __init__(self, model: BaseAlgorithm, observations: spaces.Space) -> None:
        """Take over an agent.

        Args:
            model: the agent.
            observations: the space of what is given: as the environment tells it, frames stacked.

        Raises:
            UserError: its actions are no function of that.
        """
        super().__init__()
        if isinstance(model, RecurrentPPO):
            raise UserError(
                "recurrent_ppo remembers earlier observations: its actions are no function of the "
                "newest one, which is all that an ONNX file would be given"
            )
        self.policy: Any = model.policy.eval()
        self.masked = isinstance(model, MaskablePPO)
        """Whether the last argument is the mask of actions: (B, logits), true where allowed."""
        self._on_policy = isinstance(model, OnPolicyAlgorithm)
        self._squashed_mean = isinstance(model, SAC | TQC | CrossQ)
        self._names = list(parts_of(observations)) if isinstance(observations, spaces.Dict) else []
        self._preparations = _preparations(model, observations)
        self._actions: Any = model.action_space
        if isinstance(self._actions, spaces.Box):
            self.register_buffer("_low", torch.from_numpy(self._actions.low))
            self.register_buffer("_high", torch.from_numpy(self._actions.high))

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Act.

        Args:
            given: a tensor (B, ...) for each part of the observation, of its space's type; then,
                if `masked`, the mask.

        Returns:
            (B, ...) actions, in the environment's own units.
        """
        parts = [prepare(part) for prepare, part in zip(self._preparations, given, strict=False)]
        observation: Any = dict(zip(self._names, parts, strict=True)) if self._names else parts[0]
        actions = self._greedy(observation, given[-1] if self.masked else None)
        actions = actions.reshape(-1, *(self._actions.shape or ()))
        if not isinstance(self._actions, spaces.Box):
            return actions
        if self.policy.squash_output:
            return self._low + 0.5 * (actions + 1.0) * (self._high - self._low)
        return torch.minimum(torch.maximum(actions, self._low), self._high)

    def _greedy(self, observation: Any, mask: torch.Tensor | None) -> torch.Tensor:
        """What the policy's `_predict` gives, without the distributions it takes on its way."""
        policy, space = self.policy, self._actions
        if self._squashed_mean:
            return torch.tanh(policy.actor.get_action_dist_params(observation)[0])
        if not self._on_policy:  # the actor of TD3 and DDPG, the best value of DQN and QR-DQN, ARS
            return policy._predict(observation, deterministic=True)
        features = policy.extract_features(observation, policy.pi_features_extractor)
        output = policy.action_net(policy.mlp_extractor.forward_actor(features))
        if isinstance(space, spaces.Box):
            return torch.tanh(output) if policy.squash_output else output
        if mask is not None:
            output = torch.where(mask, output, torch.full_like(output, MASKED))
        if isinstance(space, spaces.Discrete):
            return output.argmax(dim=1)
        if isinstance(space, spaces.MultiBinary) and not self.masked:
            return (output > 0).float()
        binary = isinstance(space, spaces.MultiBinary)
        sizes = [2] * (output.shape[1] // 2) if binary else space.nvec.tolist()
        return torch.stack([logits.argmax(dim=1) for logits in output.split(sizes, dim=1)], dim=1)


class _Prepare(nn.Module):
    """What VecNormalize and VecTransposeImage do to one part of an observation."""

    _mean: torch.Tensor
    _deviation: torch.Tensor

    def __init__(
        self, channels_last: bool, running: RunningMeanStd | None, normalizer: Any
    ) -> None:
        super().__init__()
        self._channels_last = channels_last
        self._normalized = running is not None
        if running is not None:  # in double precision, as numpy has it
            self._clip = float(normalizer.clip_obs)
            self.register_buffer("_mean", torch.from_numpy(np.asarray(running.mean)))
            deviation = np.sqrt(running.var + normalizer.epsilon)
            self.register_buffer("_deviation", torch.from_numpy(np.asarray(deviation)))

    def forward(self, part: torch.Tensor) -> torch.Tensor:
        if self._normalized:
            scaled = (part.double() - self._mean) / self._deviation
            part = scaled.clamp(-self._clip, self._clip).float()
        return part.permute(0, 3, 1, 2) if self._channels_last else part


def _preparations(model: BaseAlgorithm, observations: spaces.Space) -> nn.ModuleList:
    """For each part of an observation, in their order."""
    given, seen = parts_of(observations), parts_of(model.observation_space)
    normalizer = model.get_vec_normalize_env()
    running: Any = {}
    if normalizer is not None and normalizer.norm_obs:
        whole = not isinstance(observations, spaces.Dict)
        running = dict.fromkeys(given, normalizer.obs_rms) if whole else normalizer.obs_rms
    return nn.ModuleList(
        _Prepare(given[name].shape != seen[name].shape, running.get(name), normalizer)
        for name in given
    )
