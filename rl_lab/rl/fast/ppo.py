"""PPO for small networks: SB3's, without what SB3 spends around the arithmetic.

What differs from `stable_baselines3.PPO` is where the time goes, not what is learnt:

- Actions are drawn in numpy. Values and log-probabilities, which nothing asks for before a rollout
  is over, are worked out for all of it at once.
- An update runs forward and backward on tensors that lie ready (`actor_critic`), with gradients
  written down (`distributions`) and one Adam step over one vector (`flat_adam`).
- What is logged is worked out once, after the last minibatch.

From equal weights, an equal rollout and numpy's generator in the same state, `train` ends with
SB3's weights but for rounding. Other random numbers than SB3's draw the actions.
"""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv

from rl_lab.rl.fast import flat_adam
from rl_lab.rl.fast.actor_critic import ACTIVATIONS, ActorCritic, numpy_actor
from rl_lab.rl.fast.advantages import generalized_advantages
from rl_lab.rl.fast.distributions import Distribution, distribution_of
from rl_lab.rl.fast.flat_adam import FlatAdam
from rl_lab.rl.fast.minibatches import Rollout, Seen, limits
from rl_lab.rl.fast.spaces import Features, features_of, in_space
from rl_lab.rl.fast.update_log import losses

ROWS_AT_ONCE = 2048
"""States evaluated in one go, of a rollout that may hold many more."""


class FastPPO(PPO):
    """SB3's PPO, quicker for MLP policies; for others it is SB3's own, and says why.

    Callbacks get SB3's locals but for `values` and `log_probs`, which are not known during a
    rollout.
    """

    falls_back: str | None = None
    """Why SB3's own methods are used; None: they are not."""
    _network: ActorCritic | None = None
    _adam: FlatAdam
    _distribution: Distribution
    _features: Features
    _not_saved: ClassVar = ("falls_back", "_network", "_adam", "_distribution", "_features")

    def _setup_model(self) -> None:
        super()._setup_model()
        self.falls_back = _unsupported(self)
        if self.falls_back is None:
            self._features = features_of(self.observation_space, self.policy.normalize_images)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *self._not_saved]

    def _take_over(self) -> ActorCritic:
        """Lay weights and optimiser state out as they are worked on, unless they still are."""
        if self._network is None or not self._network.flat.in_place:
            self._network = ActorCritic(self.policy)
            self._adam = FlatAdam(self.policy.optimizer, self._network.flat)
            self._distribution = distribution_of(
                self.action_space, self._network.log_std, self._network.by_log_std
            )
        elif not self._adam.in_place:
            self._adam = FlatAdam(self.policy.optimizer, self._network.flat)
        return self._network

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As SB3's; greedy actions for a batch of observations, an evaluation's, come quicker."""
        batched = np.ndim(observation) == len(self.rollout_buffer.obs_shape) + 1  # type: ignore[arg-type]
        if self.falls_back is not None or not (deterministic and batched):
            return super().predict(observation, state, episode_start, deterministic)
        self._take_over()
        outputs = numpy_actor(self.policy)(self._features(np.asarray(observation)))
        actions = self._distribution.draw(outputs, np.zeros(1, np.float32))
        return in_space(actions, self.action_space), state

    # --- rollout ---------------------------------------------------------------------------------

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Fill the buffer; return False if the callback ended the rollout."""
        if self.falls_back is not None:
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        self.policy.set_training_mode(False)
        buffer = rollout_buffer
        buffer.reset()
        callback.on_rollout_start()

        network = self._take_over()
        outputs_for, distribution = numpy_actor(self.policy), self._distribution
        chances = distribution.chances(n_rollout_steps, env.num_envs)
        cut_off: list[tuple[int, int, np.ndarray]] = []  # step, copy, last observation
        for step in range(n_rollout_steps):
            observations: Any = self._last_obs
            actions = distribution.draw(outputs_for(self._features(observations)), chances[step])
            buffer.observations[step] = observations.reshape(buffer.observations.shape[1:])
            buffer.actions[step] = actions
            buffer.episode_starts[step] = self._last_episode_starts
            clipped_actions = in_space(actions, self.action_space)
            new_obs, rewards, dones, infos = env.step(clipped_actions)

            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False

            self._update_info_buffer(infos, dones)
            buffer.rewards[step] = rewards
            for copy in np.flatnonzero(dones).tolist():
                last = infos[copy].get("terminal_observation")
                if last is not None and infos[copy].get("TimeLimit.truncated", False):
                    cut_off.append((step, copy, last))
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]

        self._evaluate(network, buffer, cut_off)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    @torch.inference_mode()
    def _evaluate(
        self,
        network: ActorCritic,
        buffer: RolloutBuffer,
        cut_off: list[tuple[int, int, np.ndarray]],
    ) -> None:
        """Work out a rollout's values, log-probabilities, advantages and returns."""
        assert isinstance(self._last_obs, np.ndarray)
        assert self._last_episode_starts is not None

        def values_of(observations: np.ndarray) -> np.ndarray:
            return network.forward(self._features(observations))[1]

        steps, copies = buffer.rewards.shape
        states = buffer.observations.reshape(steps * copies, *buffer.obs_shape)
        actions = buffer.actions.reshape(steps * copies, -1)
        for start in range(0, len(states), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            outputs, values = network.forward(self._features(states[rows]))
            encoded = self._distribution.encode(actions[rows])
            log_probs, _ = self._distribution.log_prob(outputs, encoded)
            buffer.values.reshape(-1)[rows] = values
            buffer.log_probs.reshape(-1)[rows] = log_probs
        if cut_off:  # a return goes on where a time limit cut its episode off
            at = tuple(np.array([place[:2] for place in cut_off]).T)
            last = np.stack([observation for _, _, observation in cut_off])
            buffer.rewards[at] += self.gamma * values_of(last)
        buffer.advantages = generalized_advantages(
            buffer.rewards, buffer.values, values_of(self._last_obs), buffer.episode_starts,
            self._last_episode_starts.astype(np.float32), self.gamma, self.gae_lambda,
        )  # fmt: skip
        buffer.returns = buffer.advantages + buffer.values
        buffer.pos, buffer.full = steps, True

    # --- update ----------------------------------------------------------------------------------

    def train(self) -> None:
        """Learn from the rollout in the buffer."""
        if self.falls_back is not None:
            super().train()
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        clip_values = None
        if self.clip_range_vf is not None:
            clip_values = self.clip_range_vf(self._current_progress_remaining)  # type: ignore[operator]
        network = self._take_over()
        with torch.inference_mode():
            seen, last_epoch = self._optimize(network, clip, clip_values)
        self._adam.publish_step_count()
        self._log_update(seen, last_epoch, clip, clip_values)

    def _optimize(
        self, network: ActorCritic, clip: float, clip_values: float | None
    ) -> tuple[list[Seen], int]:
        """Make the epochs over the rollout, one optimiser step for each minibatch.

        Returns:
            Every minibatch that was looked at, and the index of the last epoch's first.
        """
        distribution, rollout = self._distribution, self._rollout()
        batches: list[Rollout] = []
        seen: list[Seen] = []
        epoch_begins = 0
        for epoch in range(self.n_epochs):
            epoch_begins = len(seen)
            # The order within the one minibatch there may be is of no consequence.
            if epoch == 0 or len(rollout) > self.batch_size:
                batches = list(rollout.minibatches(self.batch_size, self.normalize_advantage))
            self._n_updates += 1
            for batch in batches:
                outputs, values = network.forward(batch.states)
                log_probs, spread = distribution.log_prob(outputs, batch.actions)
                log_ratios = log_probs - batch.log_probs
                seen.append(
                    Seen(log_ratios, batch.advantages, values, batch.values, batch.returns, spread)
                )
                if self.target_kl is not None and seen[-1].approx_kl() > 1.5 * self.target_kl:
                    return seen, epoch_begins

                # The clipped surrogate objective (Schulman et al., 2017, equation 7) and the
                # squared error of the values, differentiated.
                surrogate = batch.advantages * np.exp(log_ratios)
                by_log_probs = surrogate * (surrogate <= limits(batch.advantages, clip))
                by_log_probs /= -len(batch)
                errors = values - batch.returns
                if clip_values is not None:
                    moved = values - batch.values
                    errors = batch.values + moved.clip(-clip_values, clip_values) - batch.returns
                    errors *= np.abs(moved) <= clip_values
                errors *= 2 * self.vf_coef / len(batch)

                by_outputs = distribution.gradient(
                    spread, batch.actions, by_log_probs, self.ent_coef
                )
                network.backward(by_outputs, errors)
                self._step(network)
        return seen, epoch_begins

    def _rollout(self) -> Rollout:
        """The buffer's rollout, copy after copy, as SB3 flattens it."""
        buffer = self.rollout_buffer

        def flat(array: np.ndarray) -> np.ndarray:
            return array if buffer.generator_ready else buffer.swap_and_flatten(array)

        return Rollout(
            self._features(flat(buffer.observations)),
            self._distribution.encode(flat(buffer.actions)),
            *(flat(array).reshape(-1) for array in (
                buffer.log_probs, buffer.advantages, buffer.returns, buffer.values
            )),
        )  # fmt: skip

    def _step(self, network: ActorCritic) -> None:
        """Clip the gradient's norm, and make a step of the optimiser."""
        gradients = network.flat.gradients.numpy()
        norm = math.sqrt(gradients @ gradients)
        if not math.isfinite(norm):  # what becomes of it is for the hooks of the optimiser to say
            self._adam.step_by_optimizer()
            return
        if norm + 1e-6 > self.max_grad_norm:
            gradients *= self.max_grad_norm / (norm + 1e-6)
        self._adam.step()

    def _log_update(
        self, seen: list[Seen], last_epoch: int, clip: float, clip_values: float | None
    ) -> None:
        """Log what SB3 logs, under its names."""
        entropies = self._distribution.entropy(np.concatenate([each.spread for each in seen], 1))
        numbers = losses(
            seen, last_epoch, entropies, clip, clip_values, self.ent_coef, self.vf_coef
        )
        buffer = self.rollout_buffer
        numbers["explained_variance"] = explained_variance(
            buffer.values.flatten(), buffer.returns.flatten()
        )
        if hasattr(self.policy, "log_std"):
            numbers["std"] = self.policy.log_std.exp().mean().item()
        numbers["clip_range"] = clip
        if clip_values is not None:
            numbers["clip_range_vf"] = clip_values
        for name, value in numbers.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")


def _unsupported(model: PPO) -> str | None:
    """Say why SB3's own methods are to be used; None if they need not."""
    policy, space = model.policy, model.action_space
    if type(policy) is not ActorCriticPolicy:
        return f"policy {type(policy).__name__}"
    if model.use_sde:
        return "state-dependent exploration (use_sde)"
    if type(policy.features_extractor) is not FlattenExtractor:
        return f"features by {type(policy.features_extractor).__name__}"
    if policy.activation_fn not in ACTIVATIONS:
        return f"activation {policy.activation_fn.__name__}"
    if type(model.rollout_buffer) is not RolloutBuffer:
        return f"rollout buffer {type(model.rollout_buffer).__name__}"
    if model.device.type != "cpu":
        return f"device {model.device.type}"
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return "actions that do not begin at 0"
    return flat_adam.unsupported(policy.optimizer)
