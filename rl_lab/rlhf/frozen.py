"""Frozen matrices are kept as autocast would make them anew at each use."""

import torch
from torch import nn


def keep_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Turn the matrices of linear layers that are not trained into a type, for good.

    Autocast keeps what it makes of trained weights for a while, and of frozen ones nothing: each
    token sampled would turn all of them anew. Under autocast to this type the results are the same
    to the bit.
    """
    for module in model.modules():
        if not isinstance(module, nn.Linear):
            continue
        weight = module.weight
        if not weight.requires_grad and weight.dtype != dtype:
            module.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
