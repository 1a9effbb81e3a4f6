"""Tokenizers: text comes back, prompts and completions join, specials stay special."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rl_lab.errors import UserError
from rl_lab.rlhf import tokenizer as tokenizers

TEXTS = [
    "The film is a surprising, and sometimes very well made.",
    "I don't think it's \"great\"... 10/10 for the actors' well-made film!",
    "An über-cool (if silly) movie; the film's heart -- and soul -- is there.",
]


@pytest.fixture(scope="module", params=["word", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return tokenizers.train(TEXTS, request.param, 400, lowercase=True, max_length=64)


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_with_its_punctuation_in_place(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = tokenizers.encode(tokenizer, [text])[0]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.lower()


def test_case_is_kept_on_demand() -> None:
    tokenizer = tokenizers.train(TEXTS, "word", 400, lowercase=False, max_length=64)
    assert tokenizer.decode(tokenizer(TEXTS[0]).input_ids, skip_special_tokens=True) == TEXTS[0]


@given(text=st.text(max_size=60))
def test_any_text_comes_back_from_bpe(text: str) -> None:
    tokenizer = _bpe()
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    back = tokenizer.decode(ids, skip_special_tokens=True)
    assert back == tokenizers.normalize(tokenizer, text)


_made: list[PreTrainedTokenizerFast] = []


def _bpe() -> PreTrainedTokenizerFast:
    if not _made:
        _made.append(tokenizers.train(TEXTS, "bpe", 300, lowercase=True, max_length=64))
    return _made[0]


def test_prompt_and_completion_are_the_same_tokens_apart_as_together(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for prompt, completion in (("The film", " is a surprising film."), ("I", " don't, the")):
        together = tokenizer(prompt + completion).input_ids
        apart = tokenizer(prompt).input_ids + tokenizer(completion).input_ids[1:]
        assert apart == together


def test_special_tokens_are_distinct_never_added_and_never_read_from_text(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        specials = {one.pad_token_id, one.bos_token_id, one.eos_token_id}
        assert len(specials) == 3
        assert None not in specials
        assert one.padding_side == "left"
        assert not specials & set(one("film<eos><pad> film <bos>").input_ids[1:])
        encoded = tokenizers.encode(one, ["the<eos>"])[0]
        assert encoded[0] == one.bos_token_id
        assert encoded.count(one.eos_token_id) == 1
        assert one.decode(encoded, skip_special_tokens=True).startswith("the")


def test_unknown_words_are_found_as_they_were_split() -> None:
    tokenizer = tokenizers.train(["the film is the film"], "word", 10, True, 64)
    assert tokenizers.unknown_words(tokenizer, ["the Zebra film", "Is"]) == [" zebra", "is"]


def test_the_most_frequent_words_are_kept() -> None:
    tokenizer = tokenizers.train(["a b b b c c"], "word", 6, False, 64)
    assert set(tokenizer.get_vocab()) == {"<pad>", "<bos>", "<eos>", "<unk>", " b", " c"}


def test_bpe_needs_room_for_all_bytes() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocabulary"):
        tokenizers.train(TEXTS, "bpe", 258, True, 64)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_ties_are_broken_alike_in_another_process(kind: str) -> None:
    """Resumed pretraining trains its tokenizer again; as many words are as frequent as the last."""
    script = (
        "import random, sys\n"
        "from rl_lab.rlhf import tokenizer\n"
        "draw = random.Random(0)\n"
        "texts = [''.join(draw.choices('abcde ', k=60)) for _ in range(400)]\n"
        f"trained = tokenizer.train(texts, {kind!r}, 400, True, 32)\n"
        "sys.stdout.write(trained.backend_tokenizer.to_str())"
    )
    trained = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(trained) == 1
    assert len(json.loads(trained.pop())["model"]["vocab"]) == 400
