"""An estimate never stands alone: its confidence interval, and how many values it rests on."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rl_lab.statistics.samples import RESAMPLES, Runs, runs_of

FEW = 5
"""Fewer runs than this are warned of."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    mean: float
    """The estimate; of an aggregate or a share, that."""
    low: float
    high: float
    n: int
    """How many values it rests on; of several tasks or sides, how many the smallest of them has."""


def few_runs(n: int) -> str | None:
    """Return a plain warning where `n` runs are fewer than `FEW`, None otherwise."""
    if n >= FEW:
        return None
    runs = "1 run" if n == 1 else f"{n} runs"
    return f"only {runs}: other seeds may come out quite differently; train at least {FEW}"


def mean_interval(values: Runs, confidence: float = 0.95) -> Interval:
    """Mean with a bootstrap interval (BCa; Efron, 1987), the same every time it is asked.

    Args:
        values: independent observations, at least one.
        confidence: nominal coverage, in (0, 1). With few values the real coverage is lower.

    Returns:
        The interval. Of one value, or of equal values, it is that value alone: the data show no
        spread to judge by.

    Raises:
        ValueError: there are no values, or one is NaN or infinite.
    """
    data = runs_of(values)
    mean = float(data.mean())
    if data.size == 1 or np.ptp(data) == 0:
        return Interval(mean, mean, mean, data.size)
    with warnings.catch_warnings():
        # BCa's correction is undefined for some samples (nearly all values equal).
        warnings.simplefilter("ignore", category=stats.DegenerateDataWarning)
        low, high = _bootstrap(data, confidence, "BCa")
        if not (np.isfinite(low) and np.isfinite(high)):
            low, high = _bootstrap(data, confidence, "percentile")
    return Interval(mean, low, high, data.size)


def runs_interval(values: Runs, confidence: float = 0.95) -> Interval:
    """Mean of one number a run (seed), with Student's t interval: for few runs.

    The bootstrap of `mean_interval` takes the spread of few values for the whole: of 3, 5 and 10
    normal runs it covers the truth in 72, 85 and 89 %, this in 94, 96 and 96 % (scripts/coverage).

    Args:
        values: one number a run, at least one.
        confidence: nominal coverage, in (0, 1).

    Returns:
        The interval. Of one value, or of equal values, it is that value alone: the data show no
        spread to judge by.

    Raises:
        ValueError: there are no values, or one is NaN or infinite.
    """
    runs = runs_of(values)
    if np.ptp(runs) == 0:
        return Interval(float(runs[0]), float(runs[0]), float(runs[0]), runs.size)
    mean, error = float(runs.mean()), float(stats.sem(runs))
    half = float(stats.t.ppf((1 + confidence) / 2, runs.size - 1)) * error
    return Interval(mean, mean - half, mean + half, runs.size)


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Share of successes with Wilson's score interval (1927): sound at 0, at 1 and for small n.

    Args:
        successes: how many of `n`, in [0, n]; a draw may count half.
        n: independent trials, at least one.
        confidence: nominal coverage, in (0, 1).

    Returns:
        The interval, inside [0, 1]; its `mean` is `successes / n`, which is not its middle.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} trials")
    share = successes / n
    z = float(stats.norm.ppf((1 + confidence) / 2))
    shrink = 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At the ends the bound is the share itself; rounding must not carry it past.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return Interval(share, low, high, n)


def _bootstrap(data: np.ndarray, confidence: float, method: str) -> tuple[float, float]:
    result = stats.bootstrap(
        (data,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, method=method,
        rng=np.random.default_rng(0), vectorized=True,
    )  # fmt: skip
    interval = result.confidence_interval
    return float(interval.low), float(interval.high)
