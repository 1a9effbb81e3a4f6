"""A full disk under an experiment with language models: one sentence, and it goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rl_lab import checkpoint, recipes
from rl_lab.cli import main
from rl_lab.files import StorageError
from rl_lab.metrics import read_metrics
from rl_lab.rlhf import language_model, space
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.run import Run
from tests.full_disk import full_for, leftovers, limited, needs_proc
from tests.rlhf.conftest import Tiny
from tests.rlhf.test_not_finite import mix, once

RECIPE = """
data: {texts: texts.txt}
pretrain:
  steps: 4
  evaluate_every: 2
  batch_tokens: 256
  context: 64
  tokenizer: {vocabulary: 300}
  architecture: {model_type: llama, hidden_size: 128, intermediate_size: 512, num_hidden_layers: 1,
    num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 64}
threads: 1
"""
LIMIT = 500_000
"""Bytes a file may have: half of what the model takes."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lines = (f"the film number {n} is {word}." for n in range(50) for word in "abcdefg")
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


def test_a_model_that_finds_no_room_ends_the_experiment_and_it_resumes(
    folder: Path, runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = limited(LIMIT, "train", "mine.yaml", "--name", "x", "--quiet")
    assert done.returncode == 1
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert "pretrain/model: File too large" in sentence
    assert "`rl-lab train --resume x` goes on with the stage 'pretrain' from its start" in sentence
    run = Run(runs_directory / "x")
    states = [Run(run.path / name).state for name in ("data", "pretrain")]
    assert states == ["finished", "failed"]
    assert run.state == "failed"
    assert run.status["reason"] in sentence
    assert leftovers(run.path) == []
    assert not (run.path / "pretrain" / "model").exists()

    with pytest.raises(SystemExit) as end:
        main(["train", "--resume", "x", "--quiet"])
    assert not end.value.code, capsys.readouterr().err
    assert run.state == "finished"
    assert (run.path / "pretrain" / "model" / "model.safetensors").is_file()


@needs_proc
@pytest.mark.parametrize(
    "what", ["/data/.report.json", "/pretrain/.status.json", "/x/.status.json"]
)
def test_whatever_cannot_be_written_is_one_sentence(
    what: str, folder: Path, runs_directory: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as patched:
        full_for([what], patched)
        with pytest.raises(SystemExit) as end:
            main(["train", "mine.yaml", "--name", "x", "--quiet"])
    assert end.value.code == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in sentence
    assert what.rpartition("/.")[2] in sentence
    assert leftovers(runs_directory) == []


@needs_proc
def test_what_went_wrong_first_is_said_where_nothing_can_be_written_any_more(
    folder: Path, runs_directory: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    full: list[str] = []
    real = language_model.save

    def save(*arguments: Any) -> None:
        full.append(str(runs_directory))
        real(*arguments)

    monkeypatch.setattr(language_model, "save", save)
    full_for(full, monkeypatch)
    with pytest.raises(SystemExit) as end:
        main(["train", "mine.yaml", "--name", "x", "--quiet"])
    assert end.value.code == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "pretrain/model: No space left on device" in sentence
    assert Run(runs_directory / "x").state == "died"  # its status could not be written


@needs_proc
@pytest.mark.parametrize("what", ["/best/", "/checkpoints/", "/.samples.jsonl"])
def test_ppo_keeps_what_it_has(what: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = tiny.settings()
    full: list[str] = [] if what == "/checkpoints/" else [what]
    save = checkpoint.save

    def full_later(parent: Path, snapshot: checkpoint.Snapshot) -> Path:
        if snapshot.step == 2:
            full.append(what)
        return save(parent, snapshot)

    monkeypatch.setattr(checkpoint, "save", full_later)
    full_for(full, monkeypatch)
    with pytest.raises(StorageError, match="No space left on device"):
        tiny.train(ppo)
    run = Run(tiny.directory / "ppo")
    assert leftovers(run.path) == []
    assert checkpoint.newest_whole(run.checkpoints) == (1 if what == "/checkpoints/" else None)

    full.clear()
    monkeypatch.setattr(checkpoint, "save", save)
    _, run, _ = tiny.train(ppo)
    assert checkpoint.newest_whole(run.checkpoints) == 2


@needs_proc
@pytest.mark.parametrize("what", ["/best/", "/checkpoints/"])
def test_ppo_that_can_do_without_snapshots_ends_in_the_same_weights(
    what: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = tiny.settings()
    undisturbed, *_ = tiny.train(ppo, name="undisturbed")
    full_for([what], monkeypatch)
    policy, run, records = tiny.train(ppo, snapshots_required=False)
    assert leftovers(run.path) == []
    assert checkpoint.newest_whole(run.path / what.strip("/")) is None
    failed = [record for record in records if record.get("event") == "checkpoint-failed"]
    assert [record["level"] for record in failed] == ["warning"] * len(failed)
    assert f"({len(failed)} so far)" in failed[-1]["message"]
    kept_last = [record for record in records if record.get("event") == "last"]
    assert bool(kept_last) == (what == "/best/")
    if not kept_last:
        for name, weights in undisturbed.trained_tensors().items():
            assert torch.equal(policy.trained_tensors()[name], weights)


@needs_proc
def test_a_rollback_without_a_snapshot_is_the_error_it_is(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = tiny.settings(health={"on_nan": "rollback"})
    full_for(["/checkpoints/"], monkeypatch)
    with pytest.raises(FloatingPointError, match="NaN"):
        tiny.train(ppo, snapshots_required=False, mix_loss=mix(once(1)))


@needs_proc
def test_the_recipe_says_whether_a_stage_goes_on_without_snapshots(
    folder: Path, runs_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_for(["/pretrain/checkpoints/"], monkeypatch)
    asked = ["--quiet", "--pretrain.checkpoint_every", "1"]
    with pytest.raises(SystemExit) as end:
        main(["train", "mine.yaml", "--name", "x", *asked])
    assert end.value.code == 1
    with pytest.raises(SystemExit) as end:
        main(["train", "mine.yaml", "--name", "y", *asked, "--checkpoints.required", "false"])
    assert not end.value.code
    records = read_metrics(Run(runs_directory / "y" / "pretrain").metrics_file)
    events = [record.get("event") for record in records]
    assert events.count("checkpoint-failed") == 3


def test_the_room_an_experiment_takes_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.load(LanguageRecipe, "movie-reviews")
    own = space._pretrained(recipe.pretrain)  # type: ignore[arg-type]
    assert own == pytest.approx(4 * 4e6, rel=0.5)  # some four million weights
    monkeypatch.setattr(space, "_pretrained", lambda section: 1)
    pretrain = recipe.model_copy(update={"ppo": None, "reward": None})
    reward = recipe.model_copy(update={"ppo": None})
    # The model, and three snapshots of it, of two moments a weight, and of the best so far.
    assert space.needed(pretrain) == 1 + 3 * (1 + 2 + 1)
    assert space.needed(reward) - space.needed(pretrain) == 3 + 3 * (1 + 2)
    # PPO: the model, three snapshots of policy and critic, and three best ones; with its output
    # layer beside the embedding, 6,000 words of 256 numbers.
    head = 4 * 6000 * 256
    ppo = (1 + head) * (1 + 2 * (3 * (1 + 2) + 3))
    assert space.needed(recipe) - space.needed(reward) == ppo
    tied = recipe.model_copy(update={"ppo": recipe.ppo.model_copy(update={"token_bias": None})})
    assert space.needed(tied) - space.needed(reward) == ppo // (1 + head)
