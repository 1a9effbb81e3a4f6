"""Workers: jobs that are added and ended one at a time, and workers whose parent was killed."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_lab.engines.workers import Job, Workers, end_leftovers
from rl_lab.run import Run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    found = [Run(tmp_path / name) for name in ("one", "other", "third")]
    for run in found:
        run.path.mkdir()
    return found


def shell(run: Run, *scripts: str) -> Job:
    return Job(run, [["sh", "-c", script] for script in scripts])


def test_jobs_are_added_while_others_run_and_wait_for_room(runs: list[Run]) -> None:
    workers = Workers([], 1)
    assert workers.free
    workers.add(shell(runs[0], "exec sleep 60"))
    workers.add(shell(runs[1], "echo done > second"))
    assert not workers.free
    workers.poll()
    assert [run.name for run in workers.runs] == ["one"]
    assert workers.at_work(runs[1])
    assert not workers.at_work(runs[2])
    workers.kill()
    assert not workers.free


def test_one_run_is_ended_and_the_others_go_on(runs: list[Run]) -> None:
    workers = Workers([], 2)
    done = runs[1].path / "done"
    workers.add(shell(runs[0], "exec sleep 60", f"touch {runs[0].path}/never"))
    workers.add(shell(runs[1], f"touch {done}"))
    workers.add(shell(runs[2], f"touch {runs[2].path}/never"))
    workers.poll()
    workers.end(runs[0])
    workers.end(runs[2])  # it only waits
    while workers.poll():
        time.sleep(0.01)
    assert done.exists()
    assert not list(runs[0].path.glob("never"))
    assert not list(runs[2].path.glob("never"))


def test_leftover_workers_are_asked_to_save_and_waited_for(runs: list[Run]) -> None:
    script = f"""
import signal, time
from pathlib import Path
from rl_lab.run import Run
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
run = Run(Path({str(runs[0].path)!r}))
with run.lock():
    print("locked", flush=True)
    while not asked:
        time.sleep(0.01)
    time.sleep(0.2)
    (run.path / "saved").touch()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert runs[0].trainer == process.pid
        end_leftovers(runs)
        assert (runs[0].path / "saved").exists()
    assert process.returncode == 0
    assert runs[0].trainer is None


def test_a_run_whose_directory_is_gone_does_not_stop_the_others(runs: list[Run]) -> None:
    done = runs[1].path / "done"
    jobs = [shell(runs[0], "true", "true"), shell(runs[1], f"sleep 0.3; touch {done}")]
    workers = Workers(jobs, 2)
    workers.poll()
    shutil.rmtree(runs[0].path)
    while workers.poll():
        time.sleep(0.01)
    assert workers.failed == [runs[0]]
    assert done.exists()
