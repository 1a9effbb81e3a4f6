"""Preference pairs from raters' votes: whoever is rated higher is preferred.

A pair's `margin` is the difference of the two mean ratings; its `share` is the share of votes for
the preferred text, a tie counting half to either side:

- both texts of one block: each rater is one vote, comparing his or her own two ratings;
- otherwise: every rater of one text against every rater of the other, the chance that a random
  rating of one exceeds a random rating of the other (Mann and Whitney's U over n m).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from rl_lab.rlhf.data.ratings import Rated

Message = dict[str, str]
Places = Iterator[tuple[int, int]]

PREFIX_WORDS = (4, 3, 2)
"""Lengths, in words, of the shared beginnings that make a prompt; the longest shared one wins."""
GROUP = 8
"""Texts compared with each other, every pair of them (Ouyang et al., 2022, section 3.5)."""


@dataclass(frozen=True)
class Pair:
    """One comparison. Text = prompt + completion; chat is a list of messages instead."""

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]
    share: float | None = None
    """In [0.5, 1]; None where nobody counted votes."""
    margin: float | None = None
    """At least 0, in the unit of the ratings; None where there are none."""
    group: int | None = None
    """Pairs of one number are those among the same few texts, which a learner scores once each."""

    def row(self) -> dict[str, Any]:
        """As it is written to a pairs file."""
        return asdict(self)


def compare(one: Rated, other: Rated, prompt: str = "") -> Pair | None:
    """Make a pair of two rated texts; `prompt`, their common beginning, is cut from both.

    Returns:
        None where nobody can say which is preferred: equal means, or votes that do not favour the
        text of the higher mean.
    """
    chosen, rejected = (one, other) if one.mean > other.mean else (other, one)
    margin = chosen.mean - rejected.mean
    high, low = np.array(chosen.ratings), np.array(rejected.ratings)
    votes = np.sign(high - low if one.block == other.block else high[:, None] - low)
    share = float(votes.mean()) / 2 + 0.5
    if margin == 0 or share <= 0.5:
        return None
    return Pair(
        prompt,
        chosen.text[len(prompt) :],
        rejected.text[len(prompt) :],
        share=round(share, 4),
        margin=round(margin, 4),
    )


# --- which texts to compare ----------------------------------------------------------------------


def random_places(count: int, wanted: int, rng: np.random.Generator) -> Places:
    """Draw pairs of different places in [0, count), none twice; about `wanted` if there are."""
    drawn = np.sort(rng.integers(0, count, (wanted, 2)), axis=1)
    drawn = np.unique(drawn[drawn[:, 0] < drawn[:, 1]], axis=0)
    return ((int(i), int(j)) for i, j in rng.permutation(drawn))


Group = tuple[list[int], str]
"""Places of texts that are all compared with each other, and their common beginning."""


def random_groups(count: int, rng: np.random.Generator) -> Iterator[Group]:
    """Endless passes over all places, each pass shuffled anew."""
    while True:
        order = rng.permutation(count)
        yield from ((chunk, "") for chunk in _chunks(order))


def block_groups(rated: Sequence[Rated], rng: np.random.Generator) -> Iterator[Group]:
    """Texts of one block, which the same people rated; each text once."""
    blocks: dict[int, list[int]] = defaultdict(list)
    for place in rng.permutation(len(rated)):
        blocks[rated[place].block].append(int(place))
    groups = [chunk for places in blocks.values() for chunk in _chunks(places)]
    return ((groups[at], "") for at in rng.permutation(len(groups)))


def prefix_groups(texts: Sequence[str], rng: np.random.Generator) -> Iterator[Group]:
    """Texts that begin with the same words; each text once, by its longest shared beginning."""
    groups: list[Group] = []
    left = {int(place) for place in rng.permutation(len(texts))}
    for length in PREFIX_WORDS:
        alike: dict[str, list[int]] = defaultdict(list)
        for place in sorted(left):
            words = texts[place].split(" ")
            if len(words) > length:
                alike[" ".join(words[:length])].append(place)
        for prefix, places in alike.items():
            found = list(_chunks(rng.permutation(places))) if len(places) > 1 else []
            groups += [(chunk, prefix) for chunk in found]
            left -= {place for chunk in found for place in chunk}
    return (groups[at] for at in rng.permutation(len(groups)))


def _chunks(places: Sequence[int] | np.ndarray) -> Iterator[list[int]]:
    """Cut into groups; a last one of a single text, which has nothing to be compared with, goes."""
    for start in range(0, len(places) - 1, GROUP):
        yield [int(place) for place in places[start : start + GROUP]]


# --- the pairs of a set --------------------------------------------------------------------------


@dataclass
class Drawn:
    """Pairs of one way of drawing, and how many of the drawn ones nobody could decide."""

    pairs: list[Pair]
    undecided: int


def training_pairs(
    rated: Sequence[Rated], count: int, rng: np.random.Generator
) -> dict[str, Drawn]:
    """Draw about `count` pairs in groups of texts that are all compared with each other.

    An eighth are of texts that begin alike, an eighth of texts that the same people rated, the rest
    of any texts: those show both polarities, where a block is mostly of one. Where there are too
    few of one kind, groups of any texts take their place.
    """
    texts = [one.text for one in rated]
    begin_alike = _compare_groups(rated, prefix_groups(texts, rng), count // 8, 0)
    same_raters = _compare_groups(rated, block_groups(rated, rng), count // 8, 1)
    rest = count - len(begin_alike.pairs) - len(same_raters.pairs)
    any_texts = _compare_groups(rated, random_groups(len(rated), rng), rest, 2)
    return {
        "same beginning": begin_alike, "same raters": same_raters, "any texts": any_texts
    }  # fmt: skip


def _compare_groups(
    rated: Sequence[Rated], groups: Iterator[Group], count: int, kind: int
) -> Drawn:
    """Compare all texts of whole groups until there are `count` pairs, or no group more."""
    drawn = Drawn([], 0)
    for number, (places, prompt) in enumerate(groups):
        if len(drawn.pairs) >= count:
            break
        for one, other in combinations(places, 2):
            pair = compare(rated[one], rated[other], prompt)
            if pair is None:
                drawn.undecided += 1
            else:
                drawn.pairs.append(replace(pair, group=number * 3 + kind))
    return drawn


def heldout_pairs(rated: Sequence[Rated], count: int, rng: np.random.Generator) -> Drawn:
    """Draw `count` pairs of any two texts, as the human ceiling is measured on."""
    candidates = ((places, "") for places in random_places(len(rated), 2 * count, rng))
    return _take(rated, candidates, count)


def _take(
    rated: Sequence[Rated], candidates: Iterable[tuple[tuple[int, int], str]], count: int
) -> Drawn:
    """Compare candidates until `count` of them are decided."""
    drawn = Drawn([], 0)
    for (one, other), prompt in candidates:
        if len(drawn.pairs) >= count:
            break
        pair = compare(rated[one], rated[other], prompt)
        if pair is None:
            drawn.undecided += 1
        else:
            drawn.pairs.append(pair)
    return drawn
