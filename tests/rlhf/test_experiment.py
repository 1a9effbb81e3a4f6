"""A whole experiment on the user's own small files, by the command line: data to evaluation."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rl_lab import recipes
from rl_lab.rlhf import experiment, stage_cache, stage_inputs
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.stage_inputs import hashes
from rl_lab.run import Run
from rl_lab.signals import StopRequest

Lab = Callable[..., subprocess.CompletedProcess[str]]

RECIPE = """
data:
  preferences: pairs.jsonl
  prompts: prompts.txt
  texts: texts.txt
  heldout_share: 0.3
pretrain:
  tokenizer: {kind: word, vocabulary: 300}
  architecture:
    {model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
     num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 64}
  context: 32
  batch_tokens: 256
  steps: 20
  evaluate_every: 10
reward:
  members: 1
  batch: 16
judges:
  points: {scores: points.jsonl}
ppo:
  updates: 2
  rollouts: 8
  minibatch: 8
  micro_batch: 4
  sampling: {max_new_tokens: 6}
  looks: {every: 1, prompts: 4}
  checkpoint_every: 1
evaluate:
  prompts: 8
  best_of: [2, 4]
  best_of_prompts: 4
  texts: 20
threads: 1
"""

NOUNS = ["film", "plot", "cast", "scene", "music", "story", "ending", "actor"]
GOOD = ["good", "great", "moving", "funny", "clever"]
BAD = ["bad", "dull", "tired", "weak", "silly"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RL_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe and its files; people like good words."""
    draw = random.Random(0)

    def sentence(words: list[str]) -> str:
        one, other = draw.sample(NOUNS, 2)
        first, second, number = draw.choice(words), draw.choice(words), draw.randint(1, 999)
        return f"the {one} is {first} and the {other} {number} {second}."

    good, bad = ([sentence(words) for _ in range(150)] for words in (GOOD, BAD))
    rows = [{"prompt": "", "chosen": a, "rejected": b} for a, b in zip(good, bad, strict=True)]
    write = {
        "pairs.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "texts.txt": "\n".join(good + bad) + "\n",
        "prompts.txt": "\n".join(f"the {noun} {number}" for noun in NOUNS for number in range(6)),
        "points.jsonl": "".join(
            json.dumps({"text": text, "score": score}) + "\n"
            for score, texts in ((1, good), (0, bad))
            for text in texts
        ),
        "mine.yaml": RECIPE,
    }
    for name, content in write.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def states(run: Run) -> dict[str, str]:
    return {
        path.parent.name: json.loads(path.read_text())["state"]
        for path in run.path.glob("*/status.json")
    }


def test_from_data_to_evaluation_and_again_from_the_cache(
    lab: Lab, folder: Path, runs_directory: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "stages"
    done = lab("train", "mine.yaml", "--name", "first", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = Run(runs_directory / "first")
    assert set(states(run).values()) == {"finished"}
    result = json.loads((run.path / "evaluation.json").read_text())
    assert result["prompts"] == 8
    assert [row["n"] for row in result["best_of"]] == [2, 4]
    assert result["win_rate"]["points"]["n"] == 8
    assert {"heldout_loss", "distinct_2", "proxy", "gold"} <= set(result["policy"])
    assert (run.path / "ppo" / "model" / "model.safetensors").is_file()
    assert not list(run.path.rglob("*.bin")) + list(run.path.rglob("*.pt"))
    for stage in states(run):  # nor did any start over
        assert "restarted" not in (run.path / stage / "metrics.jsonl").read_text()

    again = lab("train", "mine.yaml", "--name", "second", "--ppo.epochs", "1", cwd=folder)
    assert again.returncode == 0, again.stderr
    second = Run(runs_directory / "second")
    reused = {
        path.parent.name
        for path in second.path.glob("*/status.json")
        if json.loads(path.read_text()).get("reused")
    }
    assert reused == {"data", "pretrain", "reward", "judges"}
    third = lab("train", "mine.yaml", "--name", "third", cwd=folder)
    assert third.returncode == 0, third.stderr
    assert lab("evaluate", "third").returncode == 0  # nothing was run, all of it is there
    leftover = second.path / "ppo" / "checkpoints" / "000000000002"
    leftover.mkdir(parents=True)  # as of one that was killed when its stage had just finished
    cached = {path for path in cache.iterdir() if path.name.startswith("ppo-")}
    for path in cached:
        shutil.rmtree(path)
    second.update_status(state="stopped")
    resumed = lab("train", "--resume", "second", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert not leftover.parent.exists()
    assert len(cached) == 2 and len(cached & set(cache.iterdir())) == 1  # the second's is back
    assert lab("report", "second").returncode == 0
    shown = lab("runs")
    assert "first" in shown.stdout
    watched = lab("watch", "second")
    assert watched.returncode == 0
    assert "ppo" in watched.stdout
    judged = lab("evaluate", "second")
    assert judged.returncode == 0, judged.stderr
    assert "best of 4" in judged.stdout
    assert lab("play", "second").returncode == 2


def test_an_experiment_is_reproduced_without_the_cache(
    lab: Lab, folder: Path, runs_directory: Path
) -> None:
    assert lab("train", "mine.yaml", "--name", "first", "--quiet", cwd=folder).returncode == 0
    done = lab("reproduce", "first", "--name", "again", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["word"], found["bits"]) == ("bit-equal", [])
    again = Run(runs_directory / "again")
    assert set(states(again).values()) == {"finished"}
    assert not any(
        json.loads(path.read_text()).get("reused") for path in again.path.glob("*/status.json")
    )
    evaluation = json.loads((again.path / "evaluation.json").read_text())
    assert evaluation["policy"]["gold"]["points"]["n"] == 8


def test_killed_in_ppo_it_resumes_and_ends_in_the_same_bits(
    lab: Lab, folder: Path, runs_directory: Path
) -> None:
    longer = ("--ppo.updates", "8")
    assert lab("train", "mine.yaml", "--name", "through", *longer, cwd=folder).returncode == 0
    command = [sys.executable, "-P", "-m", "rl_lab.cli", "train", "mine.yaml", "--name", "killed"]
    process = subprocess.Popen(
        [*command, *longer, "--ppo.max_grad_norm", "0.99999", "--quiet"], cwd=folder,
        env=os.environ, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    snapshots = runs_directory / "killed" / "ppo" / "checkpoints"
    while not (snapshots / f"{2:012d}").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lab("runs", "--json").stdout.count('"died"') == 1

    # What a stage was made from may not change under it.
    texts = (folder / "texts.txt").read_text()
    (folder / "texts.txt").write_text(texts + "the film is another one.\n")
    changed = lab("train", "--resume", "killed", cwd=folder)
    assert changed.returncode == 2
    assert "has changed since" in changed.stderr

    (folder / "texts.txt").write_text(texts)
    resumed = lab("train", "--resume", "killed", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    other = lab("train", "mine.yaml", "--name", "other", *longer, "--ppo.max_grad_norm", "0.99999",
                "--fresh", cwd=folder)  # fmt: skip
    assert other.returncode == 0
    weights = [
        (runs_directory / name / "ppo" / "model" / "model.safetensors").read_bytes()
        for name in ("killed", "other")
    ]
    assert weights[0] == weights[1]


def test_killed_in_pretrain_and_again_in_reward_it_ends_in_the_same_bits(
    lab: Lab, folder: Path, runs_directory: Path
) -> None:
    settings = ("--pretrain.checkpoint_every", "3", "--reward.checkpoint_every", "2",
                "--reward.epochs", "3", "--judges", "null", "--ppo", "null", "--evaluate", "null",
                "--quiet")  # fmt: skip
    killed = Run(runs_directory / "killed")
    train = [sys.executable, "-P", "-m", "rl_lab.cli", "train"]
    for stage, command in (
        ("pretrain", [*train, "mine.yaml", "--name", "killed", *settings]),
        ("reward", [*train, "--resume", "killed", "--quiet"]),
    ):
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while not list((killed.path / stage / "checkpoints").glob("0*")):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(random.random() / 5)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert lab("train", "--resume", "killed", "--quiet", cwd=folder).returncode == 0
    assert not list(killed.path.rglob("checkpoints"))

    through = lab("train", "mine.yaml", "--name", "through", "--fresh", *settings, cwd=folder)
    assert through.returncode == 0, through.stderr
    for file in ("pretrain/model/model.safetensors", "reward/members/0/model.safetensors"):
        assert (killed.path / file).read_bytes() == (runs_directory / "through" / file).read_bytes()


UNDER = {
    "threads": 2, "device": "cpu",
    "versions": dict.fromkeys(("rl-lab", "torch", "transformers"), "1"),
}  # fmt: skip


def test_how_often_it_saves_changes_no_hash() -> None:
    before = hashes(recipes.load(LanguageRecipe, "movie-reviews"), UNDER)
    changes: dict[str, Any] = {
        f"{stage}.checkpoint_every": 7 for stage in ("pretrain", "reward", "ppo")
    }
    assert hashes(recipes.load(LanguageRecipe, "movie-reviews", changes), UNDER) == before
    other = hashes(recipes.load(LanguageRecipe, "movie-reviews", {"pretrain.steps": 7}), UNDER)
    assert other["ppo"] != before["ppo"]


def test_stages_that_ran_before_are_still_found() -> None:
    """A new setting that changes no result must not make every user compute everything again.

    Where results do change, by the recipe or by VERSION, so do these.
    """
    found = hashes(recipes.load(LanguageRecipe, "movie-reviews"), UNDER)
    assert {name: inputs[:16] for name, inputs in found.items()} == {
        "data": "36c953cbc123386d",
        "pretrain": "c6d78c97ee3f88f4",
        "reward": "039d6d756dd79ac6",
        "judges": "3a38785317cc2978",
        "ppo": "0476dd29bafda6bf",
        "evaluate": "373a931cf810387a",
    }
    without = {"reward.linear": []}  # which there once was no key for
    found = hashes(recipes.load(LanguageRecipe, "movie-reviews", without), UNDER)
    assert found["reward"].startswith("3eb60cc81b905ecd")


@pytest.mark.parametrize("file", ["config.json", "pieces.json", "members/words/pieces.json"])
def test_another_reward_model_at_the_same_place_is_another_input(tmp_path: Path, file: str) -> None:
    place = tmp_path / "model"
    (place / file).parent.mkdir(parents=True)
    (place / file).write_text("{}")
    changes = {"ppo.rewards": {"reward": {"model": str(place)}}}
    recipe = recipes.load(LanguageRecipe, "movie-reviews", changes)
    before = hashes(recipe, UNDER)["ppo"]
    (place / file).with_name("weights").write_text("others")
    assert hashes(recipe, UNDER)["ppo"] != before


@pytest.mark.parametrize(
    ("files", "overrides", "sentence"),
    [
        ({}, {"data.preferences": "nowhere.jsonl"}, "there is no such file"),
        ({}, {"data.texts": None}, "data.texts is required"),
        ({}, {"data.prompts": None}, "no pair of pairs.jsonl has a prompt; set data.prompts"),
        ({"pairs.jsonl": '{"chosen": "a b c"}\n' * 9}, {"data.bad_rows": "refuse"}, "rejected"),
        ({"pairs.jsonl": "not json\n" * 9}, {}, "line 1"),
        ({"pairs.jsonl": ""}, {}, "pairs.jsonl"),
        ({}, {"ppo.policy": "./nowhere"}, "there is no such directory"),
        ({}, {"reward": None}, "there is no reward section"),
        ({}, {"ppo.rewards": {"r": {"function": "lenght-window"}}}, "did you mean"),
        ({}, {"ppo.sampling.max_new_tokens": 64}, "leaves no room for a prompt"),
        ({}, {"ppo.sampling.stop": ["a stop of several tokens"]}, "is not one token"),
        ({}, {"device": "cuda"}, "torch finds none here"),
        ({"points.jsonl": '{"text": "a", "score": "x"}\n'}, {}, "points.jsonl, line 1"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(
    lab: Lab, folder: Path, files: dict[str, str], overrides: dict[str, Any], sentence: str
) -> None:
    for name, content in files.items():
        (folder / name).write_text(content)
    options = [
        text for key, value in overrides.items() for text in (f"--{key}", json.dumps(value))
    ]  # fmt: skip
    done = lab("train", "mine.yaml", "--quiet", *options, cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_under_another_version_it_goes_on_and_says_so(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    changes = {"judges": None, "ppo": None, "evaluate": None}
    recipe = recipes.load(LanguageRecipe, "mine.yaml", changes)
    run = Run.create("versions", recipe, [], recipe.seed, recipe.threads)
    with StopRequest() as stop:
        keep = stage_cache.keep

        def keep_and_stop(name: str, *arguments: Any) -> None:
            keep(name, *arguments)
            if name == "pretrain":
                stop.signal = signal.SIGTERM

        monkeypatch.setattr(stage_cache, "keep", keep_and_stop)
        assert experiment.train(run, recipe, stop) == "stopped"
    monkeypatch.setattr(stage_inputs, "version", lambda package: "0.0")
    with StopRequest() as stop:
        assert experiment.train(run, recipe, stop) == "finished"
    said = capsys.readouterr().err
    assert "note: pretrain: it goes on with" in said
    assert f"torch 0.0 (was {torch.__version__.partition('+')[0]}" in said
    kept = {path.name.partition("-")[0] for path in (own_cache / "stages").iterdir()}
    assert kept == {"data", "pretrain"}  # what stands on both versions is nobody else's
