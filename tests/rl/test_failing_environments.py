"""An environment that raises, hangs or dies is told of, and replaced where the recipe allows."""

import time
from typing import Any

import pytest

from rl_lab.metrics import read_metrics
from rl_lab.rl import environments, watchdog
from rl_lab.rl.train import TrainingFailed
from tests.rl.faulty import (
    MakeRecipe,
    MakeRun,
    events,
    faulty,
    run_to_end,
    supervised_in_a_process,
)


@pytest.mark.parametrize("vectorization", ["dummy", "subproc"])
def test_a_copy_that_raises_is_replaced_as_often_as_allowed(
    vectorization: str, make_recipe: MakeRecipe, make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if vectorization == "subproc":
        monkeypatch.setattr(environments, "_supervised", supervised_in_a_process)
    recipe = make_recipe(
        "ppo", faulty("raise", at=60) | {"env.restarts": 3, "env.vectorization": vectorization}
    )
    run = make_run(recipe)
    with pytest.raises(TrainingFailed, match=r"ZeroDivisionError: out of luck.*allows 3"):
        run_to_end(run, recipe)
    restarts = events(run, "environment-restarted")
    assert len(restarts) == 3
    assert "environment 0 failed at step 120: ZeroDivisionError: out of luck" in restarts[0]
    assert 'raise ZeroDivisionError("out of luck")' in capfd.readouterr().err


def test_a_copy_that_hangs_is_ended_and_replaced(
    make_recipe: MakeRecipe, make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe("ppo", faulty("hang", at=130) | {"env.restarts": 2, "env.timeout": 0.3})
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    restarts = events(run, "environment-restarted")
    assert len(restarts) == 2
    assert "it took longer than 0.3 s (env.timeout)" in restarts[0]
    assert "time.sleep(30)" in capfd.readouterr().err  # where it hung


def test_a_copy_whose_process_dies_is_a_sentence(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_supervised", supervised_in_a_process)
    recipe = make_recipe("ppo", faulty("exit", at=60) | {"env.vectorization": "subproc"})
    run = make_run(recipe)
    with pytest.raises(TrainingFailed, match="the process of an environment died at step 118"):
        run_to_end(run, recipe)
    assert run.state == "failed"


def test_a_stalled_environment_is_told_of(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(watchdog, "PATIENCE", 0.2)
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 1.0)))
    recipe = make_recipe("ppo", faulty("hang", at=60) | {"env.number": 1})
    run = make_run(recipe)
    with pytest.raises(AssertionError):
        run_to_end(run, recipe)
    stalled = [r for r in read_metrics(run.metrics_file) if r.get("event") == "stalled"]
    assert len(stalled) == 1
    assert stalled[0]["step"] == 59
    assert stalled[0]["level"] == "warning"
    assert "time.sleep(30)" in capfd.readouterr().err


def test_a_bug_in_an_environment_keeps_its_traceback_and_marks_the_run(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("cartpole", {"evaluation.every": 10**6})
    run = make_run(recipe)

    def explode(*_: Any) -> None:
        raise ZeroDivisionError("in the environment")

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.step", explode)
    with pytest.raises(ZeroDivisionError):
        run_to_end(run, recipe)
    assert run.state == "failed"
    assert run.status["reason"] == "ZeroDivisionError: in the environment"
