"""How much is computed at once: less, for the rest of the run, when memory runs out."""

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from rl_lab.errors import UserError

Result = TypeVar("Result")

SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How torch says that memory ran out where it has no exception of its own for it."""


class Memory:
    """How many responses are computed at once; halved whenever that was too many."""

    def __init__(self, micro_batch: int, warn: Callable[[str], None] = lambda _: None) -> None:
        """Start with what the recipe says.

        Args:
            micro_batch: responses evaluated or learned from at once.
            warn: gets a sentence at every halving.
        """
        self.micro_batch = micro_batch
        self.sampled: int | None = None
        """Responses sampled at once; None: all there are."""
        self._warn = warn

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"micro_batch": self.micro_batch, "sampled": self.sampled}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what was found to fit."""
        self.micro_batch, self.sampled = state["micro_batch"], state["sampled"]

    def sample(self, count: int, work: Callable[[int], Result]) -> Result:
        """Return `work(rows)` for as many of `count` rows at once as fit.

        Raises:
            UserError: not even one does.
        """
        while True:
            rows = min(self.sampled or count, count)
            fits, result = _attempt(work, rows)
            if fits:
                return result
            self.sampled = self._halved(rows, "sampled")

    def compute(self, count: int, work: Callable[[int], Result]) -> Result:
        """Return `work(micro_batch)` for as large a micro-batch as fits.

        Args:
            count: rows there are.
            work: does everything anew each time it is called.

        Raises:
            UserError: not even one row fits.
        """
        while True:
            rows = min(self.micro_batch, count)
            fits, result = _attempt(work, rows)
            if fits:
                return result
            self.micro_batch = self._halved(rows, "computed")

    def _halved(self, rows: int, done: str) -> int:
        if rows == 1:
            raise UserError(
                "out of memory with one response at a time; use a shorter "
                "ppo.sampling.max_new_tokens, a smaller model, ppo.lora, or fewer ppo.rollouts"
            )
        self._warn(
            f"out of memory with {rows} responses {done} at once; from now on {rows // 2}, which "
            "gives the same but for rounding"
        )
        return rows // 2


def _attempt(work: Callable[[int], Result], rows: int) -> tuple[bool, Any]:
    """Return whether it fits, and if so the result; else memory is free again on return."""
    try:
        return True, work(rows)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
    # Only here, where the error has gone, and with it the frames that held the tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False, None


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error) for sign in SIGNS
    )
