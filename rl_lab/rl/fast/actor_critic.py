"""SB3's policy for flat observations, forward and backward, without modules and without autograd.

For networks as small as an agent's, PyTorch spends most of its time on the way to the arithmetic:
modules, the graph, one small operation after the other. Here each step is one operation on tensors
that lie ready; where actor and critic have one shape, as by default, it serves both.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from rl_lab.rl.fast.flat_parameters import FlatParameters

MOST_WORKSPACES = 4
"""Batch sizes whose memory is kept: a minibatch, a truncated one, a rollout's."""

# By activation: applied in place; and what takes the gradient by its output, that output, and where
# the gradient by its input is to be written.
ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Any], Callable[..., Any]]] = {
    nn.Tanh: (
        torch.tanh_,
        lambda gradient, output, out: torch.ops.aten.tanh_backward.grad_input(
            gradient, output, grad_input=out
        ),
    ),
    nn.ReLU: (
        torch.relu_,
        lambda gradient, output, out: torch.ops.aten.threshold_backward.grad_input(
            gradient, output, 0, grad_input=out
        ),
    ),
}


class ActorCritic:
    """Policy and value network of an `ActorCriticPolicy`, its parameters moved into one vector."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        """Move them.

        Args:
            policy: MLPs with one of ACTIVATIONS on flat observations, in main memory.
        """
        actor, critic = (
            [layer for layer in network if isinstance(layer, nn.Linear)]
            for network in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net)
        )
        alike = [layer.weight.shape for layer in actor] == [layer.weight.shape for layer in critic]
        groups = [[actor, critic]] if alike else [[actor], [critic]]
        self._actor_at, self._critic_at = ((0, 0), (0, 1)) if alike else ((0, 0), (1, 0))

        heads = [policy.action_net, policy.value_net]
        order = [parameter for group in groups for parameter in _side_by_side(group)]
        order += [parameter for head in heads for parameter in (head.weight, head.bias)]
        log_std: Any = getattr(policy, "log_std", None)
        if log_std is not None:
            order.append(log_std)
        self.flat = FlatParameters(order)
        """All of the policy's parameters."""
        self._towers = [_Towers(group, policy.activation_fn, self.flat) for group in groups]
        self._action, self._value = (_Head(head, self.flat) for head in heads)
        self.log_std: np.ndarray | None = None
        """(K,), the Gaussian's; None where there is none."""
        self.by_log_std: np.ndarray | None = None
        """(K,), its gradient, to be filled in by whoever knows the loss."""
        if log_std is not None:
            block = self.flat.block([log_std], tuple(log_std.shape))
            self.log_std, self.by_log_std = (part.numpy() for part in block)

    def forward(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute both outputs, and keep what `backward` needs.

        Args:
            features: (B, D) float32.

        Returns:
            (K, B) what the action distribution is made of, and (B,) values; both are new.
        """
        hidden = [towers.forward(torch.from_numpy(features)) for towers in self._towers]
        tower, row = self._actor_at
        actions = self._action.forward(hidden[tower][row])
        tower, row = self._critic_at
        return actions, self._value.forward(hidden[tower][row])[0]

    def backward(self, by_actions: np.ndarray, by_values: np.ndarray) -> None:
        """Work out the gradient of a loss at the last `forward`, into `flat.gradients`.

        Args:
            by_actions: (K, B), of the loss by the first output.
            by_values: (B,), of the loss by the values.
        """
        by_hidden = [towers.gradient_by_hidden() for towers in self._towers]
        tower, row = self._actor_at
        self._action.backward(by_actions, by_hidden[tower][row])
        tower, row = self._critic_at
        self._value.backward(by_values[None], by_hidden[tower][row])
        for towers in self._towers:
            towers.backward()


class _Towers:
    """Hidden layers of N networks of one shape on the same input."""

    def __init__(
        self, networks: list[list[nn.Linear]], activation: type[nn.Module], flat: FlatParameters
    ) -> None:
        n = len(networks)
        self._number = n
        self._activate, self._activation_backward = ACTIVATIONS[activation]
        # The first layers read the same input: together they are one layer, N times as wide.
        # The later ones are N matrix products in one call.
        self._layers = []
        for depth, layers in enumerate(zip(*networks, strict=True)):
            width, inputs = layers[0].weight.shape
            weights = [layer.weight for layer in layers]
            biases = [layer.bias for layer in layers]
            weight = (n * width, inputs) if depth == 0 else (n, width, inputs)
            bias = (n * width,) if depth == 0 else (n, 1, width)
            values, by_weight = flat.block(weights, weight)
            self._layers.append((values, values.mT, by_weight, *flat.block(biases, bias)))
        self._widths = [layer.out_features for layer in networks[0]]
        self._workspaces: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def _workspace(self, rows: int) -> list[tuple[Tensor, Tensor]]:
        """(N, B, H) each layer's outputs, and the loss's gradient by them, to be written over.

        New memory for each would take longer to come by than to compute on.
        """
        if rows not in self._workspaces:
            if (
                len(self._workspaces) == MOST_WORKSPACES
            ):  # as after cut-off episodes, now few now many
                self._workspaces.clear()

            def empty(depth: int, width: int) -> Tensor:
                if depth == 0:  # as one wide layer writes it
                    return torch.empty(rows, self._number, width).transpose(0, 1)
                return torch.empty(self._number, rows, width)

            self._workspaces[rows] = [
                (empty(depth, width), empty(1, width)) for depth, width in enumerate(self._widths)
            ]
        return self._workspaces[rows]

    def forward(self, features: Tensor) -> np.ndarray:
        """(B, D) -> (N, B, H)."""
        self._features = features
        if not self._layers:
            return features.expand(self._number, *features.shape).numpy()
        self._space = self._workspace(len(features))
        (_, transposed, _, bias, _), *later = self._layers
        output = self._space[0][0]
        torch.addmm(bias, features, transposed, out=_wide(output))
        self._activate(output)
        for (_, transposed, _, bias, _), (following, _) in zip(later, self._space[1:], strict=True):
            torch.baddbmm(bias, output, transposed, out=following)
            output = self._activate(following)
        return output.numpy()

    def gradient_by_hidden(self) -> np.ndarray:
        """(N, B, H), where the gradient by the last `forward`'s outputs is to be written."""
        if not self._layers:
            return np.empty((self._number, *self._features.shape), np.float32)
        return self._space[-1][1].numpy()

    def backward(self) -> None:
        """Fill in the gradients of weights and biases, from `gradient_by_hidden`."""
        for depth in range(len(self._layers) - 1, 0, -1):
            weight, _, by_weight, _, by_bias = self._layers[depth]
            output, gradient = self._space[depth]
            self._activation_backward(gradient, output, gradient)
            before, by_before = self._space[depth - 1]
            torch.bmm(gradient.mT, before, out=by_weight)
            torch.sum(gradient, 1, keepdim=True, out=by_bias)
            torch.bmm(gradient, weight, out=by_before)
        if self._layers:
            _, _, by_weight, _, by_bias = self._layers[0]
            output, gradient = self._space[0]
            # Written over the outputs, whose layout is that of one wide layer.
            self._activation_backward(gradient, output, output)
            torch.mm(_wide(output).t(), self._features, out=by_weight)
            torch.sum(_wide(output), 0, out=by_bias)


def _wide(output: Tensor) -> Tensor:
    """(N, B, H), as `_Towers` lays out its first layer's outputs -> (B, N * H), the same memory."""
    return output.transpose(0, 1).view(output.shape[1], -1)


class _Head:
    """A last, linear layer: so narrow that numpy is quicker than PyTorch."""

    def __init__(self, layer: Any, flat: FlatParameters) -> None:
        shape = (layer.out_features, layer.in_features)
        weight, by_weight = flat.block([layer.weight], shape)
        bias, by_bias = flat.block([layer.bias], (layer.out_features, 1))
        self._weight, self._by_weight = weight.numpy(), by_weight.numpy()
        self._bias, self._by_bias = bias.numpy(), by_bias.numpy()

    def forward(self, hidden: np.ndarray) -> np.ndarray:
        """(B, H) -> (K, B)."""
        self._hidden = hidden
        outputs: np.ndarray = self._weight @ hidden.T
        outputs += self._bias
        return outputs

    def backward(self, by_output: np.ndarray, by_hidden: np.ndarray) -> None:
        """Fill in this layer's gradients and `by_hidden` (B, H), from `by_output` (K, B)."""
        np.dot(by_output, self._hidden, out=self._by_weight)
        by_output.sum(1, keepdims=True, out=self._by_bias)
        np.dot(by_output.T, self._weight, out=by_hidden)


def numpy_actor(policy: ActorCriticPolicy) -> Callable[[np.ndarray], np.ndarray]:
    """The policy network alone, for few observations: (n, D) float32 -> (n, K).

    It reads the parameters where they lie: it is right as long as they stay there.
    """
    *hidden, head = (
        (layer.weight.detach().numpy().T, layer.bias.detach().numpy())
        for layer in (*policy.mlp_extractor.policy_net, policy.action_net)
        if isinstance(layer, nn.Linear)
    )
    tanh = policy.activation_fn is nn.Tanh

    def outputs_for(features: np.ndarray) -> np.ndarray:
        for weight, bias in hidden:
            features = features @ weight
            features += bias
            if tanh:
                np.tanh(features, out=features)
            else:
                np.maximum(features, 0, out=features)
        outputs: np.ndarray = features @ head[0] + head[1]
        return outputs

    return outputs_for


def _side_by_side(networks: list[list[nn.Linear]]) -> list[Any]:
    """Parameters of networks of one shape: layer by layer, all weights, then all biases."""
    found: list[Any] = []
    for layers in zip(*networks, strict=True):
        found += [layer.weight for layer in layers] + [layer.bias for layer in layers]
    return found
