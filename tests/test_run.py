"""Run directories: names, status, the lock, and telling a dead run from a living one."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl_lab import recipes
from rl_lab.cli import main
from rl_lab.errors import UserError
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run, all_runs, fresh_names


def test_a_new_run_holds_recipe_provenance_and_status(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    recipe = make_recipe("cartpole")
    run = make_run(recipe)
    assert recipes.load(AgentRecipe, str(run.recipe_file)) == recipe
    provenance = run.provenance
    assert provenance["command"] == ["test"]
    assert provenance["versions"]["torch"]
    assert provenance["seed"] == 0
    assert provenance["threads"] == 1
    assert len(provenance["lock_sha256"]) == 64
    assert run.state == "created"
    assert [run.name for run in all_runs()] == ["test"]


def test_a_name_is_not_taken_twice(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    make_run(make_recipe("cartpole"))
    with pytest.raises(UserError, match=r"exists.*--name.*--resume"):
        make_run(make_recipe("cartpole"))


def test_fresh_names_count_up_as_a_group(runs_directory: Path) -> None:
    assert fresh_names("a b", [0, 1]) == ["a-b-seed0", "a-b-seed1"]
    (runs_directory / "x-seed1").mkdir(parents=True)
    assert fresh_names("x", [0, 1]) == ["x-2-seed0", "x-2-seed1"]
    assert fresh_names("x", [0]) == ["x-seed0"]


def test_opening_what_is_not_there_names_the_nearest(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    make_run(make_recipe("cartpole"), "my-run")
    assert Run.open("my-run").name == "my-run"
    with pytest.raises(UserError, match="did you mean 'my-run'"):
        Run.open("my-rn")


def test_a_run_is_trained_by_one_process_and_known_dead_when_that_is_killed(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    run = make_run(make_recipe("cartpole"))
    code = (
        "import sys, time; from pathlib import Path; from rl_lab.run import Run\n"
        f"run = Run(Path({str(run.path)!r}))\n"
        "with run.lock():\n    run.start(10, 0, None); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert run.state == "running"
        with pytest.raises(UserError, match=f"another process.*{holder.pid}"), run.lock():
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert run.state == "died"
    with run.lock():
        pass


def test_a_status_is_never_seen_half_written(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    run = make_run(make_recipe("cartpole"))
    code = (
        "from pathlib import Path; from rl_lab.run import Run\n"
        f"run = Run(Path({str(run.path)!r}))\n"
        "print('ready', flush=True)\nfor step in range(10**9): run.update_status(step=step + 1)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        seen = set()
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            status = run.status
            assert "heartbeat" in status
            seen.add(status["step"])
        writer.kill()
    assert len(seen) > 1


@contextlib.contextmanager
def started(*arguments: str, run: Run) -> Iterator["subprocess.Popen[bytes]"]:
    """`rl-lab` in a process of its own, given when it trains the run, and gone afterwards."""
    command = [sys.executable, "-P", "-m", "rl_lab.cli", *arguments, "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 120
            while run.status.get("pid") != process.pid:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def check_one_trainer_at_a_time(
    start: tuple[str, ...], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second trainer is refused, a reader is not, and who was killed holds nothing."""
    with started(*start, run=run) as first:
        with pytest.raises(SystemExit) as end:
            main(["train", "--resume", run.name, "--quiet"])
        assert end.value.code == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert f"is being trained by another process (pid {first.pid})" in sentence
        with pytest.raises(SystemExit):
            main(["runs"])
        assert "running" in capsys.readouterr().out
        first.kill()
        first.wait()
    until = time.monotonic() + 30
    # A process that it was just starting holds the lock as well, until it is another program.
    while run.state == "running" and time.monotonic() < until:
        time.sleep(0.02)
    assert run.state == "died"
    with started("train", "--resume", run.name, run=run) as resumed:
        assert run.state == "running"
        resumed.send_signal(signal.SIGTERM)
        assert resumed.wait() == 143
    assert run.state == "stopped"


def test_an_agent_is_trained_by_one_command(
    runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("train", "cartpole", "--name", "pole", "--budget.steps", "10000000",
             "--evaluation.stop_after_solved", "null", "--evaluation.every", "10000000",
             "--evaluation.episodes", "1")  # fmt: skip
    check_one_trainer_at_a_time(start, Run(runs_directory / "pole"), capsys)


def test_an_experiment_is_trained_by_one_command(
    runs_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(f"the film number {n} is {word}." for n in range(50) for word in "abcdefg")
    Path("texts.txt").write_text(lines)
    Path("mine.yaml").write_text(
        "data: {texts: texts.txt}\n"
        "pretrain:\n"
        "  steps: 1000000\n"
        "  patience: 1000000\n"
        "  tokenizer: {vocabulary: 300}\n"
        "  architecture: {model_type: llama, hidden_size: 16, intermediate_size: 16,\n"
        "    num_hidden_layers: 1, num_attention_heads: 1, num_key_value_heads: 1,\n"
        "    max_position_embeddings: 128}\n"
    )
    run = Run(runs_directory / "language")
    check_one_trainer_at_a_time(("train", "mine.yaml", "--name", "language"), run, capsys)


def test_a_file_system_without_locks_is_named(
    make_recipe: Callable[..., AgentRecipe],
    make_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run(make_recipe("cartpole"))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"No locks available.*RL_LAB_RUNS"), run.lock():
        pass


def test_cpu_time_is_summed_over_the_processes_that_trained_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Run(tmp_path), Run(tmp_path)
    used = iter([10.0, 12.5, 100.0, 103.0, 104.0, 105.0])
    monkeypatch.setattr("rl_lab.cost.own_cpu_seconds", lambda: next(used))
    first.start(100, 0, None)
    assert first.status["cpu_seconds"] == 2.5
    second.start(100, 50, None)  # another process, which had used 100 s for something else
    assert second.status["cpu_seconds"] == 5.5
    second.start(100, 50, None)  # said twice, counted once
    assert second.status["cpu_seconds"] == 6.5
    second.update_status(state="finished")
    assert second.status["cpu_seconds"] == 7.5
