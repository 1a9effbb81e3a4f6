"""Preference pairs as a reward model reads them: whose words it knows, and as token ids."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from tokenizers import models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from reward_models.text import encode
from rl_lab.errors import UserError
from rl_lab.rlhf.jsonl import read_jsonl
from rl_lab.rlhf.language_model import load_tokenizer


def read_pairs(path: Path, *, heldout: bool) -> list[dict[str, Any]]:
    """Read the data stage's pairs; held-out ones that nobody prefers (margin 0) are left out.

    Raises:
        UserError: there are none.
    """
    pairs = read_jsonl(path) if path.is_file() else []
    if heldout:
        pairs = [pair for pair in pairs if pair.get("margin") != 0]
    if not pairs:
        raise UserError(
            f"there are no preference pairs in {path}; the reward stage needs some "
            "(data.preferences)"
        )
    return pairs


def tokenized(
    pairs: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    soft_labels: bool,
) -> tuple[Dataset, int]:
    """Turn pairs into what the trainer reads.

    Returns:
        Rows of `chosen_ids`, `rejected_ids`, `share` (in [0, 1]; 1 where votes are unknown or not
        asked for), `margin` (0 where there is none, or votes say how sure people were) and `group`;
        and how many pairs were too long.

    Raises:
        UserError: a pair cannot be encoded.
    """
    known: dict[str, list[int]] = {}

    def ids(prompt: Any, completion: Any) -> list[int]:
        key = json.dumps([prompt, completion])
        if key not in known:
            known[key] = encode(tokenizer, prompt, completion)
        return known[key]

    rows: list[dict[str, Any]] = []
    too_long = 0
    for number, pair in enumerate(pairs, start=1):
        try:
            chosen = ids(pair["prompt"], pair["chosen"])
            rejected = ids(pair["prompt"], pair["rejected"])
        except ValueError as error:
            raise UserError(f"training pair {number}: {error}") from None
        if max(len(chosen), len(rejected)) > max_tokens:
            too_long += 1
            continue
        share = pair.get("share") if soft_labels else None
        group = pair.get("group")
        rows.append(
            {
                "chosen_ids": chosen,
                "rejected_ids": rejected,
                "share": 1.0 if share is None else share,
                "margin": (pair.get("margin") or 0.0) if pair.get("share") is None else 0.0,
                "group": -number if group is None else group,
            }
        )
    return Dataset.from_list(rows), too_long


def reward_tokenizer(base: Path | str) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer, made to put a begin and an end token around a text.

    The score stands on the last token; on an end token it has one place, whatever the text ends
    with. A tokenizer that adds special tokens by itself is left as it is. What is added is saved
    with the member, so whoever loads it encodes texts alike.

    Raises:
        UserError: there is no usable tokenizer.
    """
    tokenizer = load_tokenizer(base)
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {str(base)!r} has no tokenizer.json; reward needs one")
    if tokenizer.num_special_tokens_to_add() == 0:
        begin = [tokenizer.bos_token] if tokenizer.bos_token else []
        tokens = [*begin, tokenizer.eos_token]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*begin, "$A", tokenizer.eos_token],
            special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens],
        )
    return tokenizer


def add_words(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[dict[str, Any]]) -> int:
    """Give a word-level tokenizer the words of the pairs that it does not know, in place.

    A language model's vocabulary holds frequent words; what people judge by is often rare
    ("listless", "riveting"). Unknown words cost a linear model of the movie reviews 1.3 (words)
    to 2.8 (word pairs) points of held-out accuracy. A word in one text alone teaches nothing.

    Returns:
        How many were added; 0 for a tokenizer of subwords, which knows every word.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if content["model"]["type"] != "WordLevel":
        return 0
    vocabulary = content["model"]["vocab"]
    texts = {
        turn if isinstance(turn, str) else " ".join(message["content"] for message in turn)
        for pair in pairs
        for turn in (pair["prompt"], pair["chosen"], pair["rejected"])
    }
    backend = tokenizer.backend_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        pieces = backend.pre_tokenizer.pre_tokenize_str(normal) if backend.pre_tokenizer else []
        counts.update({piece for piece, _ in pieces})
    new = sorted(word for word, texts_ in counts.items() if texts_ > 1 and word not in vocabulary)
    first = len(tokenizer)
    vocabulary.update({word: first + index for index, word in enumerate(new)})
    backend.model = models.WordLevel(vocabulary, unk_token=content["model"]["unk_token"])
    return len(new)
