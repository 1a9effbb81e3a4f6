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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rl_lab.rl.fast import flat_adam
from rl_lab.rl.fast.actor_critic import ACTIVATIONS, ActorCritic, numpy_actor
from rl_lab.rl.fast.advantages import generalized_advantages
from rl_lab.rl.fast.distributions import Distribution, distribution_of
from rl_lab.rl.fast.flat_adam import FlatAdam

ROWS_AT_ONCE = 8192
"""States evaluated in one go, of a rollout that may hold many more."""

Features: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""(n, *shape) observations -> (n, D) float32, as SB3 preprocesses and flattens them."""


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
            self._features = _features_of(self.observation_space, self.policy.normalize_images)

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
        actions = self._distribution.draw(outputs, np.zeros(1))
        return _in_space(actions, self.action_space), state

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
            clipped_actions = _in_space(actions, self.action_space)
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
    ) -> tuple[list["Seen"], int]:
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
                batches = list(self._minibatches(rollout))
            self._n_updates += 1
            for batch in batches:
                outputs, values = network.forward(batch.states)
                log_probs, spread = distribution.log_prob(outputs, batch.actions)
                log_ratios = log_probs - batch.log_probs
                seen.append(Seen(batch, log_ratios, values, spread))
                if self.target_kl is not None and seen[-1].approx_kl() > 1.5 * self.target_kl:
                    return seen, epoch_begins

                # The clipped surrogate objective (Schulman et al., 2017, equation 7) and the
                # squared error of the values, differentiated.
                surrogate = batch.advantages * np.exp(log_ratios)
                by_log_probs = surrogate * (surrogate <= batch.limits(clip))
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

    def _rollout(self) -> "Rollout":
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

    def _minibatches(self, rollout: "Rollout") -> Iterator["Rollout"]:
        """Yield an epoch's minibatches, in SB3's order if numpy's generator is in its state."""
        if len(rollout) > self.batch_size:
            rollout = rollout.rows(np.random.permutation(len(rollout)))
        for start in range(0, len(rollout), self.batch_size):
            batch = rollout.rows(slice(start, start + self.batch_size))
            if self.normalize_advantage and len(batch) > 1:
                centred = batch.advantages - batch.advantages.mean()
                centred /= centred.std(ddof=1) + 1e-8
                batch = replace(batch, advantages=centred)
            yield batch

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
        self, seen: list["Seen"], last_epoch: int, clip: float, clip_values: float | None
    ) -> None:
        """Log what SB3 logs.

        Args:
            seen: every minibatch that was looked at.
            last_epoch: index of the last epoch's first.
            clip: range of the ratios.
            clip_values: of the values; None: they were not clipped.
        """
        sizes = np.array([len(each.batch) for each in seen])
        firsts = sizes.cumsum() - sizes

        def means(rows: np.ndarray) -> np.ndarray:
            """Mean over each minibatch, of a number for each row of all of them."""
            return np.add.reduceat(rows, firsts, dtype=np.float64) / sizes

        log_ratios = np.concatenate([each.log_ratios for each in seen])
        advantages = np.concatenate([each.batch.advantages for each in seen])
        values = np.concatenate([each.values for each in seen])
        returns = np.concatenate([each.batch.returns for each in seen])
        if clip_values is not None:
            old = np.concatenate([each.batch.values for each in seen])
            values = old + (values - old).clip(-clip_values, clip_values)
        ratios = np.exp(log_ratios)
        limits = np.concatenate([each.batch.limits(clip) for each in seen])
        surrogate = np.minimum(advantages * ratios, limits)
        entropies = self._distribution.entropy(np.concatenate([each.spread for each in seen], 1))
        policy_losses, entropy_losses = -means(surrogate), -means(entropies)
        value_losses = means((returns - values) ** 2)
        losses = policy_losses + self.ent_coef * entropy_losses + self.vf_coef * value_losses
        buffer = self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        numbers = {
            "entropy_loss": entropy_losses.mean(),
            "policy_gradient_loss": policy_losses.mean(),
            "value_loss": value_losses.mean(),
            "approx_kl": means(ratios - 1 - log_ratios)[last_epoch:].mean(),
            "clip_fraction": means(np.abs(ratios - 1) > clip).mean(),
            "loss": losses[-1],
            "explained_variance": explained,
        }
        if hasattr(self.policy, "log_std"):
            numbers["std"] = self.policy.log_std.exp().mean().item()
        for name, value in numbers.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip)
        if clip_values is not None:
            self.logger.record("train/clip_range_vf", clip_values)


@dataclass(frozen=True)
class Rollout:
    """n states, what was done in them, and what came of it; or some of these, a minibatch."""

    states: np.ndarray
    """(n, D) float32, as the network reads them."""
    actions: np.ndarray
    """(K, n), as the distribution encodes them."""
    log_probs: np.ndarray
    """(n,), of the actions, when they were drawn."""
    advantages: np.ndarray
    """(n,); a minibatch's are normalised, if they are to be."""
    returns: np.ndarray
    """(n,)."""
    values: np.ndarray
    """(n,), as the critic had them before the update."""

    def __len__(self) -> int:
        return len(self.returns)

    def limits(self, clip: float) -> np.ndarray:
        """(n,), what ratio x advantage is cut off at.

        min(r A, clip(r, 1 - e, 1 + e) A) is min(r A, A + e |A|) (OpenAI Spinning Up, "PPO").
        """
        return self.advantages + clip * np.abs(self.advantages)

    def rows(self, which: slice | np.ndarray) -> "Rollout":
        """Some of them, by indices or a range."""
        return Rollout(
            self.states[which], self.actions[:, which], self.log_probs[which],
            self.advantages[which], self.returns[which], self.values[which],
        )  # fmt: skip


class Seen(NamedTuple):
    """What a minibatch came to before its step; kept for the log."""

    batch: Rollout
    log_ratios: np.ndarray
    """(n,), of the actions' probabilities, now to when they were drawn."""
    values: np.ndarray
    """(n,)."""
    spread: np.ndarray
    """(K, n), from which the entropy follows."""

    def approx_kl(self) -> float:
        """Mean of ratio - 1 - log ratio (Schulman, "Approximating KL divergence", 2020: k3)."""
        return float((np.exp(self.log_ratios) - 1 - self.log_ratios).mean())


def _features_of(space: spaces.Space, normalize_images: bool) -> Features:
    """Choose how observations are read."""
    if isinstance(space, spaces.Box) and not is_image_space(space):
        return lambda rows: rows.reshape(len(rows), -1).astype(np.float32, copy=False)

    def preprocessed(rows: np.ndarray) -> np.ndarray:
        tensor = preprocess_obs(torch.as_tensor(rows), space, normalize_images)
        assert isinstance(tensor, Tensor)
        return tensor.flatten(1).numpy()

    return preprocessed


def _in_space(actions: np.ndarray, space: spaces.Space) -> np.ndarray:
    """(n, dimensions) actions as an environment takes them: a Box's are clipped to it."""
    if isinstance(space, spaces.Box):
        return np.clip(actions.reshape(-1, *space.shape), space.low, space.high)
    return actions[:, 0] if isinstance(space, spaces.Discrete) else actions


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
