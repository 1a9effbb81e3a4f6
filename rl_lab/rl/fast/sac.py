"""SAC (Haarnoja et al., 2018) as SB3 computes it, without autograd."""

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor

from rl_lab.rl.fast.critics import Critics
from rl_lab.rl.fast.denormals import denormals_flushed
from rl_lab.rl.fast.gaussian_actor import GaussianActor, layers_of
from rl_lab.rl.fast.optimizers import fused
from rl_lab.rl.fast.replay import sample
from rl_lab.rl.fast.support import ActsInBatches, not_covered
from rl_lab.rl.fast.targets import polyak_update


class FastSAC(ActsInBatches, SAC):
    """SB3's SAC, whose updates and actions are computed by hand where they can be."""

    def _setup_model(self) -> None:
        super()._setup_model()
        critics = [*self.critic.q_networks, *self.critic_target.q_networks]
        networks = [*layers_of(self.actor), *critics]
        self.falls_back = "use_sde" if self.use_sde else not_covered(self, networks)
        if self.falls_back is None:
            self._actor = GaussianActor(self.actor)
            self._critics, self._targets = Critics(self.critic), Critics(self.critic_target)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if self.falls_back is not None:
            return super().train(gradient_steps, batch_size)
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        if self.ent_coef_optimizer is not None:
            optimizers.append(self.ent_coef_optimizer)
        self._update_learning_rate(optimizers)
        assert self.replay_buffer is not None
        ent_coefs, ent_coef_losses, critic_losses, actor_losses = [], [], [], []
        with torch.no_grad(), fused(*optimizers), denormals_flushed():
            for step in range(gradient_steps):
                batch = sample(self.replay_buffer, batch_size, self._vec_normalize_env)
                discounts = self.gamma if batch.discounts is None else batch.discounts

                # 1. Actions of the actor in both states. Those in the first come last: the way back
                #    goes through what its layers then hold.
                noise = torch.empty(batch_size, batch.actions.shape[1]).normal_()
                next_noise = torch.empty_like(noise).normal_()
                next_action, next_log_prob = self._actor.forward(
                    batch.next_observations, next_noise
                )
                action, log_prob = self._actor.forward_to_learn(batch.observations, noise)

                # 2. The entropy coefficient.
                if self.ent_coef_optimizer is None or self.log_ent_coef is None:
                    ent_coef = self.ent_coef_tensor
                else:
                    ent_coef = self.log_ent_coef.exp()
                    gradient = -(log_prob + float(self.target_entropy)).mean(0)
                    ent_coef_losses.append((self.log_ent_coef * gradient).item())
                    self.log_ent_coef.grad = gradient
                    self.ent_coef_optimizer.step()
                ent_coefs.append(ent_coef.item())

                # 3. The critics: squared error against the worst that the targets expect.
                next_q = self._targets.forward(batch.next_observations, next_action)
                next_value = next_q.amin(1, keepdim=True) - ent_coef * next_log_prob
                wanted = batch.rewards + (1 - batch.dones) * discounts * next_value
                error = self._critics.forward(batch.observations, batch.actions) - wanted
                critic_losses.append(0.5 * (error**2).mean(0).sum().item())
                self._critics.backward(error * (1 / batch_size))
                self.critic.optimizer.step()

                # 4. The actor, by the critic that thinks least of its action.
                q = self._critics.forward(batch.observations, action)
                least, which = q.min(1, keepdim=True)
                actor_losses.append((ent_coef * log_prob - least).mean().item())
                of_q = torch.zeros_like(q).scatter_(1, which, -1 / batch_size)
                of_action = self._critics.action_gradient(of_q, noise.shape[1])
                self._actor.backward(of_action, (ent_coef * (1 / batch_size)).expand_as(log_prob))
                self.actor.optimizer.step()

                # 5. The targets follow.
                if step % self.target_update_interval == 0:
                    polyak_update(self._critics.weights, self._targets.weights, self.tau)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/ent_coef", np.mean(ent_coefs))
        self.logger.record("train/actor_loss", np.mean(actor_losses))
        self.logger.record("train/critic_loss", np.mean(critic_losses))
        if ent_coef_losses:
            self.logger.record("train/ent_coef_loss", np.mean(ent_coef_losses))
        return None

    def _act(self, batch: Tensor, deterministic: bool) -> np.ndarray:
        noise = torch.zeros(len(batch), get_action_dim(self.action_space))
        if not deterministic:
            noise.normal_()
        actions = self._actor.forward(batch, noise)[0].numpy()
        return self.policy.unscale_action(
            actions.reshape(len(batch), *(self.action_space.shape or ()))
        )

    def _excluded_save_params(self) -> list[str]:
        own = ["falls_back", "_actor", "_critics", "_targets"]
        return [*super()._excluded_save_params(), *own]
