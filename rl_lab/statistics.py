"""Statistics of results: pure functions on plain numbers, scipy underneath."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int
    """How many values it rests on."""


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean with a bootstrap interval (BCa; Efron, 1987), the same every time it is asked.

    Args:
        values: independent observations, at least one.
        confidence: nominal coverage, in (0, 1). With few values the real coverage is lower.

    Returns:
        The interval. Of one value, or of equal values, it is that value alone: the data show no
        spread to judge by.

    Raises:
        ValueError: there are no values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise ValueError("no values to take the mean of")
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


def _bootstrap(data: np.ndarray, confidence: float, method: str) -> tuple[float, float]:
    result = stats.bootstrap(
        (data,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, method=method,
        rng=np.random.default_rng(0), vectorized=True,
    )  # fmt: skip
    interval = result.confidence_interval
    return float(interval.low), float(interval.high)
