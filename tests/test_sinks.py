"""Sinks: each has every number when its run ends, without a network."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rl_lab.metrics import numbers_of, read_metrics
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.train import train
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from rl_lab.sinks import open_sinks

NAME = "rollout/ep_rew_mean"


def in_tensorboard(run: Run) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(NAME)]


def in_trackio(run: Run) -> list[tuple[int, float]]:
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("rl-lab", run.path.name)
    return [(row["step"], row[NAME]) for row in rows if NAME in row]


def in_wandb(run: Run) -> list[tuple[int, float]]:
    """The logged pairs whose value stands in wandb's (binary) file; no public reader is left."""
    steps, values = numbers_of(read_metrics(run.metrics_file), NAME)
    content = content_of_wandb(run.path, *values)
    logged = zip(steps, values, strict=True)
    return [(step, value) for step, value in logged if str(value).encode() in content]


def content_of_wandb(directory: Path, *values: float) -> bytes:
    """wandb's file, once it holds the values: a process of its own writes it, with a delay."""
    (file,) = directory.glob("wandb/offline-run-*/*.wandb")
    end = time.monotonic() + 60
    while True:
        content = file.read_bytes()
        if all(str(value).encode() in content for value in values) or time.monotonic() > end:
            return content
        time.sleep(0.05)


@pytest.mark.parametrize("read", [in_tensorboard, in_trackio, in_wandb])
def test_a_sink_has_every_number_when_the_run_ends(
    read: Callable[[Run], list[tuple[int, float]]], make_recipe: Callable[..., AgentRecipe],
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    sink = read.__name__.removeprefix("in_")
    recipe = make_recipe("cartpole", {"budget.steps": 2048, f"logging.{sink}": True})
    run = make_run(recipe)
    train(run, recipe, StopRequest())
    steps, values = numbers_of(read_metrics(run.metrics_file), NAME)
    written = read(run)
    assert len(steps) > 0
    assert [step for step, _ in written] == steps
    assert [value for _, value in written] == pytest.approx(values)


def test_a_run_that_fails_leaves_its_sinks_in_order(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(ValueError, match="ours to print"),
        open_sinks(tmp_path, tensorboard=True, trackio=False, wandb=True) as sinks,
    ):
        for sink in sinks:
            sink(7, {NAME: 21.5})
        raise ValueError("ours to print")
    assert b"21.5" in content_of_wandb(tmp_path, 21.5)
    assert "Traceback" not in "".join(capfd.readouterr())
