"""TD3 (Fujimoto et al., 2018) and DDPG as SB3 computes them, without autograd."""

import numpy as np
import torch
from stable_baselines3 import DDPG, TD3
from torch import Tensor

from rl_lab.rl.fast.critics import Critics
from rl_lab.rl.fast.denormals import denormals_flushed
from rl_lab.rl.fast.optimizers import fused
from rl_lab.rl.fast.perceptron import Perceptron
from rl_lab.rl.fast.replay import sample
from rl_lab.rl.fast.support import ActsInBatches, not_covered
from rl_lab.rl.fast.targets import polyak_update


class FastTD3(ActsInBatches, TD3):
    """SB3's TD3, whose updates and actions are computed by hand where they can be."""

    def _setup_model(self) -> None:
        super()._setup_model()
        actors = [self.actor.mu, self.actor_target.mu]
        networks = [*actors, *self.critic.q_networks, *self.critic_target.q_networks]
        self.falls_back = not_covered(self, networks)
        if self.falls_back is None:
            self._actor, self._actor_target = map(Perceptron, actors)
            self._critics, self._targets = Critics(self.critic), Critics(self.critic_target)
            self._actor_weights = list[Tensor](self.actor.parameters())
            self._actor_target_weights = list[Tensor](self.actor_target.parameters())

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        if self.falls_back is not None:
            return super().train(gradient_steps, batch_size)
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        self._update_learning_rate(optimizers)
        assert self.replay_buffer is not None
        actor_losses, critic_losses = [], []
        with torch.no_grad(), fused(*optimizers), denormals_flushed():
            for _ in range(gradient_steps):
                self._n_updates += 1
                batch = sample(self.replay_buffer, batch_size, self._vec_normalize_env)
                discounts = self.gamma if batch.discounts is None else batch.discounts

                # 1. The targets' action in the next state, blurred, and its worst value.
                noise = torch.empty_like(batch.actions).normal_(0, self.target_policy_noise)
                noise.clamp_(-self.target_noise_clip, self.target_noise_clip)
                next_action = self._actor_target.forward(batch.next_observations) + noise
                next_q = self._targets.forward(batch.next_observations, next_action.clamp_(-1, 1))
                next_value = next_q.amin(1, keepdim=True)
                wanted = batch.rewards + (1 - batch.dones) * discounts * next_value

                # 2. The critics, by their squared error.
                error = self._critics.forward(batch.observations, batch.actions) - wanted
                critic_losses.append((error**2).mean(0).sum().item())
                self._critics.backward(error * (2 / batch_size))
                self.critic.optimizer.step()

                # 3. Now and then the actor, by the first critic; then the targets follow.
                if self._n_updates % self.policy_delay == 0:
                    action = self._actor.forward(batch.observations)
                    q = self._critics.forward_first(batch.observations, action)
                    actor_losses.append(-q.mean().item())
                    of_q = torch.full_like(q, -1 / batch_size)
                    self._actor.backward(self._critics.action_gradient(of_q, action.shape[1]))
                    self.actor.optimizer.step()
                    polyak_update(self._critics.weights, self._targets.weights, self.tau)
                    polyak_update(self._actor_weights, self._actor_target_weights, self.tau)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if actor_losses:
            self.logger.record("train/actor_loss", np.mean(actor_losses))
        self.logger.record("train/critic_loss", np.mean(critic_losses))
        return None

    def _act(self, batch: Tensor, deterministic: bool) -> np.ndarray:
        actions = self._actor.forward(batch).numpy()
        return self.policy.unscale_action(
            actions.reshape(len(batch), *(self.action_space.shape or ()))
        )

    def _excluded_save_params(self) -> list[str]:
        own = ["falls_back", "_actor", "_actor_target", "_critics", "_targets"]
        own += ["_actor_weights", "_actor_target_weights"]
        return [*super()._excluded_save_params(), *own]


class FastDDPG(FastTD3, DDPG):
    """SB3's DDPG, which is its TD3 with one critic and neither delay nor blur."""
