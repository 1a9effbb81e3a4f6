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
    # Threads that wait give their core away: spinning, two threads beside another busy process
    # are slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
