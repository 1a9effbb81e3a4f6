"""Numbers below 1e-38, which processors compute with a hundred times slower.

The moments that Adam keeps of a unit that no longer answers (a dead ReLU) shrink until they are
such numbers, and stay: most of an update's time may go into them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Count them as 0 meanwhile, in this thread."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
