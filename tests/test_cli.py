"""The command line as a user meets it: help, mistakes, and the whole way from recipe to video."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_lab.cli import main
from rl_lab.commands.train import parse_seeds
from rl_lab.errors import UserError
from rl_lab.run import Run
from tests.conftest import Lab

COMMANDS = ["train", "evaluate", "runs", "recipes", "watch", "play", "report", "export",
            "import", "doctor", "sweep", "reproduce"]  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *tokens: str) -> tuple[int, str, str]:
    """Run the command line in this process; return its exit code and what it printed."""
    with pytest.raises(SystemExit) as end:
        main(list(tokens))
    printed = capsys.readouterr()
    return int(end.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_what_each_command_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(capsys, *command.split(), "--help")
    assert code == 0
    assert f"rl-lab {command}".strip() in output
    for name in COMMANDS if not command else []:
        assert name in output


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    _, output, _ = run(capsys, "train", "--help")
    for option in ("--seeds", "--jobs", "--name", "--resume", "--dry-run", "--print-recipe",
                   "--json", "--quiet", "--section.field VALUE"):  # fmt: skip
        assert option in output


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["trian", "cartpole"], ["trian", "train"]),
        (["train"], ["needs a recipe"]),
        (["train", "cartpol"], ["'cartpole'"]),
        (["train", "cartpole", "--algorithm.learning_rte", "1"], ["learning_rate"]),
        (["train", "cartpole", "--algorithm.name", "pppo"], ["'ppo'"]),
        (["train", "cartpole", "--env.id", "CartPole-v7"], ["'CartPole-v1'"]),
        (["train", "cartpole", "--env.number", "no"], ["env.number", "'no'", "integer"]),
        (["train", "cartpole", "--see", "0-4"], ["'see'"]),
        (["train", "cartpole", "--seeds", "4-0"], ["--seeds", "0-4"]),
        (["train", "cartpole", "--jobs", "x"], ["--jobs"]),
        (["train", "cartpole", "--env.id", ""], ["env.id = ''"]),
        (["train", "cartpole", "--algorithm.n_steps", "99999999999"], ["memory", "n_steps"]),
        (["train", "cartpole", "--budget.steps", ".inf"], ["budget.steps", "finite"]),
        (["train", "cartpole", "--jobs", "0"], ["--jobs 0", "at least 1"]),
        (["train", "cartpole", "--algorithm.\x1b[31mx", "1"], ["\\x1b[31mx"]),
        (
            ["train", "ppo", "--env.id", "CartPole-v1", "--evaluation.stop_after_solved", "1"],
            ["target_return"],
        ),
        (["train", "cartpole", "--name", "../x"], ["'../x'"]),
        (["train", "cartpole", "--algorithm.policy", "CnnPolicy"], ["NatureCNN", "images"]),
        (["train", "cartpole", "--algorithm.policy", "MplPolicy"], ["'MlpPolicy'"]),
        (["train", "dqn", "--env.id", "Pendulum-v1"], ["DQN", "Discrete", "Box"]),
        (["train", "maskable_ppo", "--env.id", "CartPole-v1"], ["action_masks"]),
        (["train", "cartpole", "--resume", "x"], ["--resume takes only the run"]),
        (["train", "--resume", "x"], ["no run 'x'"]),
        (["evaluate"], ["needs a run"]),
        (["evaluate", "x"], ["no run 'x'"]),
        (["play", "x"], ["no run 'x'"]),
        (["report", "x"], ["no run 'x'"]),
        (["watch"], ["there are no runs"]),
        (["runs", "--jsn"], ["--jsn"]),
        (["recipes", "cartpol"], ["'cartpole'"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tokens: list[str], words: list[str], capsys: pytest.CaptureFixture[str], runs_directory: Path
) -> None:
    code, output, error = run(capsys, *tokens)
    assert code == 2
    assert output == ""
    assert error.startswith("rl-lab: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert "\x1b" not in error
    assert not list(runs_directory.glob("*"))  # nothing was begun


def test_what_lies_in_the_working_directory_is_not_imported(lab: Lab, tmp_path: Path) -> None:
    trap = "raise SystemExit('the trap was imported')"
    for name in ("yaml", "torch", "envs", "rich"):
        (tmp_path / f"{name}.py").write_text(trap)
    result = lab("train", "ppo", "--env.id", "RLLab/Match-v0", "--name", "safe",
                 "--budget.steps", "2048", cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "safe  finished" in result.stdout  # the watcher ran, too


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rl_lab.commands.runs.all_runs", broken)
    with pytest.raises(ZeroDivisionError):
        main(["runs"])


def test_print_recipe_is_what_the_run_would_use(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(
        capsys, "train", "sac", "--env.id", "Pendulum-v1", "--seed", "7", "--print-recipe"
    )
    assert code == 0
    assert "id: Pendulum-v1" in output
    assert "seed: 7" in output


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str], runs_directory: Path) -> None:
    code, output, error = run(capsys, "train", "cartpole", "--budget.steps", "500", "--dry-run")
    assert code == 0
    assert "cartpole builds" in output
    assert "learning_rate is still changing" in error
    assert not runs_directory.exists()


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, output, _ = run(capsys, "recipes")
    assert "cartpole" in output
    assert "recurrent_ppo" in output
    _, output, _ = run(capsys, "recipes", "cartpole")
    assert "id: CartPole-v1" in output
    _, output, _ = run(capsys, "recipes", "--keys")
    assert "env.id" in output
    _, output, _ = run(capsys, "recipes", "--json")
    assert {row["recipe"] for row in json.loads(output)} >= {"cartpole", "sac"}


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("3", [3]), ("0,5, 7-8", [0, 5, 7, 8])]
)
def test_seeds_are_ranges_and_lists(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["", "a", "4-0", "1,1", "-1", "0-", "0-99999", "0-99999999999", str(2**31)]
)
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_from_recipe_to_video(lab: Lab, runs_directory: Path) -> None:
    result = lab("train", "cartpole", "--name", "pole", "--budget.steps", "3000")
    assert result.returncode == 0, result.stderr
    assert "finished: pole · 3,072 steps" in result.stdout
    assert "rl-lab evaluate" in result.stdout

    result = lab("evaluate", "pole", "--episodes", "30", "--json")
    (judged,) = json.loads(result.stdout)
    assert judged["return"]["n"] == len(judged["episodes"]) == 30
    assert judged["return"]["low"] <= judged["return"]["mean"] <= judged["return"]["high"]
    assert judged["terminated"] + judged["truncated"] == 30
    result = lab("evaluate", "pole", "--episodes", "5", "--model", "last", "--sampled")
    assert "sampled" in result.stdout
    assert set(Run.open("pole").evaluations) == {"best greedy", "last sampled"}

    result = lab("play", "pole", "--video", "--episodes", "2")
    assert result.returncode == 0, result.stderr
    videos = sorted((runs_directory / "pole" / "videos").glob("*.mp4"))
    assert [path.name for path in videos] == [
        "best-seed0-episode-0.mp4", "best-seed0-episode-1.mp4",
    ]  # fmt: skip
    assert all(path.read_bytes()[4:8] == b"ftyp" for path in videos)
    assert all(str(path) in result.stdout for path in videos)

    result = lab("report", "pole")
    assert result.stdout.strip() == str(runs_directory / "pole" / "report.html")
    page = (runs_directory / "pole" / "report.html").read_text()
    assert "data:video/mp4;base64," in page
    assert 'src="http' not in page

    result = lab("runs", "--json")
    (listed,) = json.loads(result.stdout)
    assert listed["run"] == "pole"
    assert listed["state"] == "finished"
    assert "pole" in lab("runs").stdout

    result = lab("watch", "pole")
    assert result.returncode == 0
    assert "finished" in result.stdout

    result = lab("train", "--resume", "pole", "--json")
    assert json.loads(result.stdout)["state"] == "finished"


def test_an_evaluation_uses_seeds_that_training_never_saw(lab: Lab, runs_directory: Path) -> None:
    from rl_lab.rl import seeding
    from rl_lab.seeding import stream

    lab("train", "cartpole", "--name", "pole", "--budget.steps", "256", "--quiet")
    (judged,) = json.loads(lab("evaluate", "pole", "--episodes", "50", "--json").stdout)
    used = {episode["seed"] for episode in judged["episodes"]}
    training = set(stream(0, seeding.TRAINING, 8))
    in_training = set(stream(0, seeding.EVALUATION, 20))
    assert len(used) == 50
    assert not used & (training | in_training)


def test_seeds_run_side_by_side_each_in_its_directory(lab: Lab, runs_directory: Path) -> None:
    result = lab("train", "cartpole", "--seeds", "0,3", "--budget.steps", "2000")
    assert result.returncode == 0, result.stderr
    for seed in (0, 3):
        run = Run.open(f"cartpole-seed{seed}")
        assert run.state == "finished"
        assert run.provenance["seed"] == seed
        assert f"finished: cartpole-seed{seed}" in result.stdout
    results = json.loads(lab("evaluate", *[f"cartpole-seed{s}" for s in (0, 3)],
                             "--episodes", "5", "--json").stdout)  # fmt: skip
    first, second = ([e["seed"] for e in result["episodes"]] for result in results)
    assert first == second  # the same starts for every run: their returns pair up


def test_a_seed_that_is_killed_does_not_stop_the_others(runs_directory: Path) -> None:
    command = [sys.executable, "-m", "rl_lab.cli", "train", "cartpole", "--seeds", "0-1",
               "--budget.steps", "6000"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        victim = Run(runs_directory / "cartpole-seed0")
        until = time.monotonic() + 60
        while victim.state != "running":
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(victim.status["pid"], signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "died: cartpole-seed0" in output
    assert "finished: cartpole-seed1" in output


def test_ctrl_c_reaches_every_seed(runs_directory: Path) -> None:
    command = [sys.executable, "-m", "rl_lab.cli", "train", "cartpole", "--seeds", "0-2",
               "--jobs", "2", "--evaluation.stop_after_solved", "null"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        paths = [runs_directory / f"cartpole-seed{seed}" / "metrics.jsonl" for seed in (0, 1)]
        while not all(path.exists() for path in paths):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(1)
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [Run.open(f"cartpole-seed{seed}").state for seed in range(3)] == [
        "stopped", "stopped", "created",
    ]  # fmt: skip
    assert output.count("rl-lab train --resume") == 3


def test_doctor_finds_this_installation_whole(lab: Lab) -> None:
    result = lab("doctor", "--json")
    found = json.loads(result.stdout)
    assert result.returncode == 0, found["differs_from_lock"]
    assert found["versions"]["stable-baselines3"]
    assert found["steps_per_second"] > 0
    assert found["missing"].keys() <= {"envpool"}  # the one that is not of `all`
    assert "cpu" in found["devices"]


def test_play_without_a_display_says_what_to_do(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab("train", "cartpole", "--name", "pole", "--budget.steps", "256", "--quiet")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    result = lab("play", "pole")
    if sys.platform.startswith("linux"):
        assert result.returncode == 2
        assert "--video" in result.stderr
