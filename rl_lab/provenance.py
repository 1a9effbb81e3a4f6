"""What made a result: enough to repeat it, or to see why a repetition differs."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_lab.language_evaluation import mapping

ROOT = Path(__file__).resolve().parents[1]
LOCK_FILE = ROOT / "constraints.txt"

# The packages whose version can change a result.
PACKAGES = (
    "rl-lab", "torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "transformers",
    "trl", "tokenizers", "safetensors", "peft", "scikit-learn", "ale-py", "box2d", "mujoco",
    "minigrid",
)  # fmt: skip


@functools.cache
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


def made_with(device: str) -> dict[str, Any]:
    """What the bits of a computation depend on, besides recipe and code; kept in each snapshot.

    Args:
        device: where it is done, as torch names it.
    """
    import torch

    return {
        "versions": dict(versions()),
        "threads": torch.get_num_threads(),
        "device": device,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in a sentence what differs between two `made_with`; none, if nothing does.

    Of agents they also have the `backend` that learnt.
    """
    changed = _changed_versions(then.get("versions", {}), now["versions"])
    changed += [
        f"{name} {now[name]} (was {then.get(name)})"
        for name in ("threads", "device", "processor", "backend")
        if then.get(name) != now.get(name)
    ]
    if not changed:
        return []
    return [f"it goes on with {', '.join(changed)}: its bits may differ from here on"]


def _changed_versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {now.get(name)} (was {then.get(name)})"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the provenance of two runs, a phrase each: `torch 2.13.0 (was 2.12.0)`.

    Args:
        then: as `provenance` described one run; it may be a stranger's, or empty.
        now: as it described the other.
    """
    found = _changed_versions(mapping(then.get("versions")), mapping(now.get("versions")))
    flat = [
        {"threads": one.get("threads"), **mapping(one.get("hardware"))}
        | {"commit": mapping(one.get("git")).get("commit")}
        for one in (then, now)
    ]
    found += [
        f"{name} {flat[1].get(name)} (was {flat[0].get(name)})"
        for name in dict.fromkeys([*flat[0], *flat[1]])
        if flat[0].get(name) != flat[1].get(name)
    ]
    mine, theirs = (mapping(one.get("git")).get("diff") for one in (then, now))
    if mine != theirs:
        found.append("other uncommitted changes to the lab's code")
    return found


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
