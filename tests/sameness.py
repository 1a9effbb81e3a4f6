"""When two runs are the same: every bit of their snapshots, every number of their logs."""

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


def differences(first: Path, second: Path) -> list[str]:
    """Name everything in which two snapshots differ, but for the durations of episodes."""
    one, other = checkpoint.load(first), checkpoint.load(second)
    different = [] if one.step == other.step else ["step"]
    for mine, theirs, same in (
        (one.tensors, other.tensors, torch.equal),
        (one.arrays, other.arrays, np.array_equal),
    ):
        groups: Any = mine
        for group in groups.keys() | theirs.keys():
            own, others = dict(groups.get(group, {})), dict(theirs.get(group, {}))  # type: ignore[call-overload]
            different += [
                f"{group}/{key}"
                for key in own.keys() | others.keys()
                if key not in own or key not in others or not same(own[key], others[key])
            ]
    for name in one.state.keys() | other.state.keys():
        if name == "recent_episodes":
            for state in (one.state[name], other.state[name]):
                for episode in state["episodes"]:
                    episode.pop("t", None)
        if one.state.get(name) != other.state.get(name):
            different.append(name)
    return different


def run_differences(one: Run, other: Run) -> list[str]:
    """Name everything in which the snapshots, best models and logs of two runs differ.

    A run that was asked to stop has saved one snapshot more then, so an older one may be gone:
    compared are the newest and all that both have.
    """
    found = [] if numbers(one) == numbers(other) else ["metrics"]
    for kind in ("checkpoints", "best"):
        mine, theirs = (checkpoint.steps(run.path / kind) for run in (one, other))
        if mine[-1:] != theirs[-1:]:
            found.append(f"newest of {kind}")
        for step in set(mine) & set(theirs):
            paths = [run.path / kind / f"{step:012d}" for run in (one, other)]
            found += [f"{kind}/{step}/{name}" for name in differences(*paths)]
    models, others = (_models(run.path) for run in (one, other))
    return found + sorted(name for name in models | others if models.get(name) != others.get(name))


def _models(path: Path) -> dict[str, bytes]:
    """What a stage leaves: each file of tensors outside its snapshots."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*.safetensors")
        if not {"checkpoints", "best"} & set(file.relative_to(path).parts)
    }
