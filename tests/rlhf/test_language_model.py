"""Loading and building causal language models: what is taken, what is refused, and how."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rl_lab.errors import UserError
from rl_lab.rlhf import language_model
from rl_lab.rlhf import tokenizer as tokenizers
from rl_lab.rlhf.bits import forward
from rl_lab.rlhf.packing import pack

TEXTS = ["the film is a surprise, and sometimes well made.", "it is not.", "a film, and a good one"]
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tokenizers.train(TEXTS, "word", 300, lowercase=True, max_length=32)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> Path:
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def small_llama(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        **{key: value for key, value in LLAMA.items() if key != "model_type"},
    }  # fmt: skip


@pytest.fixture
def saved(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    return save(language_model.build(LLAMA, tokenizer), tokenizer, tmp_path / "model")


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    content |= changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


# --- loading -------------------------------------------------------------------------------------


def test_a_built_model_comes_back(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    built = language_model.build(LLAMA, tokenizer)
    model, back = language_model.load(save(built, tokenizer, tmp_path), "cpu")
    for name, weight in built.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert not model.training
    assert model.dtype == torch.float32
    assert back.get_vocab() == tokenizer.get_vocab()
    assert (back.pad_token_id, back.eos_token_id) == (0, 2)


def test_gpt2_without_pad_token_pads_left_with_its_end_token(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32)
    save(GPT2LMHeadModel(config), tokenizer, tmp_path)
    edit(tmp_path / "tokenizer_config.json", pad_token=None, padding_side="right")
    model, loaded = language_model.load(tmp_path, "cpu")
    assert loaded.pad_token_id == loaded.eos_token_id == model.generation_config.pad_token_id
    assert loaded(["the", "the film"], padding=True).attention_mask == [[0, 1, 1], [1, 1, 1]]


def test_no_end_token(saved: Path) -> None:
    edit(saved / "tokenizer_config.json", eos_token=None)
    with pytest.raises(UserError, match="has no end token"):
        language_model.load(saved, "cpu")


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        language_model.load(tmp_path, "cpu")


def test_pickled_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    torch.save({}, saved / "pytorch_model.bin")
    with pytest.raises(UserError, match="only safetensors"):
        language_model.load(saved, "cpu")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_its_own(saved: Path, file: str) -> None:
    edit(saved / file, auto_map={"AutoModelForCausalLM": "evil.Model"})
    (saved / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UserError, match="code of its own"):
        language_model.load(saved, "cpu")


def test_a_reward_model(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = LlamaForSequenceClassification(LlamaConfig(**small_llama(tokenizer), num_labels=1))
    with pytest.raises(UserError, match="reward model"):
        language_model.load(save(model, tokenizer, tmp_path), "cpu")


def test_an_encoder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=16)  # fmt: skip
    with pytest.raises(UserError, match="no causal language model"):
        language_model.load(save(BertForMaskedLM(config), tokenizer, tmp_path), "cpu")


def test_weights_that_would_be_random(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    headless = LlamaModel(LlamaConfig(**small_llama(tokenizer)))
    save(headless, tokenizer, tmp_path)
    edit(tmp_path / "config.json", architectures=["LlamaForCausalLM"])
    with pytest.raises(UserError, match=r"lm_head\.weight"):
        language_model.load(tmp_path, "cpu")


def test_a_tokenizer_of_another_model(saved: Path) -> None:
    tokenizers.train(TEXTS, "bpe", 300, True, 32).save_pretrained(saved)
    with pytest.raises(UserError, match="the model embeds"):
        language_model.load(saved, "cpu")


def test_damaged_files(saved: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        copy = tmp_path / f"damaged-{name}"
        shutil.copytree(saved, copy)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match="cannot be read"):
            language_model.load(copy, "cpu")


# --- building ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "lama"}, r"model_type: 'lama' is no causal language model; .*'llama'"),
        ({"model_type": None}, "is no causal language model"),
        ({"model_type": "t5"}, "is no causal language model"),
        ({"hiden_size": 16}, r"hiden_size: llama has no such setting; did you mean 'hidden_size'"),
        ({"num_attention_heads": 3}, "architecture"),
        ({"hidden_size": "wide"}, "architecture"),
        ({"hidden_size": 1_000_000}, "GiB"),
        ({"auto_map": {"AutoConfig": "evil.Config"}}, "no such setting"),
    ],
)
def test_an_architecture_that_cannot_be(
    tokenizer: PreTrainedTokenizerFast, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        language_model.build(LLAMA | changes, tokenizer)


def test_vocabulary_and_special_tokens_are_filled_in(tokenizer: PreTrainedTokenizerFast) -> None:
    config = language_model.build(LLAMA, tokenizer).config
    assert config.vocab_size == len(tokenizer)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)


# --- packing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mixtral"])
def test_packed_sequences_are_predicted_as_if_alone(
    tokenizer: PreTrainedTokenizerFast, model_type: str
) -> None:
    architecture = {
        "llama": LLAMA,
        "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
        "mixtral": LLAMA | {"model_type": "mixtral", "num_local_experts": 4},
    }[model_type]
    torch.manual_seed(0)
    model = language_model.build(architecture, tokenizer).eval()
    sequences = tokenizers.encode(tokenizer, TEXTS)
    rows = pack(sequences, 32, tokenizer.pad_token_id)
    assert len(rows) == 1
    with torch.no_grad():
        logits, targets, _ = forward(model, rows, torch.arange(1), "cpu")
        alone = [model(torch.tensor([sequence])).logits[0, :-1] for sequence in sequences]
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-5, rtol=0)
    assert targets.tolist() == [token for sequence in sequences for token in sequence[1:]]


def test_a_long_sequence_is_cut_and_each_token_predicted_once() -> None:
    sequence = [1, *range(10, 40), 2]
    rows = pack([sequence, [1, 5, 2]], 8, pad=0)
    labels = rows.labels(slice(None))
    assert sorted(labels[labels != -100].tolist()) == sorted([*sequence[1:], 5, 2])
    assert rows.tokens.shape[1] == 8


def test_hardly_a_token_is_wasted() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 45, (2_000,), generator=generator).tolist()
    rows = pack([[1] * length for length in lengths], 128, pad=0)
    assert sum(lengths) / rows.tokens.numel() > 0.98
