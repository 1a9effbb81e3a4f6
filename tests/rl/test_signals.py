"""Ctrl-C and its like: nothing is lost, and the exit code says what happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rl_lab import checkpoint
from rl_lab.metrics import read_metrics
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from tests.conftest import Lab

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]


def test_ctrl_c_in_a_terminal_reaches_the_environments_too_and_does_no_harm(
    runs_directory: Path,
) -> None:
    """A terminal sends SIGINT to the whole group: subprocess environments must leave it alone."""
    command = [sys.executable, "-m", "rl_lab.cli", "train", "cartpole", "--name", "stopped",
               "--env.vectorization", "subproc", "--env.number", "2"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        metrics = runs_directory / "stopped" / "metrics.jsonl"
        until = time.monotonic() + 60
        while not (metrics.exists() and len(read_metrics(metrics)) > 2):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert Run.open("stopped").state == "stopped"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_sets_the_exit_code(
    number: signal.Signals, code: int, runs_directory: Path, lab: Lab
) -> None:
    command = [sys.executable, "-m", "rl_lab.cli", "train", "cartpole", "--name", "stopped",
               "--evaluation.stop_after_solved", "null", "--budget.steps", "30000"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        metrics = runs_directory / "stopped" / "metrics.jsonl"
        until = time.monotonic() + 60
        while not (metrics.exists() and len(read_metrics(metrics)) > 3):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "stopped: stopped" in output
    assert "rl-lab train --resume" in output
    run = Run.open("stopped")
    assert run.state == "stopped"
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    assert snapshot.step == run.status["step"] < 30_000
    result = lab("train", "--resume", "stopped", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["state"] == "finished"
