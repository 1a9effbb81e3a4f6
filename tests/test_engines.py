"""Jobs on a real Ray cluster of two processes, and by submitit's executor of this machine."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rl_lab.engines.choice import EngineName, open_engine
from rl_lab.engines.workers import Engine, Job, Workers
from rl_lab.errors import UserError
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]


@pytest.fixture(scope="module")
def ray() -> Iterator[Engine]:
    """A cluster of two CPUs, begun once."""
    engine = open_engine("ray", ["cpus=2"])
    yield engine
    import ray

    ray.shutdown()


@pytest.fixture(params=["local", "ray", "slurm"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "ray":
        return request.getfixturevalue("ray")
    return open_engine(request.param, ["cluster=local"] if request.param == "slurm" else [])


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def console(run: Run) -> str:
    return (run.path / "console.log").read_text()


def test_jobs_are_done_and_one_that_fails_stops_no_other(
    engine: Engine, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe("cartpole")
    good, bad, last = [make_run(recipe, name) for name in ("good", "bad", "last")]
    script = "import sys, os; print(*sys.argv[1:], os.getcwd(), flush=True); os._exit({})"
    well, badly = ([sys.executable, "-c", script.format(code)] for code in (0, 3))
    workers = Workers(
        [
            Job(bad, [[*well, "first"], [*badly, "second"], [*well, "third"]]),
            Job(good, [[*well, "first"], [*well, "second"]]),
            Job(last, [[*well, "only"]]),
        ],
        at_a_time=2,
        engine=engine,
    )
    until(lambda: not workers.poll())
    assert workers.failed == [bad]
    here = Path.cwd()
    assert console(good) == f"first {here}\nsecond {here}\n"
    assert console(bad) == f"first {here}\nsecond {here}\n"
    assert console(last) == f"only {here}\n"


SAVES = """
import signal, sys, time
def save(number, frame):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
time.sleep(600)
"""


def test_stopping_lets_runs_save(
    engine: Engine, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    run, waiting = [make_run(make_recipe("cartpole"), name) for name in ("at-work", "waiting")]
    works, fails = [sys.executable, "-c", SAVES], ["false"]
    jobs = [Job(run, [works, fails]), Job(waiting, [fails])]
    workers = Workers(jobs, at_a_time=1, engine=engine)
    workers.poll()
    until(lambda: workers.poll() and (run.path / "console.log").exists() and console(run))
    workers.stop(signal.SIGTERM)
    until(lambda: not workers.poll())
    assert console(run) == "begun\nsaved\n"
    assert workers.failed == []
    assert not (waiting.path / "console.log").exists()


def test_killing_ends_the_command_too(
    engine: Engine, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    run = make_run(make_recipe("cartpole"))
    sleeps = [
        sys.executable,
        "-c",
        "import os, time; print(os.getpid(), flush=True); time.sleep(900)",
    ]
    workers = Workers([Job(run, [sleeps])], at_a_time=1, engine=engine)
    until(lambda: workers.poll() and (run.path / "console.log").exists() and console(run))
    workers.kill()
    until(lambda: not psutil.pid_exists(int(console(run))))


def test_a_job_that_ignores_ctrl_c_is_killed_too(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell has it for `command &`
    try:
        test_killing_ends_the_command_too(
            open_engine("slurm", ["cluster=local"]), make_recipe, make_run
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_one_that_is_killed_is_a_failure(
    name: EngineName, ray: Engine, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    engine = ray if name == "ray" else open_engine("slurm", ["cluster=local"])
    run = make_run(make_recipe("cartpole"), "killed")
    kills = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    workers = Workers([Job(run, [kills])], at_a_time=1, engine=engine)
    until(lambda: not workers.poll())
    assert workers.failed == [run]


def test_ray_refuses_what_no_node_can_do(
    ray: Engine, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    job = Job(make_run(make_recipe("cartpole")), [["true"]], threads=64)
    with pytest.raises(UserError, match=r"wants 64 threads, and no node .* more than 2 CPUs"):
        ray.start(job, job.commands)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("local", ["cpus=2"], "local has no option 'cpus'; it has none"),
        ("ray", ["cpu=2"], "did you mean 'cpus'"),
        ("ray", ["cpus=0"], "should be cpus=NUMBER, at least 1"),
        ("ray", ["cpus"], "should be cpus=NUMBER"),
        ("slurm", ["partition="], "should be partition=VALUE"),
        ("slurm", ["cluster=x"], "should be slurm or local"),
        ("slurm", [], "there is no sbatch here"),
    ],
)
def test_mistakes_are_a_sentence(
    name: EngineName, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=words):
        open_engine(name, options)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_a_sentence(
    name: EngineName, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs the extra '{name}': pip install"):
        open_engine(name)


SUITE = """
name: small
seeds: 2
episodes: 3
entries:
  - recipe: cartpole
    name: pole
    overrides: {budget.steps: 8000, evaluation.every: 8000, evaluation.episodes: 2,
                evaluation.stop_after_solved: null}
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [["ray", "cpus=2"], ["slurm", "cluster=local"]])
def test_a_benchmark_elsewhere_is_stopped_and_goes_on(
    options: list[str], tmp_path: Path, runs_directory: Path
) -> None:
    (tmp_path / "small.yaml").write_text(SUITE)
    engine, option = options
    command = [sys.executable, "-m", "rl_lab.cli", "benchmark", "small.yaml", "--engine", engine,
               "--engine-option", option]  # fmt: skip
    runs = [Run(runs_directory / "small" / f"pole-seed{seed}") for seed in range(2)]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        until(lambda: any(run.status["step"] > 0 for run in runs))
        process.terminate()
        assert process.wait(600) == 143
    assert {run.state for run in runs} <= {"stopped", "created"}
    assert any(run.state == "stopped" for run in runs)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for run in runs:
        assert run.state == "finished"
        assert run.evaluations["best greedy"]["return"]["n"] == 3
    assert any("resumed" in run.metrics_file.read_text() for run in runs)
