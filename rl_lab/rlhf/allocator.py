"""Memory that was freed is kept for the next tensor."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, LARGEST = 2**29, 2**25
"""Bytes kept free, and the largest piece that may be: glibc allows no more."""


def keep_freed_memory() -> None:
    """Ask the C library not to give freed memory back; one other than glibc is left alone.

    glibc gives large pieces back to the system at once, and takes them again, page by page and each
    filled with zeros, for the next tensor: up to a quarter of an optimiser step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST)
