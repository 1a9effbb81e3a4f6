"""What made a result: enough to repeat it, or to see why a repetition differs."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK_FILE = ROOT / "constraints.txt"

# The packages whose version can change a result.
PACKAGES = (
    "rl-lab", "torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "transformers",
    "trl", "tokenizers", "safetensors", "peft", "scikit-learn", "ale-py", "box2d", "mujoco",
    "minigrid",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Version of each of PACKAGES, None where it is not installed, and of Python."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def provenance(command: list[str], seed: int, threads: int) -> dict[str, Any]:
    """Describe the code, packages and machine of a run about to start.

    Args:
        command: the command line that started it.
        seed: what everything random follows from.
        threads: CPU threads of torch and numpy.
    """
    return {
        "command": command,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": git_state(),
        "versions": versions(),
        "lock_sha256": _lock_hash(),
        "seed": seed,
        "threads": threads,
        "hardware": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        },
    }


def git_state() -> dict[str, str] | None:
    """Commit of the lab's checkout and the diff against it; None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "diff": _git("diff", "HEAD") or ""}


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True, text=True, errors="replace", timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def _lock_hash() -> str | None:
    if not LOCK_FILE.is_file():
        return None
    return hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()
