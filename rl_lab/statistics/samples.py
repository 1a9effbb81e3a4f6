"""What the statistics take: runs of one task, or of several, as arrays of finite numbers."""

from collections.abc import Sequence

import numpy as np

Runs = Sequence[float] | np.ndarray
"""One number a run, of one task."""
Scores = Sequence[Runs] | np.ndarray
"""Tasks x runs. Tasks may have different numbers of runs."""

RESAMPLES = 9999
"""Of a bootstrap interval."""


def runs_of(values: Runs) -> np.ndarray:
    """Return the values as an array (runs,).

    Raises:
        ValueError: there are none, one is NaN or infinite, or they are not one number a run.
    """
    runs = np.asarray(values, dtype=float)
    if runs.ndim != 1:
        raise ValueError(f"one number a run is wanted, not an array of shape {runs.shape}")
    if runs.size == 0:
        raise ValueError("no values")
    if not np.isfinite(runs).all():
        raise ValueError("a value is not a finite number")
    return runs


def tasks_of(scores: Scores) -> list[np.ndarray]:
    """Return one array (runs,) a task.

    Raises:
        ValueError: there are no tasks, or one has no runs or a number that is not finite.
    """
    if len(scores) == 0:
        raise ValueError("no tasks")
    return [runs_of(runs) for runs in scores]


def fewest_runs(*groups: list[np.ndarray]) -> int:
    """Return the smallest number of runs of any task: how far one may trust what rests on them."""
    return min(runs.size for tasks in groups for runs in tasks)


def resampled_runs(
    tasks: Sequence[np.ndarray], resamples: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw runs with replacement, within each task: which run stands where, (resamples, runs)."""
    counts = [runs.shape[-1] for runs in tasks]
    return [rng.integers(runs, size=(resamples, runs)) for runs in counts]


def percentiles(
    estimate: np.ndarray, draws: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the middle share `confidence` of bootstrap draws (..., resamples).

    They hold the estimate (...) between them, which rounding or a biased statistic might leave out.
    """
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=-1)
    return np.minimum(low, estimate), np.maximum(high, estimate)
