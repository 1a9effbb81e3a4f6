"""The critics of SAC and TD3 together: several networks, one value each."""

import torch
from stable_baselines3.common.policies import ContinuousCritic
from torch import Tensor

from rl_lab.rl.fast.perceptron import Perceptron


class Critics:
    """Passes through all networks of one of SB3's critics; `rows` transitions at a time."""

    def __init__(self, critic: ContinuousCritic) -> None:
        self._networks = [Perceptron(network) for network in critic.q_networks]
        self.weights = list[Tensor](critic.parameters())

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (rows, networks) of actions (rows, actions) in states (rows, features)."""
        inputs = torch.cat([observations, actions], dim=1)
        return torch.cat([network.forward(inputs) for network in self._networks], dim=1)

    def forward_first(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (rows, 1) of the first network alone."""
        return self._networks[0].forward(torch.cat([observations, actions], dim=1))

    def backward(self, gradient: Tensor) -> None:
        """Set the weights' `.grad` from a loss's gradient (rows, networks)."""
        for network, column in zip(self._networks, gradient.split(1, dim=1), strict=True):
            network.backward(column.contiguous())

    def action_gradient(self, gradient: Tensor, actions: int) -> Tensor:
        """Go back to the actions (rows, actions) only; the weights' `.grad` stay as they are.

        Args:
            gradient: of the values of the first networks, (rows, networks) or fewer columns.
            actions: how many numbers an action has.
        """
        columns = gradient.split(1, dim=1)
        found = [
            network.backward(column.contiguous(), weights=False, inputs=True)[:, -actions:]
            for network, column in zip(self._networks, columns, strict=False)
        ]
        return torch.stack(found).sum(0)
