"""Writing files so that a reader, or a crash, never meets half of one.

Whatever writes into a run directory does it inside `writing`: a full disk, a directory that is
read-only or gone, then becomes a `StorageError`, which ends training in order.
"""

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEFTOVER, REPLACED = ".writing-", ".replaced-"
"""How the names begin of directories half written or half removed, and of those being replaced."""


class StorageError(Exception):
    """A file or directory cannot be written, and training is not at fault: says which and why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"cannot write {path}: {why}")
        self.path = path
        self.why = why


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into a StorageError; a bug stays what it is.

    Of nested ones the outermost names the path: the snapshot, not the temporary file in it.
    """
    try:
        yield
    except Exception as error:
        why = _system_error(error)
        if why is None:
            raise
        raise StorageError(path, why) from error


def _system_error(error: Exception) -> str | None:
    """What the operating system said, None if the error is another's."""
    if isinstance(error, StorageError):
        return error.why
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # safetensors and tokenizers write in Rust, and tell of it in the text of their errors only.
    said = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(said[1])) if said else None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by a file holding `content`, in one step as seen by any other process.

    It reaches the disk before the rename does (fsync), so after a power cut the file holds either
    the old content or the new one. Text is written as UTF-8.

    Raises:
        StorageError: it cannot be written; the old file is as it was.
    """
    with writing(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)  # mkstemp makes it private; a run directory is for sharing
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity become null.

    Raises:
        StorageError: as `write_atomically`.
    """
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def cut_partial_line(path: Path) -> None:
    """Drop what a killed writer of lines left behind the last newline; for whoever writes next."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


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


@contextlib.contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory that becomes `path` when the block ends, in place of an older one.

    What was put into it reaches the disk first (fsync). If anything fails, the older one stays and
    the new one is removed; what a killed process left is removed by the next.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(exist_ok=True)  # not its parents: a run directory taken away stays away
        recover(path.parent)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=LEFTOVER))
        older = path.with_name(f"{REPLACED}{path.name}")
        try:
            temporary.chmod(0o755)
            yield temporary
            for inner in sorted(temporary.rglob("*")):
                _sync(inner)
            _sync(temporary)
            if path.exists():
                path.rename(older)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if older.exists():
                older.rename(path)
            raise
        _sync(path.parent)
        recover(path.parent)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory that becomes `path`, which does not exist, when the block ends.

    If anything fails it is removed.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            temporary.chmod(0o755)
            yield temporary
            for inner in temporary.iterdir():
                _sync(inner)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def recover(parent: Path) -> None:
    """Put back the directory that a killed process was replacing, and remove what else it left.

    For whoever holds the run's lock: no other process may be writing there.
    """
    for older in parent.glob(f"{REPLACED}*"):
        path = older.with_name(older.name.removeprefix(REPLACED))
        if path.exists():
            shutil.rmtree(older)
        else:
            older.rename(path)
    for leftover in parent.glob(f"{LEFTOVER}*"):
        shutil.rmtree(leftover)


def _sync(path: Path) -> None:
    """Make the content of a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
