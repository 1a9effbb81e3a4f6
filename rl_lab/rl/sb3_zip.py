"""Reading the zip files of Stable-Baselines3's `save`, which anybody may have made.

Such a file holds `policy.pth`, `*.optimizer.pth` and `pytorch_variables.pth` (tensors), and `data`:
JSON in which whatever is no plain value is a pickle. Pickles run code when they are read. The lab
reads the tensors by torch's weights-only reader and the plain values, and lets the pickles lie:
what they say (spaces, hyperparameters, the network's shape) comes from a recipe instead.
"""

import io
import json
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecNormalize

from rl_lab.errors import UserError

VARIABLES = ("pytorch_variables", "tensors")
"""The member with tensors that belong to no module; `tensors` before SB3 0.9."""

MOST_MEMBERS = 1000
LARGEST = 8 * 2**30
"""Bytes of a file's members, unpacked."""
MOST_UNPACKED = 50
"""Times its packed size that a member may have unpacked: weights hardly shrink at all."""

TRUST = (
    "reading it runs whatever code is stored in it: give --trust only for a file from people you "
    "trust"
)


@dataclass(frozen=True)
class Content:
    """What was read of an SB3 zip."""

    name: str
    """The file's."""
    modules: dict[str, Any]
    """State dicts by the name of the module or optimiser: `policy`, `policy.optimizer`."""
    variables: dict[str, Any]
    plain: dict[str, Any]
    """The plain values of `data`."""


def read(path: Path, trust: bool) -> Content:
    """Read the tensors and the plain values of an SB3 zip.

    Args:
        path: the file.
        trust: whether its tensors may be unpickled where they are no plain tensors.

    Raises:
        UserError: it is no such file, is damaged, is larger unpacked than weights would be, or
            holds what only unpickling reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.name, flat=True)
            members = {name: archive.read(name) for name in archive.namelist()
                       if name == "data" or name.endswith(".pth")}  # fmt: skip
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        # A zip that is encrypted, or packed in an unknown way, is a RuntimeError.
        raise UserError(f"{path} cannot be read as a zip of Stable-Baselines3: {error}") from None
    if "policy.pth" not in members:
        raise UserError(
            f"{path} is no zip of Stable-Baselines3: it has no policy.pth (files older than SB3 "
            "are converted by saving them again with it)"
        )
    plain = _plain_values(path, members.pop("data", b"{}"))
    loaded = {
        name.removesuffix(".pth"): _tensors(path, name, content, trust)
        for name, content in members.items()
    }
    variables: dict[str, Any] = {}
    for name in VARIABLES:
        variables |= loaded.pop(name, None) or {}
    return Content(path.name, loaded, variables, plain)


def _check_members(archive: zipfile.ZipFile, where: str, flat: bool) -> None:
    """Refuse what no SB3 or torch file has: paths, doubles, and sizes made to fill a memory."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(names) > MOST_MEMBERS or sum(member.file_size for member in members) > LARGEST:
        raise UserError(f"{where} is larger than an agent: {len(names):,} members")
    for member in members:
        name = member.filename
        if flat and ("/" in name or "\\" in name):
            raise UserError(f"{where}: the member {name!r} has a path; SB3's have none")
        if names.count(name) > 1:
            raise UserError(f"{where} has the member {name!r} twice")
        if member.file_size > MOST_UNPACKED * max(member.compress_size, 2**16):
            raise UserError(
                f"{where}: the member {name!r} unpacks to {member.file_size:,} bytes from "
                f"{member.compress_size:,}; weights do not"
            )


def _tensors(path: Path, name: str, content: bytes, trust: bool) -> Any:
    """Read one member by torch's weights-only reader."""
    where = f"{path}: {name}"
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):  # torch's own form
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                _check_members(inner, where, flat=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its remarks on pickles that it refuses next
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=not trust)
    except UserError:
        raise
    except pickle.UnpicklingError:
        raise UserError(
            f"{where} holds more than tensors, or is damaged; it could only be unpickled, and "
            f"{TRUST}"
        ) from None
    except Exception as error:  # whatever torch's reader makes of damaged bytes
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{where} cannot be read: {said}") from None
    if loaded is not None and not isinstance(loaded, dict):
        raise UserError(f"{where} holds a {type(loaded).__name__}; it should be a mapping")
    return loaded


def _plain_values(path: Path, content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise UserError(f"{path}: its member `data` should be a JSON object")
    return {name: value for name, value in data.items() if isinstance(value, int | float)}


def read_normalization(path: Path, trust: bool) -> VecNormalize:
    """Read what `VecNormalize.save` wrote: a pickle.

    Raises:
        UserError: it is not trusted, cannot be read or holds something else.
    """
    if not trust:
        raise UserError(f"{path} is a pickle, and {TRUST}")
    try:
        normalizer = pickle.loads(path.read_bytes())
    except Exception as error:  # whatever the code in it raises
        raise UserError(f"{path} cannot be unpickled: {error}") from None
    if not isinstance(normalizer, VecNormalize):
        raise UserError(f"{path} holds a {type(normalizer).__name__}, not a VecNormalize")
    return normalizer
