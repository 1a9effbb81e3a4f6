"""SAC's actor: a perceptron whose outputs are the squashed Gaussian of each state's actions."""

import math

import torch
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, Actor
from torch import Tensor, nn

from rl_lab.rl.fast.perceptron import Perceptron

EPSILON = 1e-6
"""SB3's, in the correction for tanh: the density stays finite where actions are at their bounds."""
HALF_LOG_TWO_PI = math.log(math.sqrt(2 * math.pi))


def squashed_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw actions tanh(mean + exp(log_std) * noise) (Haarnoja et al., 2018, appendix C).

    The operations are those of SB3's distribution, in their order: so are the gradients.

    Args:
        mean: of the Gaussian, (rows, actions).
        log_std: likewise; taken into SB3's bounds here.
        noise: likewise, standard normal; 0 gives the mode.

    Returns:
        Actions (rows, actions) and their log density (rows, 1).
    """
    std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()
    value = mean + noise * std
    action = torch.tanh(value)
    gaussian = -((value - mean) ** 2) / (2 * std**2) - std.log() - HALF_LOG_TWO_PI
    squash = torch.log(1 - action**2 + EPSILON)
    return action, gaussian.sum(1, keepdim=True) - squash.sum(1, keepdim=True)


class GaussianActor:
    """Passes through SB3's actor; only the few numbers of the distribution go through autograd."""

    def __init__(self, actor: Actor) -> None:
        self._latent, self._mean, self._log_std = map(Perceptron, layers_of(actor))

    def forward(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (rows, actions) and log density (rows, 1) in states (rows, features)."""
        latent = self._latent.forward(observations)
        return squashed_gaussian(self._mean.forward(latent), self._log_std.forward(latent), noise)

    def forward_to_learn(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `forward` does, and keep what `backward` needs."""
        latent = self._latent.forward(observations)
        mean = self._mean.forward(latent).detach().requires_grad_()
        log_std = self._log_std.forward(latent).detach().requires_grad_()
        with torch.enable_grad():
            self._drawn = squashed_gaussian(mean, log_std, noise)
        self._outputs = mean, log_std
        action, log_prob = self._drawn
        return action.detach(), log_prob.detach()

    def backward(self, of_action: Tensor, of_log_prob: Tensor) -> None:
        """Set the weights' `.grad` from a loss's gradients, each of the shape of what it is of."""
        drawn = (of_action, of_log_prob)
        of_mean, of_log_std = torch.autograd.grad(self._drawn, self._outputs, drawn)
        of_latent = self._mean.backward(of_mean, inputs=True)
        of_latent += self._log_std.backward(of_log_std, inputs=True)
        self._latent.backward(of_latent)


def layers_of(actor: Actor) -> list[nn.Module]:
    """The actor's networks: up to the last hidden layer, to the mean, to log_std."""
    return [actor.latent_pi, actor.mu, actor.log_std]  # type: ignore[list-item]
