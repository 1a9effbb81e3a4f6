"""One number for many runs of several tasks (Agarwal et al., 2021, "Deep RL at the edge of the
statistical precipice"), with stratified bootstrap intervals.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rl_lab.statistics.intervals import Interval
from rl_lab.statistics.samples import (
    RESAMPLES,
    Scores,
    fewest_runs,
    percentiles,
    resampled_runs,
    tasks_of,
)

Tasks = Sequence[np.ndarray]
"""One array a task, runs along its last axis; before it, axes of resamples or of experiments."""
Statistic = Callable[[Tasks], np.ndarray]
"""Reduces tasks and runs to one number, for each of the axes before them."""


def iqm(tasks: Tasks) -> np.ndarray:
    """Interquartile mean: of all runs of all tasks, without the lowest and the highest quarter.

    Of n runs in all, n // 4 are left out at each end, so of 3 it is the plain mean. A task with
    more runs weighs more.
    """
    runs = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    left_out = runs.shape[-1] // 4
    return runs[..., left_out : runs.shape[-1] - left_out].mean(axis=-1)


def mean(tasks: Tasks) -> np.ndarray:
    """Mean over tasks of the mean over their runs."""
    return _task_means(tasks).mean(axis=0)


def median(tasks: Tasks) -> np.ndarray:
    """Median over tasks of the mean over their runs; of one task its mean."""
    return np.median(_task_means(tasks), axis=0)


def optimality_gap(tasks: Tasks) -> np.ndarray:
    """How far scores fall short of 1 (the wanted score), in the mean; what is beyond 1 counts as 1.

    Lower is better.
    """
    return 1 - _task_means([np.minimum(runs, 1) for runs in tasks]).mean(axis=0)


def aggregate_interval(
    scores: Scores,
    statistic: Statistic = iqm,
    confidence: float = 0.95,
) -> Interval:
    """An aggregate over tasks and runs, with its stratified bootstrap interval (percentiles).

    Runs are drawn again within each task, tasks are not: the interval is about other seeds, not
    about other tasks. The same every time it is asked.

    Args:
        scores: tasks x runs, comparable between tasks (normalised) where there are several.
        statistic: `iqm`, `mean`, `median` or `optimality_gap`.
        confidence: nominal coverage, in (0, 1). With few runs the real coverage is lower.

    Returns:
        The interval; its `n` is the number of runs of the task that has fewest.

    Raises:
        ValueError: there are no tasks, or one has no runs or a number that is not finite.
    """
    tasks = tasks_of(scores)
    estimate, low, high = bootstrap(tasks, statistic, confidence, RESAMPLES)
    return Interval(float(estimate), float(low), float(high), fewest_runs(tasks))


def bootstrap(
    tasks: Tasks, statistic: Statistic, confidence: float, resamples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return estimate, low and high, of every experiment at once where tasks are (..., runs)."""
    drawn = resampled_runs(tasks, resamples, np.random.default_rng(0))
    estimate = statistic(tasks)
    draws = statistic([runs.take(index, axis=-1) for runs, index in zip(tasks, drawn, strict=True)])
    return estimate, *percentiles(estimate, draws, confidence)


def _task_means(tasks: Tasks) -> np.ndarray:
    return np.stack([runs.mean(axis=-1) for runs in tasks])
