"""A multilayer perceptron's passes, forward and back, by hand and on memory made once.

Each line is what autograd does for `torch.nn.Linear`, ReLU and Tanh, so outputs and gradients have
its bits. What is saved is the graph, the calls of modules, gradients that nobody needs, and fresh
memory for every result. To be used under `torch.no_grad()`.
"""

import torch
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.Tanh)
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def passable(module: nn.Module) -> bool:
    """Whether a network consists of what a `Perceptron` knows."""
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    linear = [type(layer) is nn.Linear and layer.bias is not None for layer in layers]
    # An activation stands behind a linear layer only.
    return any(linear) and all(
        linear[number] or (number > 0 and linear[number - 1] and type(layer) in ACTIVATIONS)
        for number, layer in enumerate(layers)
    )


class _Layer:
    """A linear layer and the activation behind it."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        self.activation: type[nn.Module] | None = None
        self._memory: dict[int, tuple[Tensor, Tensor]] = {}  # by number of rows

    def forward(self, values: Tensor) -> Tensor:
        rows = values.shape[0]
        if rows not in self._memory:
            sizes = (self.linear.out_features, self.linear.in_features)
            self._memory[rows] = values.new_empty(rows, sizes[0]), values.new_empty(rows, sizes[1])
        self.input = values
        self.output, self.input_gradient = self._memory[rows]
        torch.addmm(self.linear.bias, values, self.linear.weight.t(), out=self.output)
        if self.activation is nn.ReLU:
            self.output.relu_()
        elif self.activation is nn.Tanh:
            self.output.tanh_()
        return self.output

    def through_activation(self, gradient: Tensor) -> Tensor:
        if self.activation is nn.ReLU:
            return _relu_backward(gradient, self.output, 0, grad_input=gradient)
        if self.activation is nn.Tanh:
            return _tanh_backward(gradient, self.output, grad_input=gradient)
        return gradient

    def set_gradients(self, gradient: Tensor) -> None:
        weight, bias = self.linear.weight, self.linear.bias
        if weight.grad is None or bias.grad is None:  # the first time, or one was left out
            weight.grad, bias.grad = torch.empty_like(weight), torch.empty_like(bias)
        torch.mm(gradient.t(), self.input, out=weight.grad)
        torch.sum(gradient, 0, out=bias.grad)

    def to_input(self, gradient: Tensor) -> Tensor:
        return torch.mm(gradient, self.linear.weight, out=self.input_gradient)


class Perceptron:
    """Linear layers with ReLU or Tanh between them; the weights stay the module's own."""

    def __init__(self, module: nn.Module) -> None:
        """Take a network of which `passable` is true."""
        self._layers: list[_Layer] = []
        for layer in module if isinstance(module, nn.Sequential) else [module]:
            if isinstance(layer, nn.Linear):
                self._layers.append(_Layer(layer))
            else:
                self._layers[-1].activation = type(layer)

    def forward(self, values: Tensor) -> Tensor:
        """Return the output (rows, out) of inputs (rows, in), in memory that is used again."""
        for layer in self._layers:
            values = layer.forward(values)
        return values

    def backward(self, gradient: Tensor, *, weights: bool = True, inputs: bool = False) -> Tensor:
        """Go back from the gradient (rows, out) of the output of the last `forward`.

        Args:
            gradient: of the loss, with respect to the output; its memory is used up.
            weights: whether to set the `.grad` of weights and biases.
            inputs: whether to go on to the inputs.

        Returns:
            The gradient (rows, in) with respect to the inputs if asked for, else the first layer's.
        """
        for number, layer in reversed(list(enumerate(self._layers))):
            gradient = layer.through_activation(gradient)
            if weights:
                layer.set_gradients(gradient)
            if number > 0 or inputs:
                gradient = layer.to_input(gradient)
        return gradient
