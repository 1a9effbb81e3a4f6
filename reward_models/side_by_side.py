"""Pieces of a small model's work side by side, one thread each.

An operation of a small model is too short to be cut among threads: waking them and waiting for them
takes what they save (PPO of `movie-reviews`: on two cores two threads are no faster than one). A
micro-batch is long enough. What comes of a piece follows from the piece alone, and pieces are
joined in their order, so that nothing depends on which is done first.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

Piece = TypeVar("Piece")
Result = TypeVar("Result")

SMALL = 2**25
"""Weights up to which a model's operations are too short to be cut."""


def workers(model: nn.Module) -> int:
    """How many pieces of a model's work pay side by side: one for each thread, or 1."""
    parameters = list(model.parameters())
    small = sum(parameter.numel() for parameter in parameters) <= SMALL
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return torch.get_num_threads() if small and on_cpu and not _changes(model) else 1


def _changes(model: nn.Module) -> bool:
    """Whether a forward pass may change the model: rotary angles that follow the text's length."""
    kinds = (str(getattr(module, "rope_type", "")) for module in model.modules())
    return any("dynamic" in kind or "longrope" in kind for kind in kinds)


def side_by_side(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], at_once: int
) -> Iterator[Result]:
    """Yield `work(piece)` of each piece, in their order.

    Args:
        work: what is done with a piece, with gradients and in the precision (autocast) of whoever
            asks. It runs in a thread of its own, so it changes nothing that other pieces use.
        pieces: in the order of the results.
        at_once: as `workers` says. With 1 nothing is started, and operations have all threads.
    """
    at_once = min(at_once, len(pieces))
    if at_once <= 1:
        yield from map(work, pieces)
        return
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    cast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def as_asked(piece: Piece) -> Result:
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype, enabled=cast):
            return work(piece)

    try:
        with ThreadPoolExecutor(at_once, "piece", torch.set_num_threads, (1,)) as pool:
            yield from pool.map(as_asked, pieces)
    finally:
        torch.set_num_threads(threads)
