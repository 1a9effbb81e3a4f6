"""Prompts: plain text or chat, tokenised once; and responses turned back into text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rl_lab.errors import UserError
from rl_lab.rlhf.jsonl import read_jsonl

Messages = list[dict[str, Any]]


class TemplateRefusalError(ValueError):
    """A tokenizer's chat template does not take a conversation."""


@dataclass(frozen=True)
class Prompt:
    """What a response is asked for."""

    source: str | Messages
    """As it was given: text to be continued, or a conversation to be answered."""
    ids: list[int]
    """As the language model reads it."""

    @property
    def text(self) -> str:
        """For people, before a completion: what it continues; or the last message, and an arrow."""
        return self.source if isinstance(self.source, str) else f"{self.source[-1]['content']} → "


def tokenize_prompt(source: str | Messages, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokenise one prompt: a conversation by the chat template, text as the tokenizer does.

    Raises:
        UserError: a conversation, and the tokenizer has no chat template.
        TemplateRefusalError: it has one, which does not take this conversation.
    """
    if isinstance(source, str):
        ids = list(tokenizer(source).input_ids)
        # Some tokenizers close every text with an end token; a prompt is to be continued.
        if ids and ids[-1] == tokenizer.eos_token_id != tokenizer.bos_token_id:
            ids = ids[:-1]
        return ids
    if tokenizer.chat_template is None:
        raise UserError(
            "the prompts are conversations, but the tokenizer has no chat template; give plain "
            "text prompts, or a policy with a chat template"
        )
    try:
        encoded = tokenizer.apply_chat_template(
            source, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except TemplateError as error:  # as of roles it does not know, or that do not alternate
        raise TemplateRefusalError(str(error)) from None
    return list(encoded)


def read_prompts(
    path: Path, tokenizer: PreTrainedTokenizerBase, longest: int, refuse: bool
) -> tuple[list[Prompt], list[str]]:
    """Read a `prompts-*.jsonl` of the data stage.

    Args:
        path: rows of {"prompt": text or messages}, and "from", where it stood in the user's file.
        tokenizer: the policy's.
        longest: tokens a prompt may have, so that prompt and response fit the context.
        refuse: whether one that is too long, or empty, is an error; else it is dropped.

    Returns:
        The prompts, and for each one dropped a remark: where it is and what is wrong with it.

    Raises:
        UserError: a prompt that cannot be used, and `refuse`; or none is left.
    """
    prompts: list[Prompt] = []
    dropped: list[str] = []
    rows = read_jsonl(path) if path.is_file() else []
    side = "held out to judge on" if path.stem.endswith("heldout") else "to train on"
    if not rows:  # the data stage may be one that ran when there was no `ppo` to need prompts
        raise UserError(f"the data stage left no prompt {side}; set data.prompts, or give more")
    for line, row in enumerate(rows, start=1):
        try:
            ids = tokenize_prompt(row["prompt"], tokenizer)
        except TemplateRefusalError as error:
            fault = f"is not taken by the policy's chat template ({error})"
            cure = "change its roles"
        else:
            if 1 <= len(ids) <= longest:
                prompts.append(Prompt(row["prompt"], ids))
                continue
            fault = f"has {len(ids)} tokens, where the context leaves 1 to {longest}"
            cure = "shorten it, or lower ppo.sampling.max_new_tokens"
        where = row.get("from", f"{path.name}, line {line}")
        if refuse:
            raise UserError(f"{where}: the prompt {fault}; {cure}, or set data.bad_rows to drop")
        dropped.append(f"{where} {fault}")
    if not prompts:
        raise UserError(f"no prompt {side} can be used ({listed(dropped)})")
    return prompts, dropped


def listed(dropped: Sequence[str]) -> str:
    """How many were dropped, and the first few remarks."""
    return f"{len(dropped):,} dropped: {'; '.join(dropped[:5])}{'; ...' * (len(dropped) > 5)}"


def batch_of(prompts: Sequence[Prompt], size: int, index: int, seed: int) -> list[Prompt]:
    """Return batch `index` of endless passes over the prompts, each pass shuffled anew.

    A function of its arguments alone: batch 7 is the same whether or not batch 6 was asked for.

    Args:
        prompts: at least one.
        size: prompts a batch.
        index: from 0.
        seed: what the order follows from.
    """
    chosen: list[Prompt] = []
    start = index * size
    while len(chosen) < size:
        epoch, offset = divmod(start + len(chosen), len(prompts))
        order = np.random.default_rng([seed, epoch]).permutation(len(prompts))
        chosen += [prompts[i] for i in order[offset : offset + size - len(chosen)]]
    return chosen


def completion_texts(
    prompts: Sequence[Prompt],
    responses: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
) -> list[str]:
    """Turn response tokens into text that continues the prompt, special tokens left out.

    A tokenizer may join tokens with spaces or drop them before a comma, so a response alone does
    not tell how it begins: prompt and response are decoded together, and the prompt is cut off.
    """
    heads = tokenizer.batch_decode([prompt.ids for prompt in prompts], skip_special_tokens=True)
    wholes = tokenizer.batch_decode(
        [[*prompt.ids, *response] for prompt, response in zip(prompts, responses, strict=True)],
        skip_special_tokens=True,
    )
    alone = tokenizer.batch_decode(list(responses), skip_special_tokens=True)
    return [
        whole.removeprefix(head) if whole.startswith(head) else by_itself
        for head, whole, by_itself in zip(heads, wholes, alone, strict=True)
    ]
