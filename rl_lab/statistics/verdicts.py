"""Which of two groups of runs is better, said only where the data carry it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rl_lab.statistics.comparisons import (
    Difference,
    difference,
    holm,
    holm_confidences,
    probability_of_improvement,
    runs_needed,
)
from rl_lab.statistics.intervals import Interval
from rl_lab.statistics.samples import Runs, runs_of


@dataclass(frozen=True)
class Verdict:
    """What may be said of group `a` against group `b`; higher values are better."""

    word: Literal["better", "worse", "cannot tell"]
    difference: Difference | None
    """Of means, a - b, interval and p corrected for how many comparisons were made at once; None
    with fewer than two runs a side."""
    improvement: Interval
    """How likely a run of `a` beats one of `b`. Not corrected; the verdict does not rest on it."""
    more_runs: int | None
    """Where it cannot tell: about how many more runs a side would, if the difference seen is the
    real one; None where that cannot be said or would be beyond `comparisons.MOST_RUNS`."""

    @property
    def sentence(self) -> str:
        """The verdict in words: `cannot tell; about 7 more seeds a side would be needed`."""
        if self.word != "cannot tell":
            return self.word
        if self.difference is None:
            return "cannot tell; at least two seeds a side are needed"
        if self.more_runs is None:
            return "cannot tell; more seeds would hardly help"
        seeds = "seed" if self.more_runs == 1 else "seeds"
        return f"cannot tell; about {self.more_runs} more {seeds} a side would be needed"


def verdict(a: Runs, b: Runs, confidence: float = 0.95) -> Verdict:
    """Judge one comparison, the only one made; see `verdicts`."""
    return verdicts([(a, b)], confidence)[0]


def verdicts(comparisons: Sequence[tuple[Runs, Runs]], confidence: float = 0.95) -> list[Verdict]:
    """Judge comparisons made at once: `better` or `worse` only where Holm's interval leaves out 0.

    Args:
        comparisons: pairs of groups, each one number a run, higher is better. Comparisons that
            were looked at and left out of this list are not corrected for.
        confidence: chance that none of the words `better` and `worse` is wrong, in (0, 1).

    Returns:
        A verdict for each, in order. With fewer than two runs on a side it is `cannot tell`.

    Raises:
        ValueError: a side without runs, or a number that is not finite.
    """
    pairs = [(runs_of(a), runs_of(b)) for a, b in comparisons]
    tested = [pair for pair in pairs if _enough(*pair)]
    p_values = [difference(a, b).p for a, b in tested]
    corrected = iter(zip(holm(p_values), holm_confidences(p_values, confidence), strict=True))
    return [_judge(a, b, *next(corrected)) if _enough(a, b) else _untold(a, b) for a, b in pairs]


def _enough(a: np.ndarray, b: np.ndarray) -> bool:
    return min(a.size, b.size) >= 2


def _judge(a: np.ndarray, b: np.ndarray, p: float, confidence: float) -> Verdict:
    """The verdict from Holm's `p` and the `confidence` of the interval that goes with it."""
    apart = replace(difference(a, b, confidence), p=p)
    improvement = probability_of_improvement([a], [b])
    if apart.low > 0:
        return Verdict("better", apart, improvement, None)
    if apart.high < 0:
        return Verdict("worse", apart, improvement, None)
    needed = runs_needed(a, b, confidence=confidence)
    more = None if needed is None else max(1, needed - apart.n)
    return Verdict("cannot tell", apart, improvement, more)


def _untold(a: np.ndarray, b: np.ndarray) -> Verdict:
    return Verdict("cannot tell", None, probability_of_improvement([a], [b]), None)
