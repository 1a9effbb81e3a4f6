"""A full disk under an experiment with language models: one sentence, and it goes on."""

from pathlib import Path

import pytest

from rl_lab import checkpoint, recipes
from rl_lab.cli import main
from rl_lab.files import StorageError
from rl_lab.rlhf import space
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.run import Run
from tests.full_disk import full_for, leftovers, limited, needs_proc
from tests.rlhf.conftest import Tiny

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


def test_the_room_an_experiment_takes_is_foreseen(folder: Path) -> None:
    recipe = recipes.load(LanguageRecipe, "mine.yaml")
    assert space.needed(recipe) == pytest.approx(1.2e6, rel=0.2)
    with_ppo = recipes.load(LanguageRecipe, "movie-reviews")
    assert space.needed(with_ppo) > 20 * space.needed(with_ppo.model_copy(update={"ppo": None})) / 8
