"""A disk that is full, for tests: by a limit on the size of files, or by files that do not last."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")


def limited(limit: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `rl-lab` where no file may grow beyond `limit` bytes, as with a quota."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "rl_lab.cli", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "100"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def full_for(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file last (fsync) whose path holds one of the words, for as long as it is there."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if any(word in path for word in words):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def leftovers(directory: Path) -> list[Path]:
    """What was begun and is not whole."""
    return list(directory.rglob(".*"))
