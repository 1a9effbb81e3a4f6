"""`rl-lab data check`: what the data stage would make of one file."""

from pathlib import Path
from typing import Any

from rl_lab.errors import UserError
from rl_lab.rlhf.data.cleaning import Tally, lengths
from rl_lab.rlhf.data.own_data import load_preferences, load_prompts, load_texts
from rl_lab.rlhf.data.own_files import read_table
from rl_lab.rlhf.data.pairs import Pair
from rl_lab.rlhf.data.preferences import said
from rl_lab.rlhf.data.sides import pair_groups


def check_file(path: Path, near_duplicate: float) -> dict[str, Any]:
    """Report on one file as the data stage would see it: what it is, what would be dropped and why.

    Raises:
        UserError: the file cannot be read, or is of none of the three kinds.
    """
    columns = read_table(path, "text", Tally()).columns
    if {"chosen", "rejected"} & columns:
        pairs, _, tally = load_preferences(path)
        sides = {name: [said(getattr(pair, name)) for pair in pairs]
                 for name in ("prompt", "chosen", "rejected")}  # fmt: skip
        extra: dict[str, Any] = {
            "groups": len(set(pair_groups(pairs, near_duplicate))),
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
        prompts, _, tally = load_prompts(path, near_duplicate)
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
