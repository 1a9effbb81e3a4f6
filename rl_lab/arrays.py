"""Named arrays from an .npz file that somebody else may have written.

numpy alone would make room for whatever shape an array's header claims, and unpack whatever the
archive holds. So the sizes that are claimed are compared with those that are there, first.
"""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

MOST_UNPACKED = 100_000_000
"""Bytes that an archive smaller than this may hold when unpacked."""


def load_npz(path: Path) -> Mapping[str, np.ndarray]:
    """Open an .npz file as `numpy.savez` writes them; each array is read when it is asked for.

    Raises:
        ValueError: it is no such archive: damaged, of two members of one name, larger than it may
            be, or with an array of Python objects, which only pickle could read.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len({member.filename for member in members}) < len(members):
                raise ValueError("two members have one name")
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(MOST_UNPACKED, path.stat().st_size):
                raise ValueError(f"it would unpack to {unpacked:,} bytes")
            for member in members:
                _check_header(archive, member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"it is no whole archive ({error})") from None
    arrays: Mapping[str, np.ndarray] = np.load(path, allow_pickle=False)
    return arrays


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Believe an array's header only where it agrees with the bytes that follow."""
    with archive.open(member) as file:
        if npy.read_magic(file) != (1, 0):
            raise ValueError(f"{member.filename!r} is no array as numpy.savez writes it")
        shape, _, dtype = npy.read_array_header_1_0(file)
        there = member.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"{member.filename!r} holds Python objects, which are never read")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{member.filename!r} claims the shape {shape}, and has {there:,} bytes")
