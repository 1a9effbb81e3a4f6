"""Writing files so that a reader, or a crash, never meets half of one."""

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by a file holding `text`, in one step as seen by any other process.

    The text reaches the disk before the rename does (fsync), so after a power cut the file holds
    either the old text or the new one.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private; a run directory is for sharing
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity become null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file; no name, however odd or long, is an error."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_directory(path: Path) -> bool:
    """Whether `path` is a directory; no name, however odd or long, is an error."""
    return is_there(path) and path.is_dir()


def is_there(path: Path) -> bool:
    """Whether `path` names anything; no name, however odd or long, is an error."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def finite(value: Any) -> Any:
    """Copy nested dicts and lists with numbers JSON cannot hold (NaN, infinity) made None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def sync_directory(path: Path) -> None:
    """Make the names inside `path` (a rename just done) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
