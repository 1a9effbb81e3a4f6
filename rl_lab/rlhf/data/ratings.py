"""Hutto and Gilbert's sentiment ratings (ICWSM 2014): short texts, each rated by 15 to 99 people.

The source distribution of vaderSentiment 3.3.2 carries them (MIT licence): 10,605 movie-review
snippets, and sentences of product reviews, newspaper editorials and tweets. A rating is a whole
number from -4 (extremely negative) to 4 (extremely positive).
"""

import json
from dataclasses import dataclass

import numpy as np

from rl_lab.errors import UserError
from rl_lab.rlhf.data.cleaning import normalise
from rl_lab.rlhf.data.downloads import member_of_tar

MOVIES = "movieReviewSnippets"
OTHERS = ("amazonReviewSnippets", "nytEditorialSnippets", "tweets")

BLOCK = 30
"""Texts that were rated by the same people: column k of their ratings is the same rater. Measured
for the movie snippets; the other sets come without a known order of raters."""


@dataclass(frozen=True)
class Rated:
    """A text and what its raters said."""

    text: str
    ratings: tuple[int, ...]
    """(raters,) whole numbers in [-4, 4]."""
    block: int
    """Texts of one block have the same raters in the same order."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.ratings))


def read_ratings(sdist: bytes, kind: str) -> list[Rated]:
    """Read one of the four rated sets, in the order of its ids, texts normalised.

    Args:
        sdist: the content of vaderSentiment-3.3.2.tar.gz.
        kind: MOVIES or one of OTHERS.

    Raises:
        UserError: the archive does not hold what it should.
    """
    inner = member_of_tar(
        sdist, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", 8_000_000
    )
    texts = {fields[0]: fields[2] for fields in _table(inner, f"{kind}_GroundTruth.txt")}
    ratings = {
        fields[0]: tuple(json.loads(fields[3]))
        for fields in _table(inner, f"{kind}_anonDataRatings.txt")
    }
    if texts.keys() != ratings.keys():
        raise UserError(f"{kind}: the texts and the ratings have different ids")
    return [
        Rated(normalise(text), ratings[identity], block=place // BLOCK)
        for place, (identity, text) in enumerate(sorted(texts.items(), key=_by_number))
    ]


def _by_number(item: tuple[str, str]) -> list[int]:
    """Ids are `17` or, sentence 3 of text 12, `12_3`; the files are not sorted by them."""
    return [int(part) for part in item[0].split("_")]


def _table(archive: bytes, name: str) -> list[list[str]]:
    """The tab-separated rows of one file; some of the files begin with a byte-order mark."""
    content = member_of_tar(archive, f"hutto_ICWSM_2014/{name}", 4_000_000)
    return [line.split("\t") for line in content.decode("utf-8-sig").splitlines()]


def split_blocks(
    rated: list[Rated], heldout_share: float, rng: np.random.Generator
) -> tuple[list[Rated], list[Rated]]:
    """Divide rated texts into training and held-out ones, whole blocks each.

    A block is mostly of one polarity, so positive and negative blocks are divided separately:
    both sides get their share of either.
    """
    heldout: set[int] = set()
    means: dict[int, list[float]] = {}
    for one in rated:
        means.setdefault(one.block, []).append(one.mean)
    for positive in (True, False):
        blocks = [block for block, values in means.items() if (np.mean(values) > 0) == positive]
        rng.shuffle(blocks)
        heldout.update(blocks[: round(heldout_share * len(blocks))])
    return (
        [one for one in rated if one.block not in heldout],
        [one for one in rated if one.block in heldout],
    )
