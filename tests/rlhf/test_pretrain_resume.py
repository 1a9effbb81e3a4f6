"""Pretraining cut short at any moment goes on to the same bits."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rl_lab import checkpoint
from rl_lab.errors import UserError
from rl_lab.metrics import MetricLog, read_metrics
from rl_lab.rlhf.pretrain import pretrain
from rl_lab.rlhf.recipe import Pretrain
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest
from tests.rlhf.interruptions import (
    Killed,
    ask,
    at_step,
    damage,
    events,
    kill,
    kill_after_snapshot,
    timeless,
    without_seconds,
)
from tests.rlhf.test_pretrain import LLAMA, SMALL, write_texts

DROPOUT = LLAMA | {"attention_dropout": 0.2}
"""Draws from torch's global random numbers."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    write_texts(directory / "texts-train.jsonl", 200, 0)
    write_texts(directory / "texts-heldout.jsonl", 20, 1)
    return directory


def section(**changes: Any) -> Pretrain:
    short = {"steps": 24, "evaluate_every": 6, "checkpoint_every": 5, "evaluation_tokens": 200}
    return Pretrain(**(SMALL | short | changes))


def train(data: Path, path: Path, settings: Pretrain, stop: StopRequest | None = None) -> None:
    path.mkdir(exist_ok=True)
    run = Run(path)
    with MetricLog(run.metrics_file) as log:
        pretrain(settings, data, run, log, stop or StopRequest(), seed=0, device="cpu")


def assert_same(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (one / "model" / name).read_bytes() == (other / "model" / name).read_bytes(), name
    lines = [timeless(read_metrics(path / "metrics.jsonl")) for path in (one, other)]
    assert lines[0] == lines[1]
    assert len(lines[0]) > 4
    reports = [json.loads((path / "report.json").read_text()) for path in (one, other)]
    assert without_seconds(reports[0]) == without_seconds(reports[1])
    samples = [events(read_metrics(path / "metrics.jsonl"), "sample") for path in (one, other)]
    assert samples[0] == samples[1]
    assert not list(other.rglob("*.pt")) + list(other.rglob("*.bin")) + list(other.rglob("*.pth"))


@pytest.mark.parametrize("moment", ["stopped", "killed", "killed after a snapshot"])
@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "muon"}, {"optimizer": "adamw", "architecture": DROPOUT}],
    ids=["muon", "adamw with dropout"],
)
def test_it_goes_on_to_the_same_bits(
    data: Path, tmp_path: Path, changes: dict[str, Any], moment: str
) -> None:
    settings = section(**changes)
    train(data, tmp_path / "through", settings)
    cut = tmp_path / "cut"
    stop = StopRequest()
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        if moment == "killed after a snapshot":
            kill_after_snapshot(2, patch)
        else:
            stack.enter_context(at_step(13, ask(stop) if moment == "stopped" else kill))
        with pytest.raises((Killed, Stopped)):
            train(data, cut, settings, stop)
    at = {"stopped": 13, "killed": 10, "killed after a snapshot": 10}[moment]
    assert checkpoint.steps(Run(cut).checkpoints)[-1] == at
    assert len(checkpoint.steps(Run(cut).checkpoints)) == 2
    assert not (cut / "model").exists()
    train(data, cut, settings)
    assert events(read_metrics(cut / "metrics.jsonl"), "resumed") == [f"from step {at}"]
    assert_same(tmp_path / "through", cut)


def test_an_early_stop_is_not_forgotten(data: Path, tmp_path: Path) -> None:
    """Killed when it had just stopped early, with a snapshot of that very step."""
    settings = section(steps=60, evaluate_every=3, patience=1, checkpoint_every=1,
                       learning_rate=0.3)  # fmt: skip
    train(data, tmp_path / "through", settings)
    ended = json.loads((tmp_path / "through" / "report.json").read_text())["steps"]
    assert ended < 60
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after_snapshot(ended, patch)
        train(data, tmp_path / "cut", settings)
    train(data, tmp_path / "cut", settings)
    assert_same(tmp_path / "through", tmp_path / "cut")


def test_a_damaged_snapshot_is_passed_over(data: Path, tmp_path: Path) -> None:
    settings, cut = section(), tmp_path / "cut"
    train(data, tmp_path / "through", settings)
    with at_step(12, kill), pytest.raises(Killed):
        train(data, cut, settings)
    damage(Run(cut).checkpoints / f"{10:012d}")
    train(data, cut, settings)
    records = read_metrics(cut / "metrics.jsonl")
    assert events(records, "resumed") == ["from step 5"]
    assert "SHA-256 differs" in events(records, "note")[0]
    assert_same(tmp_path / "through", cut)


def test_without_a_whole_snapshot_it_says_so(data: Path, tmp_path: Path) -> None:
    with at_step(6, kill), pytest.raises(Killed):
        train(data, tmp_path / "cut", section())
    damage(Run(tmp_path / "cut").checkpoints / f"{5:012d}")
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        train(data, tmp_path / "cut", section())


def test_killed_before_the_first_snapshot_it_starts_over(data: Path, tmp_path: Path) -> None:
    settings, cut = section(), tmp_path / "cut"
    train(data, tmp_path / "through", settings)
    with at_step(4, kill), pytest.raises(Killed):
        train(data, cut, settings)
    train(data, cut, settings)
    assert len(events(read_metrics(cut / "metrics.jsonl"), "restarted")) == 1
    assert_same(tmp_path / "through", cut)


def test_a_gradient_that_is_no_number_is_not_learned_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is a number still, and so is the snapshot that a resumed stage goes on from."""
    clip, calls = torch.nn.utils.clip_grad_norm_, 0

    def infinite_at_the_seventh(parameters: Any, norm: float) -> torch.Tensor:
        nonlocal calls
        calls += 1
        parameters = list(parameters)
        if calls == 7:
            parameters[0].grad[0, 0] = torch.inf
        return clip(parameters, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", infinite_at_the_seventh)
    with pytest.raises(UserError, match="the gradient of pretraining is inf at step 7; lower"):
        train(data, tmp_path / "run", section(checkpoint_every=1))
    snapshot, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert snapshot is not None
    assert snapshot.step == 6
    assert all(tensor.isfinite().all() for tensor in snapshot.tensors["model"].values())
