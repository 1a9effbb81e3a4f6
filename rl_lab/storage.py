"""When the disk is full, read-only or gone: looked at before training, an orderly end of it after.

`rl_lab.files` raises StorageError wherever a file cannot be written; here is what a run makes of
it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rl_lab import checkpoint
from rl_lab.files import StorageError, writing
from rl_lab.run import Run, runs_directory


def check_writable(directory: Path) -> None:
    """Write a little into a directory, or where it is to be made, before anything costly is built.

    Raises:
        StorageError: it cannot be written.
    """
    while not directory.exists():
        directory = directory.parent
    with writing(directory), tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def shortage(directory: Path, needed: int) -> str | None:
    """A sentence if fewer than `needed` bytes are free where `directory` is; None if they are."""
    free = shutil.disk_usage(directory).free
    if free >= needed:
        return None
    return (
        f"{directory} has {_said(free)} free, and the run may come to {_said(needed)}; if the disk "
        "is full before its end, it stops there and can be resumed"
    )


def _said(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


@contextlib.contextmanager
def ending_in_order(run: Run, what_resumes: Callable[[], str]) -> Iterator[None]:
    """Let a StorageError end a run as `failed`, if its status can still be written, and say why.

    Args:
        run: whose lock is held.
        what_resumes: what resuming the run would do now, such as "goes on from step 1,024".

    Raises:
        StorageError: the one that came, with what to do about it.
    """
    try:
        yield
    except StorageError as error:
        name = run.name if run.path.parent == runs_directory() else run.path
        advice = f"once it can be, `rl-lab train --resume {name}` {what_resumes()}"
        said = StorageError(error.path, f"{error.why}; {advice}")
        with contextlib.suppress(StorageError):
            run.update_status(state="failed", reason=str(said))
        raise said from error


def from_newest_snapshot(run: Run, unit: str = "step") -> str:
    """What resuming would do, for `ending_in_order`: by the newest snapshot that is whole."""
    step = checkpoint.newest_whole(run.checkpoints)
    if step is None:
        return "starts it again; nothing was saved yet"
    return f"goes on from {unit} {step:,}, which is safe"
