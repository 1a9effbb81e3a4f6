"""The `files` source: the user's preferences, prompts and texts, cleaned, grouped and split.

Rows that belong together stay on one side of the split: pairs that share a prompt or a text, or
nearly, and the prompts of those pairs. Texts are left as they are written.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.errors import UserError
from rl_lab.rlhf.data.cleaning import Tally, lengths, unfit_length
from rl_lab.rlhf.data.duplicates import connected, duplicate_groups
from rl_lab.rlhf.data.own_files import Table, read_table
from rl_lab.rlhf.data.pairs import Pair
from rl_lab.rlhf.data.preferences import Side, Unusable, read_preferences, said, side_of
from rl_lab.rlhf.data.prepared import Prepared, Row, Say

STEPS = 3
"""How often `prepare_own_data` calls `say`, at most."""


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

    Raises:
        UserError: a file cannot be read, has nothing usable, or cannot be divided; with `refuse`,
            a row that cannot be used.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]
    files: dict[str, list[Row]] = {}
    cleaned: dict[str, Any] = {}
    sides: dict[str, bool] = {}  # prompts whose side is settled: whether it is held out
    if preferences is not None:
        say(f"reading preferences from {preferences}")
        pairs, tally, groups = load_preferences(preferences, near_duplicate)
        cleaned["preferences"] = _checked(preferences, tally, refuse)
        heldout = _divide(groups, heldout_share, streams[0], preferences)
        for side, name in ((False, "pairs-train"), (True, "pairs-heldout")):
            files[name] = [p.row() for p, out in zip(pairs, heldout, strict=True) if out == side]
        # One prompt above all pairs is on both sides; then it counts as a training prompt.
        sides = {
            said(pair.prompt): out
            for pair, out in sorted(zip(pairs, heldout, strict=True), key=lambda both: -both[1])
            if pair.prompt
        }
        asked = {said(pair.prompt): pair.prompt for pair in pairs if pair.prompt}
        if prompts is None and asked:
            for side, name in ((False, "prompts-train"), (True, "prompts-heldout")):
                files[name] = [{"prompt": asked[text]} for text in asked if sides[text] == side]
    if prompts is not None:
        say(f"reading prompts from {prompts}")
        found, tally = load_prompts(prompts, near_duplicate)
        cleaned["prompts"] = _checked(prompts, tally, refuse)
        heldout = _prompt_sides(found, sides, near_duplicate, heldout_share, streams[1], prompts)
        for side, name in ((False, "prompts-train"), (True, "prompts-heldout")):
            files[name] = [
                {"prompt": prompt}
                for prompt, out in zip(found, heldout, strict=True)
                if out == side
            ]
    if texts is not None:
        say(f"reading texts from {texts}")
        kept, tally = load_texts(texts, near_duplicate, words)
        cleaned["texts"] = _checked(texts, tally, refuse)
        heldout = _divide(list(range(len(kept))), heldout_texts, streams[2], texts)
        for side, name in ((False, "texts-train"), (True, "texts-heldout")):
            files[name] = [{"text": t} for t, out in zip(kept, heldout, strict=True) if out == side]
    return Prepared(files, {"source": "files", "cleaned": cleaned})


# --- one file ------------------------------------------------------------------------------------


def load_preferences(path: Path, near_duplicate: float) -> tuple[list[Pair], Tally, list[int]]:
    """Read pairs; the groups of those that must stay together come with them.

    Raises:
        UserError: the file cannot be read, or holds no usable pair.
    """
    tally = Tally()
    pairs, _ = read_preferences(read_table(path, "text", tally), tally)
    _some(path, tally, "pair")
    return pairs, tally, pair_groups(pairs, near_duplicate)


def load_prompts(path: Path, near_duplicate: float) -> tuple[list[Side], Tally]:
    """Read prompts; of those that are nearly the same the first stays.

    Raises:
        UserError: the file cannot be read, or holds no usable prompt.
    """
    tally = Tally()
    sides, lines = _column(read_table(path, "prompt", tally), "prompt", tally)
    kept = _first_of_each(list(map(said, sides)), lines, near_duplicate, tally)
    _some(path, tally, "prompt")
    return [sides[place] for place in kept], tally


def load_texts(
    path: Path, near_duplicate: float, words: tuple[int, int]
) -> tuple[list[str], Tally]:
    """Read texts; of those that are nearly the same the first stays.

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
    kept = _first_of_each(fit, fit_lines, near_duplicate, tally)
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
    texts: list[str], lines: list[int], near_duplicate: float, tally: Tally
) -> list[int]:
    """Places of what stays when only the first of each group of duplicates does."""
    groups = duplicate_groups(texts, near_duplicate)
    for place, first in enumerate(groups):
        if first != place:
            tally.drop("duplicate of an earlier row", texts[place], lines[place])
    return [place for place, first in enumerate(groups) if first == place]


def _some(path: Path, tally: Tally, what: str) -> None:
    if tally.read == tally.lost:
        reason, rows = max(tally.dropped.items(), key=lambda item: len(item[1]))
        line = f"line {rows[0][0]}: " if rows[0][0] else ""
        raise UserError(f"{path}: no usable {what} among {tally.read} rows ({line}{reason})")


def _checked(path: Path, tally: Tally, refuse: bool) -> dict[str, Any]:
    """The tally as a dict; the first unusable row is an error if rows are to be refused."""
    if refuse and tally.lost:
        line, reason = min(
            (line or 0, reason) for reason, rows in tally.dropped.items() for line, _ in rows
        )
        raise UserError(
            f"{path}, line {line}: {reason} ({tally.lost} of {tally.read} rows cannot be used; "
            "`data.bad_rows: drop` goes on without them)"
        )
    return {"file": str(path)} | tally.as_dict()


# --- groups and sides ----------------------------------------------------------------------------


def pair_groups(pairs: Sequence[Pair], near_duplicate: float) -> list[int]:
    """Number the groups of pairs that share a prompt or a text, or nearly.

    Where one prompt stands above more than half of the pairs (an instruction to all of them), only
    texts count.
    """
    texts = [
        said(pair.prompt) + said(side) for pair in pairs for side in (pair.chosen, pair.rejected)
    ]
    same_text = duplicate_groups(texts, near_duplicate)
    by_text: list[list[Hashable]] = [
        [("text", same_text[2 * place]), ("text", same_text[2 * place + 1])]
        for place in range(len(pairs))
    ]
    prompts = [said(pair.prompt) for pair in pairs]
    same_prompt = duplicate_groups(prompts, near_duplicate)
    by_both = [
        keys + [("prompt", same)] * bool(prompt)
        for keys, same, prompt in zip(by_text, same_prompt, prompts, strict=True)
    ]
    groups = connected(by_both)
    return groups if max(Counter(groups).values()) <= len(pairs) / 2 else connected(by_text)


def _divide(groups: list[int], share: float, rng: np.random.Generator, path: Path) -> list[bool]:
    """Whether each row is held out: whole groups, drawn until they are about `share` of the rows.

    Raises:
        UserError: so many rows hang together that not even a tenth of that can be held out.
    """
    sizes = Counter(groups)
    wanted = share * len(groups)
    heldout: set[int] = set()
    rows = 0
    for group in rng.permutation(list(sizes)).tolist():
        # A group that would overshoot by more than it helps stays in training; so does the last.
        if rows + sizes[group] / 2 <= wanted and len(heldout) < len(sizes) - 1:
            heldout.add(group)
            rows += sizes[group]
    if not heldout and len(sizes) > 1:
        heldout.add(min(sizes, key=lambda group: sizes[group]))
        rows = sizes[min(heldout)]
    if rows < max(1, wanted / 10):
        together = max(sizes.values())
        raise UserError(
            f"{path}: {together:,} of {len(groups):,} usable rows share texts with one another, "
            f"directly or through others, so only {rows:,} can be held out; give rows of more "
            "different texts"
        )
    return [group in heldout for group in groups]


def _prompt_sides(
    found: list[Side],
    settled: dict[str, bool],
    near_duplicate: float,
    share: float,
    rng: np.random.Generator,
    path: Path,
) -> list[bool]:
    """Whether each prompt is held out: as the pairs that ask (nearly) the same are, else drawn."""
    asked = list(settled)
    groups = duplicate_groups(asked + [said(prompt) for prompt in found], near_duplicate)
    side_of_group = {
        groups[place]: settled[text] for place, text in reversed(list(enumerate(asked)))
    }
    drawn = _divide(groups[len(asked) :], share, rng, path)
    return [
        side_of_group.get(group, out)
        for group, out in zip(groups[len(asked) :], drawn, strict=True)
    ]


# --- `rl-lab data check` -------------------------------------------------------------------------


def check_file(path: Path, near_duplicate: float) -> dict[str, Any]:
    """Report on one file as the data stage would see it: what it is, what would be dropped and why.

    Raises:
        UserError: the file cannot be read, or is of none of the three kinds.
    """
    columns = read_table(path, "text", Tally()).columns
    if {"chosen", "rejected"} & columns:
        pairs, tally, groups = load_preferences(path, near_duplicate)
        sides = {name: [said(getattr(pair, name)) for pair in pairs]
                 for name in ("prompt", "chosen", "rejected")}  # fmt: skip
        extra: dict[str, Any] = {
            "groups": len(set(groups)),
            "with share": sum(pair.share is not None for pair in pairs),
            "with margin": sum(pair.margin is not None for pair in pairs),
            "chosen is longer": round(
                sum(len(said(p.chosen)) > len(said(p.rejected)) for p in pairs) / len(pairs), 4
            ),
            "no space after prompt": sum(map(_runs_together, pairs)),
        }
        return {"kind": "preferences", **tally.as_dict(), **extra,
                "words": {name: lengths(texts) for name, texts in sides.items()}}  # fmt: skip
    if "prompt" in columns:
        prompts, tally = load_prompts(path, near_duplicate)
        return {"kind": "prompts", **tally.as_dict(),
                "words": {"prompt": lengths(map(said, prompts))}}  # fmt: skip
    if "text" in columns:
        texts, tally = load_texts(path, near_duplicate, (1, 10**9))
        return {"kind": "texts", **tally.as_dict(), "words": {"text": lengths(texts)}}
    raise UserError(
        f"{path}: no columns chosen and rejected, no prompt and no text "
        f"(there are: {', '.join(sorted(columns)[:12]) or 'none'})"
    )


def _runs_together(pair: Pair) -> bool:
    """Whether the prompt's last word and the completion's first would become one word."""
    if not (isinstance(pair.prompt, str) and isinstance(pair.chosen, str) and pair.prompt):
        return False
    return pair.prompt[-1].isalnum() and pair.chosen[0].isalnum()
