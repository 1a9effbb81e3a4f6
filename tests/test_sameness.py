"""Two runs are the same where everything they saved is; clocks do not count."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.run import Run
from rl_lab.sameness import run_differences


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Run, Run]:
    """Two runs with the same bits, of different durations and torch versions."""
    for number, name in enumerate(("one", "other"), start=1):
        run = Run(tmp_path / name)
        (run.path / "stage").mkdir(parents=True)
        for log in (run.metrics_file, run.path / "stage" / "metrics.jsonl"):
            lines: list[dict[str, Any]] = [
                {"step": 10, "wall": number * 1.5, "train/loss": 0.5, "time/fps": 100 * number},
                {"step": 20, "wall": number * 2.5, "train/loss": 0.25},
                {"step": 20, "wall": number * 2.6, "event": "best", "message": str(number)},
            ]
            log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for parent, step in ((run.checkpoints, 20), (run.best, 10)):
            episodes = [{"r": 1.0, "l": 7, "t": number * 3.3}]
            checkpoint.save(
                parent,
                Snapshot(
                    step,
                    {"policy": {"w": torch.arange(3.0)}},
                    {"buffer": {"rewards": np.arange(4)}},
                    {
                        "recent_episodes": {"episodes": episodes},
                        "progress": {"best": None},
                        "made_with": {"versions": {"torch": str(number)}},
                    },
                ),
            )
        (run.path / "stage" / "model.safetensors").write_bytes(b"weights")
    return Run(tmp_path / "one"), Run(tmp_path / "other")


def test_clocks_and_circumstances_do_not_count(pair: tuple[Run, Run]) -> None:
    assert run_differences(*pair) == []


def changed(snapshot: Path, change: Any) -> None:
    found = checkpoint.load(snapshot)
    arrays = {name: dict(content) for name, content in found.arrays.items()}
    found = Snapshot(found.step, found.tensors, dict(arrays), found.state)
    change(found)
    checkpoint.save(snapshot.parent, found)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda s: s.tensors["policy"]["w"].add_(1e-7), "policy/w"),
        (lambda s: s.tensors["policy"].update(v=torch.zeros(1)), "policy/v"),
        (lambda s: s.arrays.pop("buffer"), "buffer/rewards"),
        (lambda s: s.arrays["buffer"].update(rewards=np.arange(4) + 1), "buffer/rewards"),
        (lambda s: s.state.update(progress={"best": 1}), "progress"),
        (lambda s: s.state.pop("recent_episodes"), "recent_episodes"),
        (lambda s: s.state["recent_episodes"]["episodes"][0].update(r=2.0), "recent_episodes"),
    ],
)
def test_any_bit_of_a_snapshot_counts(pair: tuple[Run, Run], change: Any, name: str) -> None:
    one, other = pair
    changed(other.checkpoints / f"{20:012d}", change)
    assert run_differences(one, other) == [f"checkpoints/20/{name}"]
    assert run_differences(other, one) == [f"checkpoints/20/{name}"]


def test_a_best_model_of_another_step_counts(pair: tuple[Run, Run]) -> None:
    one, other = pair
    shutil.rmtree(other.best)
    assert run_differences(one, other) == ["newest of best"]


@pytest.mark.parametrize("log", ["metrics.jsonl", "stage/metrics.jsonl"])
def test_a_log_says_from_where_on(pair: tuple[Run, Run], log: str) -> None:
    one, other = pair
    path = other.path / log
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert run_differences(one, other) == [f"{log}: from step 20 on"]
    with path.open("a") as file:
        file.write('{"step": 30, "wall": 9, "train/loss": 0.1}\n')
    path.write_text(path.read_text().replace("0.26", "0.25"))
    assert run_differences(one, other) == [f"{log}: of other length"]


def test_a_model_of_a_stage_counts(pair: tuple[Run, Run]) -> None:
    one, other = pair
    (other.path / "stage" / "model.safetensors").write_bytes(b"heavier")
    assert run_differences(one, other) == ["stage/model.safetensors"]
