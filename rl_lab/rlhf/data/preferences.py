"""The user's own preference rows, checked: who preferred what, in plain text or in chat messages.

A row has `chosen` and `rejected`; it may have `prompt`, and a `share` of votes or a `margin`.
Plain: three strings; the text that is judged is prompt + completion, as written. Chat: lists of
`{"role": ..., "content": ...}`; where the prompt is no such list, it is what both begin with, and
where it is one that both repeat, it is cut from both.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rl_lab.rlhf.data.cleaning import Tally
from rl_lab.rlhf.data.own_files import Table
from rl_lab.rlhf.data.pairs import Message, Pair

Side = str | list[Message]
ROLES = ("system", "user", "assistant", "tool")


class Unusable(ValueError):
    """A row that cannot be used; the message is the reason, said so that equal faults are equal."""


def said(side: Side) -> str:
    """A prompt or completion as one text, for people and for finding duplicates."""
    if isinstance(side, str):
        return side
    return "\n".join(f"{message['role']}: {message['content']}" for message in side)


def read_preferences(table: Table, tally: Tally) -> tuple[list[Pair], list[int]]:
    """Return the usable pairs of a table and their lines.

    Unusable rows, repeated ones and pairs that contradict each other (the same two texts, once
    preferred this way and once that) are dropped and counted in `tally`.

    Raises:
        UserError: the table has no column `chosen` or `rejected`.
    """
    table.require("chosen", "rejected")
    pairs: list[Pair] = []
    lines: list[int] = []
    for row in table.rows:
        try:
            pairs.append(pair_of(row.values))
            lines.append(row.line)
        except Unusable as fault:
            tally.drop(str(fault), str(row.values), row.line)
    return _consistent(pairs, lines, tally)


def pair_of(values: Mapping[str, Any]) -> Pair:
    """Check one row.

    Raises:
        Unusable: with the reason.
    """
    chosen, rejected = (side_of(values, name) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise Unusable("one of chosen and rejected is text, the other chat messages")
    prompt = "" if values.get("prompt") is None else side_of(values, "prompt", may_be_empty=True)
    if isinstance(chosen, list) and isinstance(rejected, list):
        if isinstance(prompt, str):
            prompt, chosen, rejected = _common_messages(prompt, chosen, rejected)
        else:
            chosen, rejected = _without_prompt(prompt, chosen, rejected)
    elif isinstance(prompt, list):
        raise Unusable("prompt is chat messages, chosen is text")
    if chosen == rejected:
        raise Unusable("chosen and rejected are the same")
    return Pair(
        prompt,
        chosen,
        rejected,
        share=_number(values, "share", 0.5, 1.0),
        margin=_number(values, "margin", 0.0, math.inf),
    )


def side_of(values: Mapping[str, Any], name: str, may_be_empty: bool = False) -> Side:
    """The text or the chat messages in column `name`.

    Raises:
        Unusable: it is missing, empty, or neither.
    """
    value = values.get(name)
    if value is None:
        raise Unusable(f"no {name}")
    if isinstance(value, str):
        if not value.strip() and not may_be_empty:
            raise Unusable(f"{name} is empty")
        return _encodable(value, name)
    if not isinstance(value, list):
        raise Unusable(f"{name} is neither text nor a list of chat messages")
    if not value:
        raise Unusable(f"{name} is empty")
    return [_message(message, name) for message in value]


def _message(message: Any, name: str) -> Message:
    if not isinstance(message, Mapping):
        raise Unusable(f"{name} holds something that is no chat message")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise Unusable(f"{name} holds a message whose role is none of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise Unusable(f"{name} holds a message without text")
    return {"role": role, "content": _encodable(content, name)}


def _encodable(text: str, name: str) -> str:
    r"""Refuse half a character, which no file can hold though JSON can say `\ud83d`, and NUL."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Unusable(f"{name} holds half a character (a lone surrogate)")
    if "\x00" in text:
        raise Unusable(f"{name} holds a NUL character")
    return text


def _common_messages(
    prompt: str, chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Split what both conversations begin with from how each goes on.

    A prompt beside them is one of the messages that they share, said once more.
    """
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        shared += 1
    if chosen == rejected:
        raise Unusable("chosen and rejected are the same")
    if shared in (0, len(chosen), len(rejected)):
        raise Unusable("chosen and rejected are not two continuations of one conversation")
    contents = {message["content"].strip() for message in chosen[:shared]}
    if prompt.strip() and prompt.strip() not in contents:
        raise Unusable("prompt is text that no message is with which both conversations begin")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _without_prompt(
    prompt: list[Message], chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message]]:
    """Cut the prompt from conversations that say it once more."""
    repeats = [side[: len(prompt)] == prompt for side in (chosen, rejected)]
    if not any(repeats):
        return chosen, rejected
    if not all(repeats):
        raise Unusable("one of chosen and rejected repeats the prompt, the other does not")
    if min(len(chosen), len(rejected)) == len(prompt):
        raise Unusable("one of chosen and rejected is the prompt and no more")
    return chosen[len(prompt) :], rejected[len(prompt) :]


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise Unusable(f"{name} is no number")
    if not low <= value <= high:
        bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise Unusable(f"{name} is not {bounds}")
    return float(value)


def _consistent(pairs: list[Pair], lines: list[int], tally: Tally) -> tuple[list[Pair], list[int]]:
    """Drop what is said twice, and both sides of what is contradicted."""
    verdicts: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)
    for pair in pairs:
        verdicts[_question(pair)].add(said(pair.chosen))
    kept_pairs, kept_lines = [], []
    asked = set()
    for pair, line in zip(pairs, lines, strict=True):
        question = _question(pair)
        if len(verdicts[question]) > 1:
            tally.drop("contradicted by another row", _shown(pair), line)
        elif question in asked:
            tally.drop("said before", _shown(pair), line)
        else:
            asked.add(question)
            kept_pairs.append(pair)
            kept_lines.append(line)
    return kept_pairs, kept_lines


def _question(pair: Pair) -> tuple[str, frozenset[str]]:
    return said(pair.prompt), frozenset((said(pair.chosen), said(pair.rejected)))


def _shown(pair: Pair) -> str:
    return f"{said(pair.prompt)} -> {said(pair.chosen)} > {said(pair.rejected)}".removeprefix(
        " -> "
    )
