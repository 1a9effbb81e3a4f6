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


class AtOnce:
    """How many responses something is done with at once; halved whenever that was too many."""

    def __init__(self, rows: int | None, done: str, warn: Callable[[str], None]) -> None:
        """Start with what the recipe says.

        Args:
            rows: responses at once; None: all there are.
            done: what is done with them, in a word.
            warn: gets a sentence at every halving.
        """
        self.rows = rows
        self._done, self._warn = done, warn

    def fit(self, count: int, work: Callable[[int], Result]) -> Result:
        """Return `work(rows)` for as many rows at once as fit.

        Args:
            count: rows there are.
            work: takes how many to do at once; does all of them anew each time it is called.

        Raises:
            UserError: not even one fits.
        """
        while True:
            rows = min(self.rows or count, count)
            try:
                return work(rows)
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
            # Only here, where the error has gone, and with it the frames that held the tensors.
            _free()
            if rows == 1:
                raise UserError(
                    "out of memory with one response at a time; use a shorter "
                    "ppo.sampling.max_new_tokens, a smaller model, ppo.lora or fewer ppo.rollouts"
                )
            self.rows = rows // 2
            self._warn(
                f"out of memory with {rows} responses {self._done} at once; from now on it is "
                f"{self.rows}, which changes nothing but rounding"
            )


class Memory:
    """How many responses are sampled at once, and how many are evaluated or learned from."""

    def __init__(self, micro_batch: int, warn: Callable[[str], None] = lambda _: None) -> None:
        """Start with what the recipe says.

        Args:
            micro_batch: responses evaluated or learned from at once.
            warn: gets a sentence whenever that, or sampling all at once, is too much.
        """
        self.sampled = AtOnce(None, "sampled", warn)
        self.micro_batch = AtOnce(micro_batch, "computed", warn)

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"sampled": self.sampled.rows, "micro_batch": self.micro_batch.rows}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what was found to fit, for the bits follow from it."""
        self.sampled.rows, self.micro_batch.rows = state["sampled"], state["micro_batch"]


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error) for sign in SIGNS
    )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
