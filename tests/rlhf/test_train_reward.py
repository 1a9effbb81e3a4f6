"""The reward stage on comparisons whose reason is known: who counts more good words wins."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from reward_models.text import TextRewardModel, encode, quiet
from rl_lab.errors import UserError
from rl_lab.metrics import MetricLog, numbers_of, read_metrics
from rl_lab.rlhf import reward_report, rewards
from rl_lab.rlhf.jsonl import write_jsonl
from rl_lab.rlhf.preference_trainer import Comparisons, GroupSampler, load_base
from rl_lab.rlhf.recipe import Reward
from rl_lab.rlhf.reward_data import add_words, read_pairs, reward_tokenizer, tokenized
from rl_lab.rlhf.train_reward import train_reward
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest

WORDS = ["good", "bad", "film", "plot", "the", "a"]
SECTION = Reward(members=2, epochs=1, batch=56, learning_rate=5e-3, max_tokens=16)


def save_base(path: Path, **changes: Any) -> None:
    """A Llama of one layer with random weights, and its tokenizer of whole words."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        unk_token="<unk>", padding_side="left",
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, **changes,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_base(tmp_path / "model")
    return tmp_path / "model"


def make_pairs(groups: int, seed: int) -> list[dict[str, Any]]:
    """Groups of 4 texts; people like one more `good`, less `bad`, by a logistic vote."""
    rng = np.random.default_rng(seed)
    pairs = []
    for group in range(groups):
        texts = [" ".join(rng.choice(WORDS, size=rng.integers(2, 9))) for _ in range(4)]
        worth = [text.count("good") - text.count("bad") for text in texts]
        for i in range(4):
            for j in range(4):
                if worth[i] > worth[j]:
                    margin = float(worth[i] - worth[j])
                    share = float(1 / (1 + np.exp(-margin)))
                    pairs.append(
                        {"prompt": "", "chosen": texts[i], "rejected": texts[j],
                         "share": share, "margin": margin, "group": group}
                    )  # fmt: skip
    return pairs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    write_jsonl(path / "pairs-train.jsonl", make_pairs(600, seed=0))
    write_jsonl(path / "pairs-heldout.jsonl", make_pairs(60, seed=1))
    return path


def train(path: Path, data: Path, base: Path, section: Reward = SECTION, seed: int = 0) -> Run:
    path.mkdir()
    run = Run(path)
    with MetricLog(run.metrics_file) as log, StopRequest() as stop:
        train_reward(section, data, base, run, log, stop, seed=seed, device="cpu")
    return run


def test_the_stage_learns_the_preference(
    tmp_path: Path, data: Path, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "reward", data, base)

    report = json.loads((run.path / "report.json").read_text())
    assert report["ensemble"]["accuracy"]["all"]["mean"] > 0.97
    assert (
        report["ensemble"]["calibration"]["votes"]["ece"] < 0.05
    )  # of the votes, which are known here
    assert len(report["members"]) == 2
    assert report["members"][0] != report["members"][1]
    assert report["ceiling"] is None

    records = read_metrics(run.metrics_file)
    steps, losses = numbers_of(records, "train/loss")
    assert run.status["budget"] == run.status["step"] == steps[-1]
    assert losses[0] > losses[-1]
    assert numbers_of(records, "train/accuracy")[1][-1] > 0.9
    assert numbers_of(records, "eval/accuracy")[1] == [
        member["accuracy"]["all"]["mean"] for member in report["members"]
    ]

    # Loaded by anybody, a member reads texts as it was trained to.
    member = TextRewardModel(run.path / "members" / "0")
    good, bad = member(["the film", "the film"], [" good good", " bad bad"]).tolist()
    assert good > bad
    assert capfd.readouterr() == ("", "")  # screens belong to the dashboard


def test_linear_members_stand_beside_the_transformers(
    tmp_path: Path, data: Path, base: Path
) -> None:
    section = SECTION.model_copy(update={"linear": ["words", "characters"]})
    run = train(tmp_path / "reward", data, base, section)
    report = json.loads((run.path / "report.json").read_text())
    assert len(report["members"]) == 4
    assert all(member["accuracy"]["all"]["mean"] > 0.9 for member in report["members"][2:])
    assert numbers_of(read_metrics(run.metrics_file), "reward/member")[1][-4:] == [0, 1, 2, 3]

    # One that is there is kept; of one that is not, there comes the same.
    words, characters = (run.path / "members" / kind for kind in ("words", "characters"))
    before = {kind: (kind / "linear.safetensors").read_bytes() for kind in (words, characters)}
    shutil.rmtree(words)
    (characters / "kept").touch()
    with MetricLog(run.metrics_file) as log, StopRequest() as stop:
        train_reward(section, data, base, run, log, stop, seed=0, device="cpu")
    assert (characters / "kept").exists()
    assert {kind: (kind / "linear.safetensors").read_bytes() for kind in before} == before

    # Together they are one reward, which the ensemble's report is about.
    scorer = rewards.load_members(str(run.path), "reward", "cpu", bf16=False)
    assert len(scorer) == 4
    pairs = read_pairs(data / "pairs-heldout.jsonl", heldout=True)
    scores = np.mean([reward_report.pair_scores(member, pairs) for member in scorer], axis=0)
    agreed = reward_report.judge(scores, pairs)["accuracy"]["all"]["mean"]
    assert agreed == report["ensemble"]["accuracy"]["all"]["mean"]


def test_texts_without_words_are_a_sentence(tmp_path: Path, data: Path, base: Path) -> None:
    pairs = [{"prompt": "", "chosen": "!", "rejected": "?", "group": None}] * 4
    write_jsonl(data / "pairs-train.jsonl", pairs)
    section = SECTION.model_copy(update={"linear": ["words"], "members": 1})
    with pytest.raises(
        UserError, match=r"reward.linear: the texts of 4 pairs have no words in common"
    ):
        train(tmp_path / "reward", data, base, section)


@pytest.mark.parametrize("reading", ["causal", "bidirectional"])
def test_a_member_starts_from_the_bases_weights(base: Path, reading: str) -> None:
    with quiet():
        model = load_base(base, reading, "cpu")
    weights, pretrained = model.state_dict(), load_file(base / "model.safetensors")
    layers = {name for name in pretrained if name.startswith("model.")}
    assert len(layers) > 5
    assert all(torch.equal(weights[name], pretrained[name]) for name in layers)
    # Does the first token's state depend on the last token?
    ids = torch.tensor([[1, 4, 5, 2], [1, 4, 5, 6]])
    first = model.eval().model(input_ids=ids).last_hidden_state[:, 0]
    assert torch.equal(first[0], first[1]) == (reading == "causal")


def test_only_a_llama_becomes_bidirectional(base: Path, tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=8)).save_pretrained(
        tmp_path / "gpt2"
    )
    with pytest.raises(UserError, match="needs a llama, and this is a gpt2"):
        load_base(tmp_path / "gpt2", "bidirectional", "cpu")
    with quiet():
        assert load_base(tmp_path / "gpt2", "auto", "cpu").num_labels == 1


def test_the_same_seed_gives_the_same_model(tmp_path: Path, data: Path, base: Path) -> None:
    section = SECTION.model_copy(update={"members": 1, "epochs": 0.2})
    weights = [
        (train(tmp_path / name, data, base, section, seed).path / "members/0/model.safetensors")
        .read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]  # fmt: skip
    assert weights[0] == weights[1] != weights[2]


def test_stopping_stops(tmp_path: Path, data: Path, base: Path) -> None:
    run = Run(tmp_path / "reward")
    run.path.mkdir()
    stop = StopRequest()
    stop.signal = 15
    with MetricLog(run.metrics_file) as log, pytest.raises(Stopped):
        train_reward(SECTION, data, base, run, log, stop, seed=0, device="cpu")


def test_a_text_is_read_once_and_compared_often(base: Path) -> None:
    pairs = make_pairs(5, seed=2)
    dataset, _ = tokenized(pairs, reward_tokenizer(base), max_tokens=16, soft_labels=True)
    batch = Comparisons(pad_token_id=0)(list(dataset))
    rows = [
        row[mask.bool()].tolist()
        for part in batch["forwards"]
        for row, mask in zip(part["input_ids"], part["attention_mask"], strict=True)
    ]
    assert len(rows) == len({pair[side] for pair in pairs for side in ("chosen", "rejected")})
    assert [rows[index] for index in batch["chosen"]] == list(dataset["chosen_ids"])
    assert [rows[index] for index in batch["rejected"]] == list(dataset["rejected_ids"])
    assert [row[0] for row in rows] == [1] * len(rows)  # <bos>
    assert [row[-1] for row in rows] == [2] * len(rows)  # <eos>


def test_hard_labels_are_used_where_votes_are_unknown_or_unwanted(base: Path) -> None:
    pairs = [
        {"prompt": "", "chosen": "good", "rejected": "bad", "share": 0.7},
        {"prompt": "", "chosen": "good film", "rejected": "bad", "share": None},
    ]
    tokenizer = reward_tokenizer(base)
    assert list(tokenized(pairs, tokenizer, 16, soft_labels=True)[0]["share"]) == [0.7, 1.0]
    assert list(tokenized(pairs, tokenizer, 16, soft_labels=False)[0]["share"]) == [1.0, 1.0]


def test_a_margin_is_what_scores_should_differ_by(tmp_path: Path, data: Path, base: Path) -> None:
    def gap(margin: float | None) -> float:
        """Mean score difference that is learned where votes are unknown."""
        pairs = [pair | {"share": None, "margin": margin} for pair in make_pairs(300, seed=0)]
        write_jsonl(data / "pairs-train.jsonl", pairs)
        run = train(tmp_path / f"margin-{margin}", data, base, SECTION.model_copy(
            update={"members": 1}))  # fmt: skip
        model = TextRewardModel(run.path / "members" / "0")
        held = make_pairs(20, seed=3)
        one, other = ([pair[side] for pair in held] for side in ("chosen", "rejected"))
        empty = [""] * len(held)
        return float((model(empty, one) - model(empty, other)).mean())

    without = gap(None)
    assert gap(0.0) == without
    assert gap(4.0) > without + 2


def test_votes_say_how_sure_people_were_so_their_margin_is_not_learned(base: Path) -> None:
    pair = {"prompt": "", "chosen": "good", "rejected": "bad", "margin": 2.0}
    pairs = [pair | {"share": 0.7}, pair | {"share": None}, pair]
    dataset, _ = tokenized(pairs, reward_tokenizer(base), 16, soft_labels=False)
    assert list(dataset["margin"]) == [0.0, 2.0, 2.0]


def test_no_more_tokens_than_the_base_has_positions(tmp_path: Path, data: Path) -> None:
    save_base(tmp_path / "short", max_position_embeddings=8)
    run = train(tmp_path / "reward", data, tmp_path / "short")
    report = json.loads((run.path / "report.json").read_text())
    assert report["dropped"]["longer than max_tokens"] > 0
    assert len(report["members"]) == 2
    (event,) = (line for line in read_metrics(run.metrics_file) if line.get("event") == "dropped")
    assert "longer than 8 tokens" in event["message"]


def test_groups_stay_together_in_another_order_each_epoch() -> None:
    groups = [0, 0, 1, 1, 1, 2, 3, 3]
    sampler = GroupSampler(groups, seed=0)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second
    changes = sum(groups[a] != groups[b] for a, b in itertools.pairwise(first))
    assert changes == 3


def test_too_long_pairs_are_counted_or_all_too_long(tmp_path: Path, data: Path, base: Path) -> None:
    dataset, too_long = tokenized(make_pairs(50, 0), reward_tokenizer(base), 6, True)
    assert too_long > 0
    assert max(map(len, [*dataset["chosen_ids"], *dataset["rejected_ids"]])) <= 6
    with pytest.raises(UserError, match=r"no pair in .*; raise reward\.max_tokens"):
        train(tmp_path / "reward", data, base, SECTION.model_copy(update={"max_tokens": 2}))


def test_no_pairs_are_an_error_that_names_the_file(tmp_path: Path, base: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"no preference pairs in .*pairs-train\.jsonl"):
        train(tmp_path / "reward", tmp_path / "data", base)


def test_a_base_that_is_none_is_an_error(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(tmp_path / "reward", data, tmp_path / "nowhere")


def test_words_the_base_does_not_know_are_added(tmp_path: Path, base: Path) -> None:
    tokenizer = reward_tokenizer(base)
    before = encode(tokenizer, "", "good film")
    texts = ["listless film", "a listless plot", "unique film"]
    pairs = [{"prompt": "", "chosen": "good", "rejected": text} for text in texts]
    assert add_words(tokenizer, pairs) == 1  # `listless` is in two texts, `unique` in one
    assert encode(tokenizer, "", "good film") == before
    assert encode(tokenizer, "", "listless unique")[1:3] == [10, tokenizer.unk_token_id]
    tokenizer.save_pretrained(tmp_path / "again")
    assert encode(reward_tokenizer(tmp_path / "again"), "", "listless")[1] == 10
    assert add_words(tokenizer, pairs) == 0


def test_a_model_with_added_words_can_be_asked(tmp_path: Path, data: Path, base: Path) -> None:
    pairs = make_pairs(30, seed=0)
    for pair in pairs:
        pair["chosen"] += " riveting"
    write_jsonl(data / "pairs-train.jsonl", pairs)
    run = train(tmp_path / "reward", data, base, SECTION.model_copy(update={"members": 1}))
    member = TextRewardModel(run.path / "members" / "0")
    assert member.model.config.vocab_size == len(member.tokenizer) == 11
    assert member([""], ["riveting"]) > member([""], ["film"])


def test_specials_are_saved_with_the_tokenizer(tmp_path: Path, base: Path) -> None:
    tokenizer = reward_tokenizer(base)
    assert encode(tokenizer, "the", " film")[:1] == [tokenizer.bos_token_id]
    tokenizer.save_pretrained(tmp_path / "again")
    again = reward_tokenizer(tmp_path / "again")  # adds them by itself now: not twice
    assert encode(again, "the", " film") == encode(tokenizer, "the", " film")
