"""Pinning CPU threads. Results differ between thread counts, and small networks only lose by more.

The environment variables act on numpy's and torch's OpenMP pools only when set before these are
imported, so the command line calls `pin` before it imports anything heavy.
"""

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def pin(threads: int) -> None:
    """Give numpy and torch `threads` CPU threads in this process and its children."""
    for variable in VARIABLES:
        os.environ[variable] = str(threads)
    # How long a thread that waits spins before it gives its core away. Not at all, and PPO on a
    # small language model takes 1.5 times as long; ten times this, and another busy process makes
    # both of them stand still.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
