"""Optimisers whose step is one pass over the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim import Adam, Optimizer


@contextmanager
def fused(*optimizers: Optimizer) -> Iterator[None]:
    """Let Adam and AdamW step by torch's fused kernel meanwhile; others go on as they do.

    Their state is what it always is, and so is what is saved of them.
    """
    groups = [
        group
        for optimizer in optimizers
        if isinstance(optimizer, Adam)
        for group in optimizer.param_groups
        if group["fused"] is None and group["foreach"] is None and not group["differentiable"]
    ]
    for group in groups:
        group["fused"] = True
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = None
