"""The `files` source: the user's preferences, prompts and texts, cleaned, grouped and split.

Rows that belong together stay on one side of the split: pairs that share a prompt or a text, or
nearly, and the prompts of those pairs. Texts are left as they are written; one that is nearly a
held-out pair's is left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.errors import UserError
from rl_lab.rlhf.data.cleaning import Tally, unfit_length
from rl_lab.rlhf.data.duplicates import duplicate_groups
from rl_lab.rlhf.data.own_files import Table, read_table
from rl_lab.rlhf.data.pairs import Pair
from rl_lab.rlhf.data.preferences import Side, Unusable, read_preferences, said, side_of
from rl_lab.rlhf.data.prepared import Prepared, Row, Say
from rl_lab.rlhf.data.sides import divide, pair_groups, prompt_sides, prompts_of_pairs

STEPS = 3
"""How often `prepare_own_data` calls `say`, at most."""
OF_HELDOUT_PAIR = "nearly a text of a held-out pair"
"""Why a usable pretraining text is left out."""


def prepare_own_data(
    preferences: Path | None,
    prompts: Path | None,
    texts: Path | None,
    heldout_share: float,
    heldout_texts: float,
    near_duplicate: float,
    words: tuple[int, int],
    refuse: bool,
    seed: int,
    say: Say,
    *,
    for_ppo: bool = False,
) -> Prepared:
    """Read, clean, group and split what there is.

    Args:
        preferences: file of pairs, or None.
        prompts: file of prompts; None: those of the pairs.
        texts: file of pretraining texts, or None.
        heldout_share: share of pairs and prompts held out.
        heldout_texts: share of texts held out.
        near_duplicate: Jaccard similarity from which two texts are one.
        words: fewest and most words of a text.
        refuse: make the first row that cannot be used an error.
        seed: what the split follows from.
        say: called before each file with a sentence.
        for_ppo: whether there must be prompts to train on and others to judge on.

    Raises:
        UserError: a file cannot be read, has nothing usable, or cannot be divided; with `refuse`,
            a row that cannot be used; with `for_ppo`, a side without prompts.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]
    files: dict[str, list[Row]] = {}
    cleaned: dict[str, Any] = {}
    of_pairs: dict[str, bool] = {}  # their prompts: whether each is held out
    judged_on: list[str] = []
    if preferences is not None:
        say(f"reading preferences from {preferences}")
        pairs, lines, tally = load_preferences(preferences)
        cleaned["preferences"] = _checked(preferences, tally, refuse)
        groups = pair_groups(pairs, near_duplicate)
        heldout = divide(groups, heldout_share, streams[0], preferences)
        files |= _two_files("pairs", [pair.row() for pair in pairs], heldout)
        judged_on = [
            text for pair, out in zip(pairs, heldout, strict=True) for text in _texts_of(pair) * out
        ]
        of_pairs = prompts_of_pairs(pairs, heldout, near_duplicate)
        if prompts is None and of_pairs:
            asked = {
                said(pair.prompt): _prompt_row(pair.prompt, preferences, tally, line)
                for pair, line in reversed(list(zip(pairs, lines, strict=True)))
            }
            rows = [asked[text] for text in of_pairs]
            files |= _two_files("prompts", rows, list(of_pairs.values()))
    if prompts is not None:
        say(f"reading prompts from {prompts}")
        found, lines, tally = load_prompts(prompts, near_duplicate)
        cleaned["prompts"] = _checked(prompts, tally, refuse)
        spoken = list(map(said, found))
        heldout = prompt_sides(spoken, of_pairs, near_duplicate, heldout_share, streams[1], prompts)
        rows = [
            _prompt_row(prompt, prompts, tally, line)
            for prompt, line in zip(found, lines, strict=True)
        ]
        files |= _two_files("prompts", rows, heldout)
    if for_ppo:
        _require_prompts(files, preferences, prompts)
    if texts is not None:
        say(f"reading texts from {texts}")
        kept, tally = load_texts(texts, near_duplicate, words, judged_on)
        cleaned["texts"] = _checked(texts, tally, refuse)
        heldout = divide(list(range(len(kept))), heldout_texts, streams[2], texts)
        files |= _two_files("texts", [{"text": text} for text in kept], heldout)
    return Prepared(files, {"source": "files", "cleaned": cleaned})


def _texts_of(pair: Pair) -> list[str]:
    """What a language model must not have read before it is judged on a pair, in any form."""
    sides = (pair.chosen, pair.rejected)
    completions = [
        [side] if isinstance(side, str) else [message["content"] for message in side]
        for side in sides
    ]
    return [said(pair.prompt) + said(side) for side in sides] + [*completions[0], *completions[1]]


def _prompt_row(prompt: Side, path: Path, tally: Tally, line: int) -> Row:
    """A prompt, and where it stands in the user's file: for what is said of it later."""
    return {"prompt": prompt, "from": f"{path.name}, {tally.unit} {line}"}


def _two_files(name: str, rows: Sequence[Row], heldout: Sequence[bool]) -> dict[str, list[Row]]:
    """Rows by the file of their side."""
    return {
        f"{name}-{side}": [row for row, out in zip(rows, heldout, strict=True) if out == wanted]
        for side, wanted in (("train", False), ("heldout", True))
    }


def _require_prompts(
    files: dict[str, list[Row]], preferences: Path | None, prompts: Path | None
) -> None:
    """PPO trains on prompts and is judged on others.

    Raises:
        UserError: there are none of one kind; in terms of the user's files.
    """
    if "prompts-train" not in files:
        raise UserError(f"no pair of {preferences} has a prompt; set data.prompts")
    training, heldout = (files[f"prompts-{side}"] for side in ("train", "heldout"))
    if training and heldout:
        return
    whose = "training" if training else "held-out"
    lacking = "held out to judge on" if training else "trained on"
    if prompts is None:
        raise UserError(
            f"{preferences}: every prompt stands above {whose} pairs, so none can be {lacking}; "
            "set data.prompts"
        )
    raise UserError(
        f"{prompts}: every prompt is, or nearly is, that of {whose} pairs of {preferences}, so "
        f"none can be {lacking}; add prompts that no pair has"
    )


# --- one file ------------------------------------------------------------------------------------


def load_preferences(path: Path) -> tuple[list[Pair], list[int], Tally]:
    """Read pairs, and the line of each.

    Raises:
        UserError: the file cannot be read, or holds no usable pair.
    """
    tally = Tally()
    pairs, lines = read_preferences(read_table(path, "text", tally), tally)
    _some(path, tally, "pair")
    return pairs, lines, tally


def load_prompts(path: Path, near_duplicate: float) -> tuple[list[Side], list[int], Tally]:
    """Read prompts, and the line of each; of those that are nearly the same the first stays.

    Raises:
        UserError: the file cannot be read, or holds no usable prompt.
    """
    tally = Tally()
    sides, lines = _column(read_table(path, "prompt", tally), "prompt", tally)
    kept = _first_of_each(list(map(said, sides)), lines, near_duplicate, tally)
    _some(path, tally, "prompt")
    return [sides[place] for place in kept], [lines[place] for place in kept], tally


def load_texts(
    path: Path, near_duplicate: float, words: tuple[int, int], judged_on: Sequence[str] = ()
) -> tuple[list[str], Tally]:
    """Read texts; of those that are nearly the same the first stays.

    Args:
        path: the file.
        near_duplicate: Jaccard similarity from which two texts are one.
        words: fewest and most words of a text.
        judged_on: texts of held-out pairs; what is nearly one of them is dropped.

    Raises:
        UserError: the file cannot be read, or holds no usable text.
    """
    tally = Tally()
    sides, lines = _column(read_table(path, "text", tally), "text", tally)
    fit: list[str] = []
    fit_lines: list[int] = []
    for side, line in zip(sides, lines, strict=True):
        reason = unfit_length(said(side), words) if isinstance(side, str) else "text is no text"
        if reason is None:
            fit.append(said(side).strip())
            fit_lines.append(line)
        else:
            tally.drop(reason, said(side), line)
    kept = _first_of_each(fit, fit_lines, near_duplicate, tally, judged_on)
    _some(path, tally, "text")
    return [fit[place] for place in kept], tally


def _column(table: Table, name: str, tally: Tally) -> tuple[list[Side], list[int]]:
    """The usable values of one column, and their lines."""
    table.require(name)
    sides, lines = [], []
    for row in table.rows:
        try:
            sides.append(side_of(row.values, name))
            lines.append(row.line)
        except Unusable as fault:
            tally.drop(str(fault), str(row.values), row.line)
    return sides, lines


def _first_of_each(
    texts: list[str],
    lines: list[int],
    near_duplicate: float,
    tally: Tally,
    judged_on: Sequence[str] = (),
) -> list[int]:
    """Places of what stays: of each group of duplicates the first, unless it is judged on."""
    groups = duplicate_groups([*judged_on, *texts], near_duplicate)
    kept = []
    for place, first in enumerate(groups[len(judged_on) :]):
        if first < len(judged_on):
            tally.drop(OF_HELDOUT_PAIR, texts[place], lines[place])
        elif first < len(judged_on) + place:
            tally.drop("duplicate of an earlier row", texts[place], lines[place])
        else:
            kept.append(place)
    return kept


def _some(path: Path, tally: Tally, what: str) -> None:
    if tally.read == tally.lost:
        reason, rows = max(tally.dropped.items(), key=lambda item: len(item[1]))
        line = f"{tally.unit} {rows[0][0]}: " if rows[0][0] else ""
        raise UserError(f"{path}: no usable {what} among {tally.read} rows ({line}{reason})")


def _checked(path: Path, tally: Tally, refuse: bool) -> dict[str, Any]:
    """The tally as a dict; the first unusable row is an error if rows are to be refused."""
    unusable = [
        (line or 0, reason)
        for reason, rows in tally.dropped.items()
        if reason != OF_HELDOUT_PAIR  # nothing is wrong with the row: the split came out so
        for line, _ in rows
    ]
    if refuse and unusable:
        line, reason = min(unusable)
        raise UserError(
            f"{path}, {tally.unit} {line}: {reason} ({len(unusable)} of {tally.read} rows cannot "
            "be used; `data.bad_rows: drop` goes on without them)"
        )
    return {"file": str(path)} | tally.as_dict()
