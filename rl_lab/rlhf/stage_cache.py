"""Finished stages by the hash of their inputs, for experiments to come."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from rl_lab.cache import cache_directory
from rl_lab.run import Run


def _cached(name: str, inputs: str) -> Path:
    return cache_directory() / "stages" / f"{name}-{inputs[:32]}"


def take(name: str, inputs: str, stage: Run) -> bool:
    """Put a finished stage from the cache into the experiment; return whether there was one."""
    cached = Run(_cached(name, inputs))
    if not cached.recipe_file.is_file() or cached.status["state"] != "finished":
        return False
    try:
        _copy(cached.path, stage.path)
    except OSError:  # it is being replaced, or there is no room: the stage is run instead
        return False
    stage.update_status(reused=True)
    return True


def keep(name: str, inputs: str, stage: Run, replace: bool) -> None:
    """Put a finished stage into the cache; without room for it, do without.

    Args:
        name: of the stage.
        inputs: their hash.
        stage: finished.
        replace: whether it takes the place of one that is there.
    """
    cached = _cached(name, inputs)
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        if replace and cached.exists():
            shutil.rmtree(cached)
        if not cached.exists():
            _copy(stage.path, cached)


NOT_COPIED = {"checkpoints", "best", "lock", "console.log"}
"""What a finished stage has no more use for."""


def _copy(source: Path, target: Path) -> None:
    """Copy a stage, whole or not at all.

    Raises:
        OSError: there is no room, or the target is there already.
    """

    def unneeded(directory: str, names: list[str]) -> set[str]:
        return NOT_COPIED & set(names) if Path(directory) == source else set()

    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        shutil.copytree(source, temporary / "whole", ignore=unneeded)
        (temporary / "whole").rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
