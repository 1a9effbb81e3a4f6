"""Pieces of a small model's work side by side, one thread each.

An operation of a small model is too short to be cut among threads: waking them and waiting for them
takes what they save (PPO of `movie-reviews`: on two cores two threads are no faster than one). A
micro-batch is long enough. What comes of a piece follows from the piece alone, and pieces are
joined in their order, so that nothing depends on which is done first.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

Piece = TypeVar("Piece")
Result = TypeVar("Result")

SMALL = 2**25
"""Weights up to which a model's operations are too short to be cut."""
UNCHANGED = frozenset((
    "llama", "eurobert", "gpt2", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma",
    "gemma2", "phi", "phi3", "opt", "olmo2", "smollm3", "gpt_neox", "bert", "roberta", "distilbert",
))  # fmt: skip
"""transformers' model types whose forward pass writes nothing to the model's own modules; one of
RecurrentGemma keeps its states there, and two at a time spoil each other's."""


def workers(model: nn.Module) -> int:
    """How many pieces of a model's work pay side by side: one for each thread, or 1."""
    parameters = list(model.parameters())
    small = sum(parameter.numel() for parameter in parameters) <= SMALL
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return torch.get_num_threads() if small and on_cpu and not _changes(model) else 1


def _changes(model: nn.Module) -> bool:
    """Whether a forward pass may change the model."""
    modules = list(model.modules())
    types = {getattr(getattr(module, "config", None), "model_type", None) for module in modules}
    # Rotary angles that follow the text's length, of any type.
    angles = [str(getattr(module, "rope_type", "")) for module in modules]
    follow = any("dynamic" in kind or "longrope" in kind for kind in angles)
    return follow or not types - {None} <= UNCHANGED


def cut(rows: Tensor, size: int, at_once: int) -> tuple[tuple[Tensor, ...], int]:
    """Cut rows into pieces, so that those at work together have no more than `size` rows.

    Args:
        rows: (N,) at least one.
        size: rows that fit at once, at least 1.
        at_once: as `workers` says.

    Returns:
        The pieces, and how many of them may be at work together.
    """
    size = min(size, len(rows))
    at_once = min(at_once, size)
    if size == len(rows):
        return rows.tensor_split(at_once), at_once
    return rows.split(size // at_once), at_once


def side_by_side(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], at_once: int
) -> Iterator[Result]:
    """Yield `work(piece)` of each piece, in their order.

    No more than `at_once` results wait to be taken. An error in a piece is the caller's, once the
    pieces begun are done.

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

    begun: deque[Future[Result]] = deque()
    try:
        with ThreadPoolExecutor(at_once, "piece", torch.set_num_threads, (1,)) as pool:
            for piece in pieces:
                begun.append(pool.submit(as_asked, piece))
                if len(begun) > at_once:  # one more, for the thread that is done first
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
    finally:
        torch.set_num_threads(threads)
