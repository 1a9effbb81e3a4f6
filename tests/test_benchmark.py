"""Suites and benchmarks: what is there is kept, what fails does not stop the rest."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_lab import recipes, suites
from rl_lab.benchmark import Planned, create, jobs
from rl_lab.cli import main
from rl_lab.commands import kinds
from rl_lab.errors import UserError
from rl_lab.run import Run
from rl_lab.screens.suite_progress import PlainProgress, SuiteProgress
from tests.judged_runs import judged_group, judged_run

SUITE = """
name: small
seeds: 2
episodes: 3
entries:
  - recipe: cartpole
    name: pole
    overrides: {budget.steps: 256, evaluation.every: 256, evaluation.episodes: 2}
    random: 20
    references:
      - {value: 9, source: a paper, comparable: false}
      - {value: 500, source: another}
"""


@pytest.fixture
def suite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return path


def run_benchmark(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["benchmark", *arguments])
    return int(end.value.code or 0)


def stamps(directory: Path) -> dict[str, int]:
    """When what training wrote was written."""
    files = [*directory.glob("*/metrics.jsonl"), *directory.glob("*/evaluation.json")]
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_every_built_in_suite_is_sound() -> None:
    assert {"classic-control", "rlhf", "smoke"} <= set(suites.built_in_names())
    for name in suites.built_in_names():
        suite = suites.load(name)
        for entry in suite.entries:
            _, recipe = kinds.load(entry.recipe, entry.overrides)
            assert recipe.name
            published = getattr(recipe, "reference_return", None)
            if entry.references and published is not None:  # the recipe's is the same, rounded
                assert entry.references[0].value == pytest.approx(published, rel=2e-3)
            if entry.random is not None:
                assert entry.top is not None
                assert entry.top > entry.random
        assert suites.load(name) == suite


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("entries: []", "entries = .*should have at least 1 item"),
        ("entries: [{recipe: a}, {recipe: a}]", "two entries are called 'a'"),
        ("seeds: 0\nentries: [{recipe: a}]", "seeds = 0"),
        ("sedes: 3\nentries: [{recipe: a}]", "unknown key 'sedes'.*did you mean"),
        ("entries: [{recipe: nothing}]", "unknown recipe 'nothing'"),
        ("entries: [{recipe: cartpole, overrides: {budget.stepps: 3}}]", "unknown key"),
        ("entries: [{recipe: cartpole, name: ../x}]", "name"),
        ("- 1", "a recipe is a mapping|suite"),
        ("seeds: 1000000000\nentries: [{recipe: cartpole}]", "seeds = "),
        ("episodes: 100001\nentries: [{recipe: cartpole}]", "episodes = "),
        (
            f"entries:\n- recipe: cartpole\n  overrides:\n    ? {'.'.join('a' * 2000)}\n    : 1",
            "nested deeper",
        ),
    ],
)
def test_a_suite_that_is_not_sound_is_a_sentence(
    text: str, sentence: str, suite_file: Path, runs_directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    suite_file.write_text(text)
    assert run_benchmark("small.yaml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(sentence, line)
    assert not (runs_directory / "small").exists()


def test_a_suite_that_is_not_there_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_benchmark("clasic-control") == 2
    assert "did you mean 'classic-control'?" in capsys.readouterr().err
    for option, value in (
        ("--seeds", "0"),
        ("--jobs", "-1"),
        ("--name", "../x"),
        ("--name", "a/b"),
    ):
        assert run_benchmark("smoke", option, value) == 2
        assert value in capsys.readouterr().err


def test_finished_runs_are_kept_and_only_what_is_missing_is_done(
    suite_file: Path, runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_benchmark("small.yaml") == 0
    said = capsys.readouterr().out
    assert "pole-seed0 done: " in said
    assert "2 of 2 done" in said
    directory = runs_directory / "small"
    assert suites.load(str(directory)).seeds == 2
    before = stamps(directory)
    assert len(before) == 4

    assert run_benchmark("small.yaml") == 0  # nothing to do
    assert stamps(directory) == before

    (directory / "pole-seed0" / "evaluation.json").unlink()  # judged again, not trained again
    assert run_benchmark("small.yaml", "--seeds", "3", "--quiet") == 0  # and a seed more
    after = stamps(directory)
    changed = {Path(path).parent.name for path in after if after[path] != before.get(path)}
    assert changed == {"pole-seed0", "pole-seed2"}
    trained = directory / "pole-seed0" / "metrics.jsonl"
    assert after[str(trained)] == before[str(trained)]

    suite_file.write_text(SUITE.replace("256", "512"))
    assert run_benchmark("small.yaml") == 2
    assert "made from another recipe" in capsys.readouterr().err
    assert run_benchmark("smoke", "--name", "small") == 2
    assert "of a suite with other entries (pole)" in capsys.readouterr().err
    assert stamps(directory) == after


def test_a_failing_run_does_not_stop_the_others_and_is_tried_again(
    suite_file: Path, runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = runs_directory / "small"
    assert run_benchmark("small.yaml", "--seeds", "1", "--quiet") == 0
    (directory / "pole-seed0" / "evaluation.json").unlink()
    snapshot = next((directory / "pole-seed0" / "best").glob("*/manifest.json"))
    damaged = snapshot.read_bytes()
    snapshot.write_bytes(b"{")
    assert run_benchmark("small.yaml", "--jobs", "1") == 1
    said = capsys.readouterr()
    assert "pole-seed1 done" in said.out
    assert "pole-seed0: finished" in said.err
    assert "the same command tries those 1 again" in said.err
    snapshot.write_bytes(damaged)
    assert run_benchmark("small.yaml", "--quiet") == 0


def test_a_benchmark_killed_half_way_finishes_what_was_missing(
    suite_file: Path, runs_directory: Path
) -> None:
    suite_file.write_text(SUITE.replace("budget.steps: 256", "budget.steps: 4096"))
    command = [sys.executable, "-P", "-m", "rl_lab.cli", "benchmark", "small.yaml", "--jobs", "1"]
    process = subprocess.Popen([*command, "--quiet"], start_new_session=True)
    directory = runs_directory / "small"
    first, second = (Run(directory / f"pole-seed{seed}") for seed in (0, 1))
    deadline = time.monotonic() + 120
    while second.state != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    os.kill(second.status["pid"], signal.SIGKILL)  # a worker is a session of its own
    process.wait()
    while second.state == "running":
        time.sleep(0.05)
    assert first.state == "finished"
    assert second.state == "died"
    before = stamps(directory)
    done = subprocess.run([*command, "--quiet"], check=False)
    assert done.returncode == 0
    assert second.state == "finished"
    unchanged = [path for path, stamp in stamps(directory).items() if before.get(path) == stamp]
    assert sorted(Path(path).name for path in unchanged) == ["evaluation.json", "metrics.jsonl"]
    assert {Path(path).parent.name for path in unchanged} == {"pole-seed0"}


def test_asked_to_stop_it_stops_its_runs_and_says_how_to_go_on(
    suite_file: Path, runs_directory: Path
) -> None:
    suite_file.write_text(SUITE.replace("budget.steps: 256", "budget.steps: 10000000"))
    command = [sys.executable, "-P", "-m", "rl_lab.cli", "benchmark", "small.yaml"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    runs = [Run(runs_directory / "small" / f"pole-seed{seed}") for seed in (0, 1)]
    deadline = time.monotonic() + 120
    while not any(run.status["step"] > 0 for run in runs):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on: rl-lab benchmark small.yaml" in said
    assert {run.state for run in runs} <= {"stopped", "created"}


def planned(directory: Path, seeds: int = 2) -> list[Planned]:
    recipe = kinds.load("cartpole")[1]
    return [Planned.of(directory, "cartpole", seed, recipe) for seed in range(seeds)]


def test_progress_is_read_from_the_directories(tmp_path: Path) -> None:
    judged_group(tmp_path, "cartpole", [500.0, None])
    running = judged_run(tmp_path / "cartpole-seed2", 2, None)
    running.update_status(state="stopped", budget=1000, step=250, started=time.time() - 10)
    suite = suites.load("classic-control").model_copy(update={"seeds": 4, "episodes": 10})
    suite = suite.model_copy(update={"entries": suite.entries[:1]})
    progress = SuiteProgress(suite, planned(tmp_path, 4), 2)
    stages = [run.stage for run in progress.runs]
    assert stages == ["done", "judging", "stopped", "waiting"]
    assert progress.runs[0].score == 500.0
    # 10 s for a quarter of a run; 1.75 runs are left, two at a time.
    assert progress.seconds_left == pytest.approx(10 / 2.25 * 1.75 / 2, rel=0.1)
    plain = PlainProgress(progress)
    assert plain.lines(time.monotonic()) == [progress.line()]
    running.update_status(state="failed")
    progress.refresh()
    assert plain.lines(time.monotonic()) == ["cartpole-seed2 failed"]
    left = jobs(planned(tmp_path, 4)[:3], 10)
    assert [(job.run.name, len(job.commands)) for job in left] == [
        ("cartpole-seed1", 1),
        ("cartpole-seed2", 2),
    ]


def test_a_suite_reads_back_as_it_was_written(tmp_path: Path) -> None:
    for name in suites.built_in_names():
        (tmp_path / "suite.yaml").write_text(recipes.dump(suites.load(name)))
        assert suites.load(str(tmp_path)) == suites.load(name)
    (tmp_path / "suite.yaml").write_text(json.dumps({"entries": 3}))
    with pytest.raises(UserError, match="entries"):
        suites.load(str(tmp_path))


def test_a_run_that_was_being_made_when_it_was_killed_is_made_again(tmp_path: Path) -> None:
    first, second = planned(tmp_path)
    first.run.path.mkdir()
    (first.run.path / ".recipe.yaml.x1y2").touch()
    create([first], ["rl-lab"])
    assert first.run.state == "created"
    second.run.path.mkdir()
    (second.run.path / "notes.txt").touch()
    with pytest.raises(UserError, match="exists"):
        create([second], ["rl-lab"])
    assert (second.run.path / "notes.txt").exists()


def test_a_second_benchmark_of_the_same_name_changes_nothing(
    suite_file: Path, runs_directory: Path
) -> None:
    directory = runs_directory / "small"
    directory.mkdir(parents=True)
    (directory / "suite.yaml").write_text("as it was")
    with Run(directory).lock():
        assert run_benchmark("small.yaml", "--seeds", "1", "--quiet") == 2
    assert (directory / "suite.yaml").read_text() == "as it was"
