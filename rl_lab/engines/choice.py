"""Where jobs are done, by the name that `--engine` takes: here, on a Ray cluster, or by Slurm.

All work on the same run directories: a machine that a job is put on must see them, and the lab's
installation, under the same paths, as a shared file system gives.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rl_lab.engines.workers import Engine, Here
from rl_lab.errors import UserError, nearest

EngineName = Literal["local", "ray", "slurm"]


def open_engine(name: EngineName, options: Sequence[str] = ()) -> Engine:
    """Make an engine ready to be given jobs.

    Args:
        name: of the engine.
        options: its own, each `key=value`.

    Raises:
        UserError: an option is wrong, a package is missing, or there is no cluster.
    """
    if name == "ray":
        from rl_lab.engines.ray_engine import OPTIONS, RayEngine

        return RayEngine(**_parsed(options, name, OPTIONS))
    if name == "slurm":
        from rl_lab.engines import slurm_engine

        return slurm_engine.SlurmEngine(_parsed(options, name, slurm_engine.OPTIONS))
    _parsed(options, name, {})
    return Here()


def _parsed(written: Sequence[str], engine: str, known: Mapping[str, type]) -> dict[str, Any]:
    """Read options; a number is a whole one, and at least 1."""
    found: dict[str, Any] = {}
    for option in written:
        key, _, value = option.partition("=")
        if key not in known:
            hint = nearest(key, known) or f"; it has {', '.join(known) or 'none'}"
            raise UserError(f"--engine-option {option!r}: {engine} has no option {key!r}{hint}")
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 0
        if known[key] is int and not number:
            raise UserError(f"--engine-option {option!r}: should be {key}=NUMBER, at least 1")
        if not value:
            raise UserError(f"--engine-option {option!r}: should be {key}=VALUE")
        found[key] = number if known[key] is int else value
    return found
