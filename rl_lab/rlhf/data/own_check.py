"""`rl-lab data check`: what the data stage would make of one file."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.errors import UserError
from rl_lab.rlhf.data.cleaning import Tally, lengths
from rl_lab.rlhf.data.own_data import load_preferences, load_prompts, load_texts
from rl_lab.rlhf.data.own_files import read_table
from rl_lab.rlhf.data.pairs import Pair
from rl_lab.rlhf.data.preferences import Side, said
from rl_lab.rlhf.data.sides import divide, pair_groups
from rl_lab.rlhf.recipe import Data

WITHOUT_SPACES = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO",
    "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE",
)  # fmt: skip
"""How the Unicode names of letters begin that are written without a space between words."""


def check_file(path: Path, near_duplicate: float) -> dict[str, Any]:
    """Report on one file as the data stage would see it: what it is, what would be dropped and why.

    Raises:
        UserError: the file cannot be read, or is of none of the three kinds.
    """
    table = read_table(path, "text", Tally())
    table.require_rows()
    kinds = ("chosen", "rejected", "prompt", "text")
    # A column without a value says what the file is only where no other one does.
    columns = [name for name in kinds if name in table.filled] or [
        name for name in kinds if name in table.columns
    ]
    if "chosen" in columns or "rejected" in columns:
        pairs, _, tally = load_preferences(path)
        return {"kind": "preferences", **tally.as_dict(), **_about(pairs, path, near_duplicate)}
    if "prompt" in columns:
        prompts, _, tally = load_prompts(path, near_duplicate)
        return _listed("prompt", list(map(said, prompts)), tally, Data().heldout_share, path)
    if "text" in columns:
        texts, tally = load_texts(path, near_duplicate, (1, 10**9))
        return _listed("text", texts, tally, Data().heldout_texts, path)
    raise UserError(
        f"{path}: no columns chosen and rejected, no prompt and no text "
        f"(there are: {', '.join(sorted(table.columns)[:12]) or 'none'})"
    )


def _listed(
    column: str, texts: Sequence[str], tally: Tally, share: float, path: Path
) -> dict[str, Any]:
    """What is to be said of prompts, or of texts."""
    return {
        "kind": f"{column}s",
        **tally.as_dict(),
        "cannot be split": _unsplit(range(len(texts)), share, path),
        "words": {column: lengths(texts)},
    }


def _about(pairs: Sequence[Pair], path: Path, near_duplicate: float) -> dict[str, Any]:
    """What is to be said of pairs."""
    groups = pair_groups(pairs, near_duplicate)
    longer = sum(len(said(pair.chosen)) > len(said(pair.rejected)) for pair in pairs)
    return {
        "cannot be split": _unsplit(groups, Data().heldout_share, path),
        "groups": len(set(groups)),
        "with share": sum(pair.share is not None for pair in pairs),
        "with margin": sum(pair.margin is not None for pair in pairs),
        "chosen is longer": round(longer / len(pairs), 4),
        "no space after prompt": sum(
            _run_together(pair.prompt, pair.chosen) or _run_together(pair.prompt, pair.rejected)
            for pair in pairs
        ),
        "words": {
            name: lengths(said(getattr(pair, name)) for pair in pairs)
            for name in ("prompt", "chosen", "rejected")
        },
    }


def _unsplit(groups: Sequence[int], share: float, path: Path) -> str | None:
    """Why the rows cannot be divided into training and held-out ones; None where they can."""
    try:
        divide(groups, share, np.random.default_rng(0), path)
    except UserError as fault:
        return str(fault).removeprefix(f"{path}: ")
    return None


def _run_together(prompt: Side, completion: Side) -> bool:
    """Whether the prompt's last word and the completion's first would become one word."""
    if not (isinstance(prompt, str) and isinstance(completion, str) and prompt):
        return False
    meeting = (prompt[-1], completion[0])
    return all(one.isalnum() for one in meeting) and not any(
        unicodedata.name(one, "").startswith(WITHOUT_SPACES) for one in meeting
    )
