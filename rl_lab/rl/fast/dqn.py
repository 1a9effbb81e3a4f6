"""DQN (Mnih et al., 2015) as SB3 computes it, without autograd."""

import numpy as np
import torch
from stable_baselines3 import DQN
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torch.nn.utils import clip_grad_norm_

from rl_lab.rl.fast.denormals import denormals_flushed
from rl_lab.rl.fast.optimizers import fused
from rl_lab.rl.fast.perceptron import Perceptron
from rl_lab.rl.fast.replay import sample
from rl_lab.rl.fast.support import ActsInBatches, not_covered


class FastDQN(ActsInBatches, DQN):
    """SB3's DQN, whose updates and actions are computed by hand where they can be."""

    def _setup_model(self) -> None:
        super()._setup_model()
        networks = [self.q_net.q_net, self.q_net_target.q_net]
        self.falls_back = not_covered(self, networks)
        if self.falls_back is None:
            self._q, self._q_target = map(Perceptron, networks)
            self._weights = list(self.q_net.parameters())

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        if self.falls_back is not None:
            return super().train(gradient_steps, batch_size)
        optimizer = self.policy.optimizer
        self._update_learning_rate(optimizer)
        assert self.replay_buffer is not None
        losses = []
        with torch.no_grad(), fused(optimizer), denormals_flushed():
            for _ in range(gradient_steps):
                batch = sample(self.replay_buffer, batch_size, self._vec_normalize_env)
                discounts = self.gamma if batch.discounts is None else batch.discounts

                # 1. What a transition is worth: its reward, and the best that may follow.
                next_q = self._q_target.forward(batch.next_observations).amax(1, keepdim=True)
                wanted = batch.rewards + (1 - batch.dones) * discounts * next_q

                # 2. Huber's loss of the actions taken, and its gradient.
                q = self._q.forward(batch.observations)
                taken = q.gather(1, batch.actions.long())
                losses.append(smooth_l1_loss(taken, wanted).item())
                gradient = (taken - wanted).clamp_(-1, 1).mul_(1 / batch_size)
                self._q.backward(torch.zeros_like(q).scatter_(1, batch.actions.long(), gradient))

                # 3. A step, of bounded length.
                clip_grad_norm_(self._weights, self.max_grad_norm)
                optimizer.step()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))
        return None

    def _act(self, batch: Tensor, deterministic: bool) -> np.ndarray:
        if not deterministic and np.random.rand() < self.exploration_rate:
            return np.array([self.action_space.sample() for _ in batch])
        return self._q.forward(batch).argmax(1).numpy()

    def _excluded_save_params(self) -> list[str]:
        own = ["falls_back", "_q", "_q_target", "_weights"]
        return [*super()._excluded_save_params(), *own]
