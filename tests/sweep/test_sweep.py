"""`rl-lab sweep` as a user meets it: a small one, killed half way, and one asked to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from rl_lab import recipes
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from tests.conftest import Lab

SMALL = (  # of an environment whose episodes take ten steps
    "--env.id", "RLLab/Match-v0",
    "--budget.steps", "512", "--evaluation.every", "256", "--evaluation.episodes", "2",
    "--sweep.winners", "1", "--sweep.fresh_seeds", "2", "--trials", "2", "--jobs", "2",
)  # fmt: skip


def begin(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "rl_lab.cli", "sweep", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)


def test_killed_half_way_it_goes_on_to_a_recipe_and_a_verdict(
    lab: Lab, runs_directory: Path
) -> None:
    directory = runs_directory / "mine"
    with begin("cartpole", "--name", "mine", *SMALL) as process:
        wait_for(directory / "trial0-seed0" / "metrics.jsonl", process)
        process.send_signal(signal.SIGKILL)
    before = (directory / "journal.log").read_text()

    done = lab("sweep", "--resume", "mine", "--jobs", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert (directory / "journal.log").read_text().startswith(before)
    result = json.loads(done.stdout)
    assert result == json.loads((directory / "result.json").read_text())
    assert [trial["number"] for trial in result["trials"]] == [0, 1]
    assert result["seeds"] == [1, 2]
    for contender in result["contenders"]:
        assert len(contender["scores"]) == 2
        for seed in (1, 2):
            run = Run(directory / f"{contender['label']}-seed{seed}")
            assert run.state == "finished"
            assert run.evaluations["best greedy"]["return"]["n"] == 100
    trial = result["trials"][result["contenders"][1]["trial"]]
    winner = recipes.load(
        AgentRecipe, str(directory / f"winner{trial['number']}-seed1/recipe.yaml")
    )
    for key, value in trial["parameters"].items():
        assert winner.algorithm.hyperparameters[key.removeprefix("algorithm.")] == value
    assert winner.evaluation.stop_after_solved is None

    text = (directory / "winner.yaml").read_text()
    assert text.startswith("# ")
    written = yaml.safe_load(text)
    assert written["sweep"] is None
    assert written["evaluation"]["stop_after_solved"] == 2
    assert lab("train", str(directory / "winner.yaml"), "--dry-run").returncode == 0

    changed = lab("sweep", "cartpole", "--name", "mine", *SMALL, "--algorithm.gamma", "0.9")
    assert changed.returncode == 2
    assert "another recipe" in changed.stderr
    shown = lab("sweep", "cartpole", "--name", "mine", *SMALL)  # all of it is there
    assert shown.returncode == 0
    assert result["verdict"] in " ".join(shown.stdout.split())


def test_ctrl_c_saves_and_says_how_to_go_on(runs_directory: Path) -> None:
    directory = runs_directory / "mine"
    with begin("cartpole", "--name", "mine", *SMALL, "--budget.steps", "100000") as process:
        wait_for(directory / "trial0-seed0" / "metrics.jsonl", process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert "rl-lab sweep --resume" in error
    run = Run(directory / "trial0-seed0")
    assert run.state == "stopped"
    assert not run.locked()
    journal = (directory / "journal.log").read_text()
    assert '"state":3' not in journal  # no trial was told to have failed
