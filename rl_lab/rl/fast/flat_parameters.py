"""A network's parameters in one vector, so that one operation reaches them all."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatParameters:
    """Parameters moved into one vector; each stays what it is to its module, a view of its part."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        """Move them.

        Args:
            parameters: of type float32, in main memory, in the order they are to lie in.
        """
        self.parameters = list(parameters)
        size = sum(parameter.numel() for parameter in self.parameters)
        self.values = torch.empty(size)
        """(size,), the parameters."""
        self.gradients = torch.zeros(size)
        """(size,), of the loss by them."""
        self._starts: dict[int, int] = {}
        start = 0
        for parameter in self.parameters:
            self._starts[id(parameter)] = start
            part = self.values[start : start + parameter.numel()].view_as(parameter)
            part.copy_(parameter.data)
            parameter.data = part
            start += parameter.numel()

    def views(self, vector: Tensor) -> list[Tensor]:
        """The parts of a (size,) vector, one for each parameter and in its shape."""
        sizes = [parameter.numel() for parameter in self.parameters]
        parts = zip(vector.split(sizes), self.parameters, strict=True)
        return [part.view_as(parameter) for part, parameter in parts]

    def block(
        self, parameters: Sequence[nn.Parameter], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Values and gradients of parameters that lie side by side, each as one tensor.

        Args:
            parameters: in their order here.
            shape: of both tensors.
        """
        start = self._starts[id(parameters[0])]
        part = slice(start, start + sum(parameter.numel() for parameter in parameters))
        return self.values[part].view(shape), self.gradients[part].view(shape)

    @property
    def in_place(self) -> bool:
        """Whether the parameters still are views of `values`; whoever gave one other data ended it.

        Only the first is looked at: what replaces data (`Module.to`, `deepcopy`) replaces all.
        """
        return self.parameters[0].data_ptr() == self.values.data_ptr()
