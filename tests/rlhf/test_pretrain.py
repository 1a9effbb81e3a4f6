"""The pretrain stage: it learns, keeps the best, and tells honestly how well."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from rl_lab.errors import UserError
from rl_lab.metrics import MetricLog, Record, numbers_of, read_metrics
from rl_lab.rlhf import language_model
from rl_lab.rlhf import tokenizer as tokenizers
from rl_lab.rlhf.bits import Sample, Spelling, forward
from rl_lab.rlhf.jsonl import write_jsonl
from rl_lab.rlhf.optimizers import optimizers_for
from rl_lab.rlhf.packing import pack
from rl_lab.rlhf.pretrain import pretrain, schedule
from rl_lab.rlhf.recipe import Pretrain
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "architecture": LLAMA, "tokenizer": {"vocabulary": 300}, "batch_tokens": 256, "context": 32,
    "steps": 60, "evaluate_every": 20, "evaluation_tokens": 1_000, "learning_rate": 1e-2,
}  # fmt: skip


def write_texts(path: Path, count: int, seed: int) -> None:
    """Sentences of a grammar in which what is good stays good to the end."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        good = rng.random() < 0.5
        word = rng.choice(["great", "fine", "superb"] if good else ["poor", "dull", "awful"])
        thing = rng.choice(["film", "plot", "cast", "music", "ending", "script"])
        end = "recommended" if good else "avoid it"
        rows.append({"text": f"The {thing} is {word}, and so is the rest: {end}."})
    write_jsonl(path, rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    write_texts(directory / "texts-train.jsonl", 1_500, 0)
    write_texts(directory / "texts-heldout.jsonl", 100, 1)
    return directory


def train(data: Path, path: Path, run_seed: int = 0, **changes: Any) -> tuple[dict, list[Record]]:
    """Run the stage; return its report and its metrics."""
    path.mkdir()
    run = Run(path)
    with MetricLog(run.metrics_file) as log:
        section = Pretrain(**(SMALL | changes))
        pretrain(section, data, run, log, StopRequest(), seed=run_seed, device="cpu")
    return json.loads((path / "report.json").read_text()), read_metrics(run.metrics_file)


def test_it_learns_what_is_to_be_learned_and_leaves_a_model(data: Path, tmp_path: Path) -> None:
    report, records = train(data, tmp_path / "run", steps=120)
    # The grammar chooses one of 6 things and one of 6 words; the word says the end, which four
    # tokens cannot remember: that costs them one bit.
    texts = [json.loads(line)["text"] for line in (data / "texts-heldout.jsonl").open()]
    length = sum(map(len, texts)) / len(texts)
    floor = 2 * math.log2(6) / length
    assert 0.95 * floor < report["heldout_bits_per_character"] < 1.15 * floor
    assert report["ngram_bits_per_character"] == pytest.approx(floor + 1 / length, rel=0.05)
    assert numbers_of(records, "eval/bits_per_character")[0] == [20, 40, 60, 80, 100, 120]
    assert numbers_of(records, "train/loss")[0] == list(range(10, 130, 10))
    assert {"eval/gap", "train/bits_per_character"} <= set().union(*records)
    assert Run(tmp_path / "run").status["budget"] == 120

    model, tokenizer = language_model.load(tmp_path / "run" / "model", "cpu")
    start = torch.tensor([[tokenizer.bos_token_id, *tokenizer("The plot is dull").input_ids]])
    written = model.generate(start, do_sample=False, max_new_tokens=20)[0]
    assert written[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(written, skip_special_tokens=True)
    assert text == "the plot is dull, and so is the rest: avoid it."


def test_the_same_seed_gives_the_same_model_and_another_one_another(
    data: Path, tmp_path: Path
) -> None:
    short = {"steps": 4, "evaluate_every": 2}
    first = train(data, tmp_path / "a", **short)[0]
    again = train(data, tmp_path / "b", **short)[0]
    other = train(data, tmp_path / "c", run_seed=1, **short)[0]
    pinned = train(data, tmp_path / "d", run_seed=1, seed=0, **short)[0]
    key = "heldout_bits_per_character"
    assert pinned[key] == first[key]
    assert first[key] == again[key] != other[key]
    assert first["samples"] == again["samples"]


def test_bytes_have_no_unknown_words(data: Path, tmp_path: Path) -> None:
    bpe = {"kind": "bpe", "vocabulary": 300}
    report, _ = train(data, tmp_path / "run", tokenizer=bpe, context=32, steps=60)
    assert report["unknown_share"] == 0
    assert report["heldout_bits_per_character"] < 1.5


def test_it_stops_early_and_keeps_the_best(data: Path, tmp_path: Path) -> None:
    # Texts without a rule, learned by heart: the held-out loss turns, the gap opens.
    rng = random.Random(0)
    for name in ("texts-train.jsonl", "texts-heldout.jsonl"):
        rows = [{"text": " ".join(rng.choices("abcdefgh", k=20))} for _ in range(30)]
        write_jsonl(data / name, rows)
    report, records = train(data, tmp_path / "run", steps=300, evaluate_every=10, patience=2)
    steps, bits = numbers_of(records, "eval/bits_per_character")
    assert steps[-1] < 300
    assert report["heldout_bits_per_character"] == min(bits)
    assert steps.index(report["step"]) == len(steps) - 3
    gaps = numbers_of(records, "eval/gap")[1]
    assert gaps[-1] > gaps[0]
    assert any(record.get("event") == "early-stop" for record in records)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_mixture_of_experts(data: Path, tmp_path: Path, optimizer: str) -> None:
    mixtral = LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    report, _ = train(data, tmp_path / "run", architecture=mixtral, optimizer=optimizer, steps=40)
    assert report["heldout_bits_per_character"] < 0.3


def test_balancing_reaches_the_router() -> None:
    tokenizer = tokenizers.train(["the film is fine."], "word", 300, True, 32)
    mixtral = LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    model = language_model.build(mixtral, tokenizer)
    rows = pack(tokenizers.encode(tokenizer, ["the film is fine."]), 32, 0)
    auxiliary = forward(model, rows, torch.arange(1), "cpu")[2]
    # coefficient x (at least 2 chosen experts, where the load is even)
    assert auxiliary.item() >= 2 * model.config.router_aux_loss_coef * 0.99
    auxiliary.backward()
    gates = [p.grad for name, p in model.named_parameters() if name.endswith("gate.weight")]
    assert gates
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gates)


def test_an_unknown_word_pays_for_its_spelling() -> None:
    texts = ["the film is fine.", "the cast is superb.", "a plot, a cast, a film."]
    tokenizer = tokenizers.train(["the film is fine."], "word", 300, True, 32)
    spelling = Spelling(tokenizer, texts)
    short, long, strange = (
        Sample.of([text], tokenizer, spelling, 32)
        for text in ("the cast is fine.", "the superbcast is fine.", "the \u0416\u0416 is fine.")
    )
    known = Sample.of(["the film is fine."], tokenizer, spelling, 32)
    assert known.spelling == 0 == known.unknown_share
    assert 0 < short.spelling < long.spelling
    assert strange.spelling > 2 * math.log(0x110000)
    assert short.unknown_share == pytest.approx(1 / 5)
    # 5 tokens of 1 bit over 17 characters, and an end of 1 bit.
    assert known.bits_per_character(6 * math.log(2)) == pytest.approx(6 / 17)


def test_muon_takes_the_matrices_inside_the_blocks_alone() -> None:
    tokenizer = tokenizers.train(["the film is fine."], "word", 300, True, 32)
    model = language_model.build(LLAMA, tokenizer)
    adamw, muon = optimizers_for(model, "muon", 0.1)
    inside = {id(p) for group in muon.param_groups for p in group["params"]}
    outside = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert inside == {id(p) for n, p in model.named_parameters() if "proj" in n}
    assert inside | outside == {id(p) for p in model.parameters()}
    assert not inside & outside
    assert adamw.param_groups[1]["weight_decay"] == 0


def test_schedule() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1
    assert 0 < rates[-1] < 0.02
    assert schedule(1, 1, 0.0) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"context": 64}, r"pretrain\.context.*max_position_embeddings"),
        ({"learning_rate": 1e30}, r"lower pretrain\.learning_rate"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    data: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        train(data, tmp_path / "run", **changes)


def test_samples_keep_within_learned_positions(data: Path, tmp_path: Path) -> None:
    # Three "words" without spaces are a paragraph.
    rows = [{"text": "沒有空格的一段話" * 5}] * 20
    write_jsonl(data / "texts-heldout.jsonl", rows)
    gpt2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    words = {"vocabulary": 300, "kind": "bpe"}
    report, _ = train(data, tmp_path / "run", architecture=gpt2, tokenizer=words, steps=20)
    assert len(report["samples"]) == 8


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"texts-train\.jsonl"):
        train(tmp_path, tmp_path / "run")


def test_it_stops_when_asked(data: Path, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.signal = 15
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    with MetricLog(run.metrics_file) as log, pytest.raises(Stopped):
        pretrain(Pretrain(**SMALL), data, run, log, stop, seed=0, device="cpu")
    assert not (run.path / "model").exists()
