"""Snapshots: a directory of tensors, arrays and JSON, hashed, pickle-free, whole or absent.

    <parent>/<step>/
        <name>.safetensors   named tensors
        <name>.npz           named arrays
        <name>.json          plain data
        manifest.json        step and SHA-256 of each file above; written last

A snapshot is written under a temporary name and renamed when all of it is on the disk, so a
process killed half way leaves no directory that looks like a snapshot.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.arrays import load_npz
from rl_lab.files import sync_directory, write_json

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"


class CheckpointError(Exception):
    """A snapshot is damaged or incomplete: the message says which file and why."""


@dataclass
class Snapshot:
    """What a checkpoint holds, by file name without its ending."""

    step: int
    tensors: dict[str, dict[str, "torch.Tensor"]] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def save(parent: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot as `parent/<step>` and return that directory."""
    from safetensors.torch import save_file

    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent)
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".writing-"))
    temporary.chmod(0o755)
    try:
        for name, tensors in snapshot.tensors.items():
            # Cloned, because safetensors refuses tensors that share memory (tied networks).
            own = {
                key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()
            }
            save_file(own, temporary / f"{name}.safetensors")
        for name, arrays in snapshot.arrays.items():
            with (temporary / f"{name}.npz").open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        for name, state in snapshot.state.items():
            write_json(temporary / f"{name}.json", state)
        files = sorted(temporary.iterdir())
        for path in files:
            _sync(path)
        hashes = {path.name: _sha256(path) for path in files}
        write_json(temporary / MANIFEST, {"step": snapshot.step, "sha256": hashes})
        final = parent / f"{snapshot.step:012d}"
        if final.exists():  # the same step again: never without a whole one
            final.rename(temporary.with_name(f"{temporary.name}-old"))
        sync_directory(temporary)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(parent)
    _remove_leftovers(parent)
    return final


def _remove_leftovers(parent: Path) -> None:
    """Remove what a killed process, or a snapshot just replaced, left."""
    for leftover in parent.glob(".writing-*"):
        shutil.rmtree(leftover)


def prune(parent: Path, keep: Collection[int]) -> None:
    """Remove every snapshot in `parent` whose step is not in `keep`."""
    for path in directories(parent):
        if int(path.name) not in keep:
            shutil.rmtree(path)


def steps(parent: Path) -> list[int]:
    """The steps of the snapshots in `parent`, in order."""
    return [int(path.name) for path in directories(parent)]


def directories(parent: Path) -> list[Path]:
    """The snapshot directories in `parent`, oldest step first."""
    if not parent.is_dir():
        return []
    named = [path for path in parent.iterdir() if re.fullmatch("[0-9]+", path.name)]
    return sorted(path for path in named if path.is_dir())


def load(path: Path) -> Snapshot:
    """Read one snapshot, every file checked against the manifest's SHA-256.

    Raises:
        CheckpointError: a file is missing, damaged or not listed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    manifest = verify(path)
    snapshot = Snapshot(step=manifest["step"])
    try:
        for name in manifest["sha256"]:
            file = path / name
            match file.suffix:
                case ".safetensors":
                    snapshot.tensors[file.stem] = load_file(file)
                case ".npz":
                    snapshot.arrays[file.stem] = load_npz(file)
                case ".json":
                    snapshot.state[file.stem] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:  # the run that owns it has just replaced it
        raise CheckpointError(f"{path}: it was removed while it was read") from None
    except (ValueError, RecursionError, SafetensorError) as error:  # its hash may be right
        raise CheckpointError(f"{path}: {name} cannot be read: {error}") from None
    return snapshot


def verify(path: Path) -> dict[str, Any]:
    """Return the manifest of a snapshot whose every file is as it was written.

    Raises:
        CheckpointError: it is not.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        hashes = manifest["sha256"]
        if not isinstance(manifest["step"], int) or not isinstance(hashes, dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: {MANIFEST} is missing or unreadable") from None
    for name, expected in hashes.items():
        file = path / name
        if not re.fullmatch(r"[\w.-]{1,200}", name) or name == ".." or file.is_symlink():
            raise CheckpointError(f"{path}: {name!r} lies outside the snapshot")
        if not file.is_file():
            raise CheckpointError(f"{path}: {name} is missing")
        if _sha256(file) != expected:
            raise CheckpointError(f"{path}: {name} is not as it was written (SHA-256 differs)")
    return manifest


def latest(parent: Path) -> tuple[Snapshot | None, list[str]]:
    """Return the newest valid snapshot in `parent` (None if there is none).

    Returns:
        The snapshot, and one sentence for each newer one that had to be passed over.
    """
    passed_over: list[str] = []
    for path in reversed(directories(parent)):
        try:
            return load(path), passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
    return None, passed_over


def flatten(nested: Mapping[str, Any]) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Split a torch state dict (nested dicts and lists) into tensors and JSON-able rest.

    Each tensor is replaced in the rest by `{"tensor": "its/path"}`; dicts become lists of pairs
    where a key is no string (optimiser states are keyed by number). `unflatten` reverses it.
    """
    import torch

    tensors: dict[str, torch.Tensor] = {}

    def strip(value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[path] = value
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {"items": [[key, strip(item, f"{path}/{key}")] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [strip(item, f"{path}/{i}") for i, item in enumerate(value)]}
        return {"value": value}

    return tensors, strip(nested, "")


def unflatten(tensors: Mapping[str, "torch.Tensor"], rest: Mapping[str, Any]) -> Any:
    """Put together again what `flatten` took apart."""
    match rest:
        case {"tensor": path}:
            return tensors[path]
        case {"items": pairs}:
            return {key: unflatten(tensors, item) for key, item in pairs}
        case {"list": items}:
            return [unflatten(tensors, item) for item in items]
        case _:
            return rest["value"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
