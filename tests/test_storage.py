"""Full, read-only and vanished disks: one sentence, old snapshots whole, nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_lab import checkpoint, files, storage
from rl_lab.checkpoint import Snapshot
from rl_lab.cli import main
from rl_lab.files import REPLACED, StorageError, whole_directory, write_atomically
from rl_lab.metrics import MetricLog, read_metrics
from rl_lab.rl import agent, space
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.train import train
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from tests.full_disk import full_for, leftovers, limited, needs_proc

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]

# A replay buffer of 40 bytes a step, and nothing learnt: snapshots that grow, quickly made.
GROWING = {
    "env.id": "Pendulum-v1", "algorithm.policy_kwargs": {"net_arch": [8]},
    "algorithm.learning_starts": 10_000, "algorithm.buffer_size": 10_000, "budget.steps": 3000,
    "checkpoints.every": 1000, "checkpoints.keep": 1, "evaluation.every": 10_000,
    "evaluation.episodes": 1,
}  # fmt: skip
LIMIT = 60_000
"""Bytes a file may have: more than the snapshot of step 1000 needs, less than that of step 2000."""


def test_a_snapshot_that_finds_no_room_ends_the_run_in_one_sentence_and_it_resumes(
    make_recipe: MakeRecipe, make_run: MakeRun, lab: Callable[..., Any]
) -> None:
    run = make_run(make_recipe("sac", GROWING))
    done = limited(LIMIT, "train", "--resume", "test", "--quiet")
    assert done.returncode == 1
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert "checkpoints/000000002000: File too large" in sentence
    assert "`rl-lab train --resume test` goes on from step 1,000, which is safe" in sentence
    assert run.state == "failed"
    assert run.status["reason"] in sentence
    assert checkpoint.newest_whole(run.checkpoints) == 1000
    assert leftovers(run.path) == []
    assert read_metrics(run.metrics_file)[-1]["event"] == "failed"

    again = lab("train", "--resume", "test", "--quiet")
    assert again.returncode == 0, again.stderr
    assert run.state == "finished"
    assert checkpoint.newest_whole(run.checkpoints) == 3000


def test_a_run_that_can_do_without_snapshots_goes_on_and_tries_again(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    run = make_run(make_recipe("sac", GROWING | {"checkpoints.required": False}))
    done = limited(LIMIT, "train", "--resume", "test", "--quiet")
    assert done.returncode == 0, done.stderr
    assert checkpoint.steps(run.checkpoints) == [1000]
    assert leftovers(run.path) == []
    failed = [r for r in read_metrics(run.metrics_file) if r.get("event") == "checkpoint-failed"]
    assert [record["level"] for record in failed] == ["warning"] * len(failed)
    assert [record["step"] for record in failed] == [2000, 3000, 3000][: len(failed)]
    assert "(2 so far)" in failed[1]["message"]


@needs_proc
@pytest.mark.parametrize("what", ["/best/", "/checkpoints/", "/.status.json"])
def test_whatever_cannot_be_written_ends_the_run(
    what: str, make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 512, "evaluation.episodes": 1})
    run = make_run(recipe)
    full = [what]
    full_for(full, monkeypatch)
    with (
        pytest.raises(StorageError, match=r"No space left on device.*once it can be"),
        StopRequest() as stop,
    ):
        train(run, recipe, stop)
    assert leftovers(run.path) == []
    assert not list(run.path.glob("*/0*")) or "best" not in what
    assert run.status["state"] == ("created" if "status" in what else "failed")
    full.clear()
    with StopRequest() as stop:
        assert train(run, recipe, stop) == "finished"


def test_a_run_directory_taken_away_is_not_made_again(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 512, "evaluation.episodes": 1})
    run = make_run(recipe)
    real = checkpoint.save

    def save(parent: Path, snapshot: Snapshot) -> Path:
        if parent == run.checkpoints:
            shutil.rmtree(run.path)
        return real(parent, snapshot)

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(StorageError, match="No such file or directory"), StopRequest() as stop:
        train(run, recipe, stop)
    assert not run.path.exists()


def test_a_metric_line_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    code = (
        "import resource, sys; from pathlib import Path; from rl_lab.metrics import MetricLog\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"log = MetricLog(Path({str(path)!r}))\n"
        "try:\n  for step in range(100): log.log(step, {'a': 1.0})\n"
        "except Exception as error: print(error); log.__exit__(None, None, None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert done.stderr == ""
    content = path.read_bytes()
    assert content.endswith(b"}\n")
    assert 900 < len(content) <= 1000
    with MetricLog(path) as log:
        log.log(1000, {"a": 2.0})
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_the_old_stays_where_the_new_cannot_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "a.json", "old")
    with whole_directory(tmp_path / "model") as whole:
        (whole / "weights").write_text("old")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=f"cannot write .*/a.json: {os.strerror(number)}"):
            write_atomically(tmp_path / "a.json", "new")
        with (
            pytest.raises(StorageError, match=f"/model: {os.strerror(number)}"),
            whole_directory(tmp_path / "model") as whole,
        ):
            (whole / "weights").write_text("new")
    for path in (tmp_path / "a.json", tmp_path / "model" / "weights"):
        assert path.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "model"]


def test_the_old_comes_back_where_the_new_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = checkpoint.save(tmp_path, Snapshot(1, state={"a": {"is": "old"}}))
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == old and not self.name.startswith(REPLACED):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError):
        checkpoint.save(tmp_path, Snapshot(1, state={"a": {"is": "new"}}))
    assert checkpoint.load(old).state["a"] == {"is": "old"}
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


def test_an_error_of_another_kind_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.writing(tmp_path):
        raise ZeroDivisionError("a bug")
    with pytest.raises(StorageError, match="No space left"), files.writing(tmp_path):
        raise Exception("Error while serializing: I/O error: No space (os error 28)")


def test_a_runs_directory_that_cannot_be_written_is_refused_before_anything_is_built(
    runs_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def never(*_: Any) -> None:
        raise AssertionError("it was built")

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(agent, "build", never)
    with pytest.raises(SystemExit) as end:
        main(["train", "cartpole"])
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        f"rl-lab: cannot write {runs_directory.parent}: Read-only file system\n"
    )


def test_a_run_that_cannot_be_begun_leaves_nothing(
    make_recipe: MakeRecipe, make_run: MakeRun, runs_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = make_recipe("cartpole")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=r"recipe\.yaml"):
        make_run(recipe)
    assert list(runs_directory.iterdir()) == []


def test_too_little_room_is_said_before_it_is_felt(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = make_recipe("cartpole", {"budget.steps": 256, "evaluation.episodes": 1})
    run = make_run(recipe)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
    with StopRequest() as stop:
        assert train(run, recipe, stop) == "finished"
    (note,) = [r for r in read_metrics(run.metrics_file) if r.get("event") == "note"]
    assert note["level"] == "warning"
    assert "0.0 MB free, and the run may come to 0." in note["message"]
    assert capsys.readouterr().err == f"note: {note['message']}\n"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cartpole", {"budget.steps": 512}),
        ("sac", GROWING),
        ("dqn", {"env.id": "CartPole-v1", "budget.steps": 400, "algorithm.learning_starts": 100}),
    ],
)
def test_the_room_a_run_takes_is_foreseen(
    name: str, settings: dict[str, Any], make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe(name, settings | {"evaluation.episodes": 1})
    run = make_run(recipe)
    with StopRequest() as stop:
        train(run, recipe, stop)
    (newest,) = checkpoint.directories(run.checkpoints)[-1:]
    taken = sum(file.stat().st_size for file in newest.iterdir())
    foreseen = space.needed(agent.build(recipe), recipe) / (recipe.checkpoints.keep + 1)
    assert 0.5 * taken < foreseen < 3 * taken


def test_a_replay_buffer_is_never_twice_in_memory(tmp_path: Path) -> None:
    """Read one array at a time, and written without a copy."""
    size = 40 * 2**20
    arrays = {name: np.ones(size, np.uint8) for name in "ab"}
    path = checkpoint.save(tmp_path, Snapshot(1, arrays={"buffer": arrays}))
    tracemalloc.start()
    try:
        checkpoint.save(tmp_path, Snapshot(2, arrays={"buffer": arrays}))
        _, writing = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        loaded = checkpoint.load(path).arrays["buffer"]
        for name, array in arrays.items():
            array[:] = loaded[name]
        _, reading = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert writing < size / 2
    assert reading < 1.5 * size


@needs_proc
def test_a_page_that_cannot_be_written_is_one_sentence_too(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = make_run(make_recipe("cartpole"))
    full_for(["report.html"], monkeypatch)
    with pytest.raises(SystemExit) as end:
        main(["report", "test"])
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        f"rl-lab: cannot write {run.report_file}: No space left on device\n"
    )
