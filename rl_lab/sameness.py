"""When two runs are the same: every bit of what they saved, every number of their logs.

Clocks and the machine's load are left out, and what the runs were made with: that is no part of the
result, and is told apart from it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl_lab import checkpoint
from rl_lab.metrics import Record, read_metrics
from rl_lab.run import Run

OF_CLOCKS = ("wall", "time/", "phase/", "system/", "rollout/tokens_per_second")
"""Names of numbers that the clock and the machine decide, by how they begin."""


def numbers(run: Run) -> list[Record]:
    """Every line of numbers in a run's log, without those of clocks."""
    return [
        {name: value for name, value in record.items() if not name.startswith(OF_CLOCKS)}
        for record in read_metrics(run.metrics_file)
        if "event" not in record
    ]


def snapshot_differences(first: Path, second: Path) -> list[str]:
    """Name everything in which two snapshots differ, but for the durations of episodes.

    Raises:
        CheckpointError: one of them is damaged.
    """
    one, other = checkpoint.load(first), checkpoint.load(second)
    different = [] if one.step == other.step else ["step"]
    different += _unequal(one.tensors, other.tensors, torch.equal)
    different += _unequal(one.arrays, other.arrays, np.array_equal)
    for name in sorted((one.state.keys() | other.state.keys()) - {"made_with"}):
        if _timeless(name, one.state.get(name)) != _timeless(name, other.state.get(name)):
            different.append(name)
    return different


def _unequal(
    mine: Mapping[str, Mapping[str, Any]],
    theirs: Mapping[str, Mapping[str, Any]],
    same: Callable[[Any, Any], bool],
) -> Iterator[str]:
    """Names of the tensors, or arrays, that differ or that only one side has."""
    for group in sorted(mine.keys() | theirs.keys()):
        own, others = dict(mine.get(group, {})), dict(theirs.get(group, {}))
        for key in sorted(own.keys() | others.keys()):
            if key not in own or key not in others or not same(own[key], others[key]):
                yield f"{group}/{key}"


def _timeless(name: str, state: Any) -> Any:
    """A snapshot's state without how long episodes took."""
    if name != "recent_episodes" or state is None:
        return state
    episodes = [
        {key: value for key, value in episode.items() if key != "t"}
        for episode in state["episodes"]
    ]
    return state | {"episodes": episodes}


def run_differences(one: Run, other: Run) -> list[str]:
    """Name everything in which the snapshots, best models and logs of two runs differ.

    A run that was asked to stop has saved one snapshot more then, so an older one may be gone:
    compared are the newest and all that both have. Of experiments, the logs and models of their
    stages are compared too.

    Raises:
        CheckpointError: a snapshot is damaged.
    """
    found = [f"{name}: {where}" for name, where in _log_differences(one, other)]
    for kind in ("checkpoints", "best"):
        mine, theirs = (checkpoint.steps(run.path / kind) for run in (one, other))
        if mine[-1:] != theirs[-1:]:
            found.append(f"newest of {kind}")
        for step in sorted(set(mine) & set(theirs)):
            paths = [run.path / kind / f"{step:012d}" for run in (one, other)]
            found += [f"{kind}/{step}/{name}" for name in snapshot_differences(*paths)]
    models, others = (_models(run.path) for run in (one, other))
    return found + sorted(name for name in models | others if models.get(name) != others.get(name))


def _log_differences(one: Run, other: Run) -> Iterator[tuple[str, str]]:
    """Each log whose numbers differ, and from which step on."""
    logs = {
        file.relative_to(run.path)
        for run in (one, other)
        for file in (run.metrics_file, *run.path.glob("*/metrics.jsonl"))
    }
    for log in sorted(logs):
        mine, theirs = (numbers(Run((run.path / log).parent)) for run in (one, other))
        if mine != theirs:
            pairs = zip(mine, theirs, strict=False)
            apart = next((pair[0]["step"] for pair in pairs if pair[0] != pair[1]), None)
            yield str(log), "of other length" if apart is None else f"from step {apart:,} on"


def _models(path: Path) -> dict[str, bytes]:
    """What a stage leaves: each file of tensors outside its snapshots."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*.safetensors")
        if not {"checkpoints", "best"} & set(file.relative_to(path).parts)
    }
