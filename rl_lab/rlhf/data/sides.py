"""Which rows of the user's files hang together, and which of them are held out."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rl_lab.errors import UserError
from rl_lab.rlhf.data.duplicates import connected, duplicate_groups
from rl_lab.rlhf.data.pairs import Pair
from rl_lab.rlhf.data.preferences import said


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


def divide(groups: Sequence[int], share: float, rng: np.random.Generator, path: Path) -> list[bool]:
    """Whether each row is held out: whole groups, drawn until they are about `share` of the rows.

    Args:
        groups: of each row, its group's number.
        share: of the rows.
        rng: what the groups are drawn with.
        path: the rows' file, for the error.

    Raises:
        UserError: so many rows hang together that not even a tenth of that can be held out.
    """
    if len(groups) == 1:
        raise UserError(
            f"{path}: one usable row is too few: some are to be trained on, others held out"
        )
    heldout = _drawn(groups, share, rng, {})
    rows = sum(heldout)
    if rows < max(1, share * len(groups) / 10):
        together = max(Counter(groups).values())
        raise UserError(
            f"{path}: {together:,} of {len(groups):,} usable rows share texts with one another, "
            f"directly or through others, so only {rows:,} can be held out; give rows of more "
            "different texts"
        )
    return heldout


def _drawn(
    groups: Sequence[int], share: float, rng: np.random.Generator, settled: Mapping[int, bool]
) -> list[bool]:
    """Whether each row is held out; groups whose side is settled keep it, the others are drawn.

    Neither side is left empty if a group that is drawn can be on it.
    """
    sizes = Counter(groups)
    wanted = share * len(groups)
    free = [group for group in sizes if group not in settled]
    heldout = {group for group in sizes if settled.get(group)}
    rows = sum(sizes[group] for group in heldout)
    for group in rng.permutation(free).tolist():
        # A group that would overshoot by more than it helps stays in training; so does the last.
        if rows + sizes[group] / 2 <= wanted and len(heldout) < len(sizes) - 1:
            heldout.add(group)
            rows += sizes[group]
    if not heldout and free and len(sizes) > 1:
        heldout.add(min(free, key=lambda group: sizes[group]))
    return [group in heldout for group in groups]


def prompts_of_pairs(
    pairs: Sequence[Pair], heldout: Sequence[bool], near_duplicate: float
) -> dict[str, bool]:
    """Whether each prompt of the pairs is held out.

    One that (nearly) stands above pairs of both sides is a training prompt: nobody may be judged
    on it.
    """
    asked: dict[str, bool] = {}
    for pair, out in zip(pairs, heldout, strict=True):
        if pair.prompt:
            asked[said(pair.prompt)] = out and asked.get(said(pair.prompt), True)
    groups = duplicate_groups(list(asked), near_duplicate)
    trained = {group for group, out in zip(groups, asked.values(), strict=True) if not out}
    return {text: group not in trained for text, group in zip(asked, groups, strict=True)}


def prompt_sides(
    prompts: Sequence[str],
    of_pairs: Mapping[str, bool],
    near_duplicate: float,
    share: float,
    rng: np.random.Generator,
    path: Path,
) -> list[bool]:
    """Whether each prompt is held out: as the pairs that ask (nearly) the same are, else drawn.

    Args:
        prompts: no two of them nearly the same.
        of_pairs: as of `prompts_of_pairs`.
        near_duplicate: Jaccard similarity from which two prompts are one.
        share: of the prompts that is held out.
        rng: what is drawn with.
        path: the prompts' file, for the error.

    Raises:
        UserError: as of `divide`, where no prompt is one of the pairs'.
    """
    groups = duplicate_groups([*of_pairs, *prompts], near_duplicate)
    own = groups[len(of_pairs) :]
    settled: dict[int, bool] = {}
    for group, out in zip(groups, of_pairs.values(), strict=False):
        settled[group] = out and settled.get(group, True)
    settled = {group: settled[group] for group in own if group in settled}
    return _drawn(own, share, rng, settled) if settled else divide(own, share, rng, path)
