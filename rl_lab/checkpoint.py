"""Snapshots: a directory of tensors, arrays and JSON, hashed, pickle-free, whole or absent.

    <parent>/<step>/
        <name>.safetensors   named tensors
        <name>.npz           named arrays
        <name>.json          plain data
        manifest.json        step and SHA-256 of each file above; written last

A snapshot is written under a temporary name and renamed when all of it is on the disk, so a
process killed half way leaves no directory that looks like a snapshot.
"""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.arrays import load_npz
from rl_lab.files import LEFTOVER, whole_directory, write_json, writing

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**20
"""Bytes; a snapshot has a dozen files."""


class CheckpointError(Exception):
    """A snapshot is damaged or incomplete: the message says which file and why."""


@dataclass
class Snapshot:
    """What a checkpoint holds, by file name without its ending."""

    step: int
    tensors: dict[str, dict[str, "torch.Tensor"]] = field(default_factory=dict)
    arrays: dict[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """Of a snapshot that was loaded, an array is read anew each time it is asked for: a replay
    buffer never stands in memory a second time. The file is held open, whoever removes it."""
    state: dict[str, Any] = field(default_factory=dict)


def save(parent: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot as `parent/<step>` and return that directory.

    Raises:
        StorageError: there is no room, or no leave to; the snapshots in `parent` are as they were.
    """
    from safetensors.torch import save_file

    final = parent / f"{snapshot.step:012d}"
    with whole_directory(final) as directory:
        for name, tensors in snapshot.tensors.items():
            # Cloned, because safetensors refuses tensors that share memory (tied networks).
            own = {
                key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()
            }
            save_file(own, directory / f"{name}.safetensors")
        for name, arrays in snapshot.arrays.items():
            with (directory / f"{name}.npz").open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        for name, state in snapshot.state.items():
            write_json(directory / f"{name}.json", state)
        hashes = {path.name: _sha256(path) for path in sorted(directory.iterdir())}
        write_json(directory / MANIFEST, {"step": snapshot.step, "sha256": hashes})
    return final


def prune(parent: Path, keep: Collection[int]) -> None:
    """Remove every snapshot in `parent` whose step is not in `keep`.

    One half removed has no longer a snapshot's name.

    Raises:
        StorageError: it cannot be removed.
    """
    with writing(parent):
        for path in directories(parent):
            if int(path.name) not in keep:
                doomed = path.with_name(f"{LEFTOVER}{path.name}")
                shutil.rmtree(doomed, ignore_errors=True)
                path.rename(doomed)
                shutil.rmtree(doomed)


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
        CheckpointError: a file is missing or damaged.
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
    """Return the manifest of a snapshot whose every listed file is as it was written.

    A file that is not listed (a file manager's, a network file system's) is left alone and unread.

    Raises:
        CheckpointError: it is not.
    """
    manifest = _manifest(path)
    for name, expected in manifest["sha256"].items():
        file = path / name
        if not re.fullmatch(r"[\w.-]{1,200}", name) or name == ".." or file.is_symlink():
            raise CheckpointError(f"{path}: {name!r} lies outside the snapshot")
        if not file.is_file():
            raise CheckpointError(f"{path}: {name} is missing")
        try:
            found = _sha256(file)
        except OSError as error:
            raise CheckpointError(f"{path}: {name} cannot be read: {error.strerror}") from None
        if found != expected:
            raise CheckpointError(f"{path}: {name} is not as it was written (SHA-256 differs)")
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST_MANIFEST:
            raise ValueError
        manifest = json.loads(file.read_text(encoding="utf-8"))
        step, hashes = manifest["step"], manifest["sha256"]
        if type(step) is not int or not isinstance(hashes, dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: {MANIFEST} is missing or unreadable") from None
    if path.name != f"{step:012d}":
        raise CheckpointError(f"{path}: {MANIFEST} says that it is step {step}")
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


def newest_whole(parent: Path) -> int | None:
    """The step of the newest valid snapshot in `parent`; None if there is none."""
    for path in reversed(directories(parent)):
        with contextlib.suppress(CheckpointError):
            return int(verify(path)["step"])
    return None


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
