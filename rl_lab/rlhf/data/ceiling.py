"""The human ceiling: how well people, or somebody who knew their true mean, agree with people.

Two ceilings over random pairs of rated texts, by margin (the difference of two mean ratings):

- `half`: the raters are divided in two at random; how often does one half order two texts as the
  other half does? What people achieve who are as many as half a panel. The margin is that of the
  half to be predicted: given the margin of all raters together, what one half has more the other
  has less, and two halves of a close call would seem to contradict each other.
- `full`: the label is the order of the means of all raters. If the mean rating of infinitely many
  raters is normally distributed around what was measured (standard error s / sqrt(n)), the label is
  right with chance Phi(margin / standard error of the difference). No judge of these texts can
  agree with such labels more often than that, on average.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import norm

from rl_lab.rlhf.data.ratings import Rated

MARGINS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 8.0)
"""Edges of the bins of margins; ratings lie in [-4, 4], so no margin exceeds 8."""
HALVINGS = 20
PAIRS = 50_000
TIE = 1e-9
"""Means closer than this are equal but for rounding."""


def human_ceiling(rated: Sequence[Rated], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Measure both ceilings over all pairs, from margin 1 on, and by bin of MARGINS.

    Returns:
        Rows of `margin` ([low, high)), `share` (of random pairs that have a full margin in it),
        `half` and `full` (agreement in [0, 1], None where there are no pairs). The first row is
        over all pairs, the second from margin 1 on.
    """
    i, j = rng.integers(0, len(rated), (2, PAIRS))
    full_margin, full = _full_agreement(rated, i, j)
    half_margin, half = _half_agreement(rated, i, j, rng)
    ranges = [(0.0, 8.0), (1.0, 8.0), *pairwise(MARGINS)]
    return [
        {
            "margin": [low, high],
            "share": round(float(_inside(full_margin, low, high).mean()), 4),
            "half": _mean(half[_inside(half_margin, low, high)]),
            "full": _mean(full[_inside(full_margin, low, high)]),
        }
        for low, high in ranges
    ]


def _inside(margin: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which pairs have a margin in [low, high), ties left out."""
    return (margin > TIE) & (margin >= low) & ((margin < high) | (high == MARGINS[-1]))


def _mean(agreement: np.ndarray) -> float | None:
    return round(float(agreement.mean()), 4) if agreement.size else None


def _full_agreement(
    rated: Sequence[Rated], i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Margin of pairs (i, j) and the chance that its sign is the true one; both (pairs,)."""
    means = np.array([one.mean for one in rated])
    variances = np.array([np.var(one.ratings, ddof=1) / len(one.ratings) for one in rated])
    margin = np.abs(means[i] - means[j])
    error = np.sqrt(variances[i] + variances[j])
    # Where all raters of both texts agreed there is no error to speak of: the label is certain.
    return margin, norm.cdf(margin / np.maximum(error, TIE))


def _half_agreement(
    rated: Sequence[Rated], i: np.ndarray, j: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Margin in one half of the raters, and whether the other agrees; both (HALVINGS * pairs,).

    The raters of a block are divided once for all its texts, so that two texts of one block are
    compared by the same people. A half that sees a tie guesses: it counts one half.
    """
    margins, agreed = [], []
    for _ in range(HALVINGS):
        orders = {one.block: rng.permutation(len(one.ratings)) for one in rated}
        shuffled = [np.array(one.ratings)[orders[one.block]] for one in rated]
        first = np.array([values[: len(values) // 2].mean() for values in shuffled])
        other = np.array([values[len(values) // 2 :].mean() for values in shuffled])
        margins.append(np.abs(other[i] - other[j]))
        agreed.append(np.sign(first[i] - first[j]) * np.sign(other[i] - other[j]) / 2 + 0.5)
    return np.concatenate(margins), np.concatenate(agreed)
