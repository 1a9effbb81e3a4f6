"""What is shown as a curve: performance profiles, scores over training, time to a threshold."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rl_lab.statistics.aggregates import Statistic, bootstrap, iqm, mean
from rl_lab.statistics.intervals import Interval, wilson_interval
from rl_lab.statistics.samples import (
    Runs,
    Scores,
    fewest_runs,
    runs_of,
    tasks_of,
)

BAND_RESAMPLES = 2000
"""Of a band, at each of its points; rliable's number for profiles."""
Curve = tuple[Runs, Runs]
"""Of one run: steps, strictly increasing, and a score at each."""


@dataclass(frozen=True)
class Band:
    """A curve with a confidence interval at each point (not of the curve as a whole)."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    """The estimate at each x."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int
    """How many runs it rests on; of several tasks, how many the smallest of them has."""


@dataclass(frozen=True)
class TimeToThreshold:
    """When half the runs have reached a threshold (Kaplan-Meier), and how many ever did."""

    median: float | None
    """In steps; None: not reached by half the runs."""
    low: float | None
    """Lower end of the median's interval; None: not reached even at the hopeful end."""
    high: float | None
    """Upper end; None: the runs do not bound it, it may never be reached."""
    reached: Interval
    """Share of runs that reached it, with Wilson's interval."""


def performance_profile(scores: Scores, taus: Sequence[float], confidence: float = 0.95) -> Band:
    """Share of runs that score above each tau (Dolan & Moré, 2002; Agarwal et al., 2021).

    The mean over tasks of the share of their runs, with a stratified bootstrap interval at each
    tau. The same every time it is asked.

    Args:
        scores: tasks x runs, comparable between tasks (normalised) where there are several.
        taus: thresholds, in increasing order.
        confidence: nominal coverage at each tau, in (0, 1).

    Raises:
        ValueError: there are no tasks, or one has no runs or a number that is not finite.
    """
    tasks = tasks_of(scores)
    above = [[(runs > tau).astype(float) for runs in tasks] for tau in taus]
    return _band(taus, above, mean, confidence)


def sample_efficiency(
    tasks: Sequence[Sequence[Curve]],
    statistic: Statistic = iqm,
    points: int = 100,
    confidence: float = 0.95,
) -> Band:
    """An aggregate of learning curves at each step, with its stratified bootstrap interval.

    Curves are interpolated linearly on `points` steps, from the first at which every run has a
    score to the last of any. A run that ended earlier keeps its last score: it stopped because it
    was good enough, and leaving it out would let the slow ones speak alone. Whole runs are drawn
    again, within each task. The same every time it is asked.

    Args:
        tasks: for each task the curve of each run; of one task, `[runs]`.
        statistic: see `aggregates`.
        points: of the common grid, at least 2.
        confidence: nominal coverage at each step, in (0, 1).

    Raises:
        ValueError: no tasks, one without runs, steps that do not increase, not as many scores as
            steps, or a number that is not finite.
    """
    curves = [[_curve(*curve) for curve in task] for task in tasks]
    if not curves or not all(curves):
        raise ValueError("no runs")
    first = max(steps[0] for task in curves for steps, _ in task)
    last = max(steps[-1] for task in curves for steps, _ in task)
    grid = np.linspace(first, last, points)
    on_grid = [np.stack([np.interp(grid, *curve) for curve in task]) for task in curves]
    at_each = [[runs[:, point] for runs in on_grid] for point in range(points)]
    return _band(grid, at_each, statistic, confidence)


def first_reach(steps: Runs, scores: Runs, threshold: float) -> tuple[float, bool]:
    """When a run's curve first reaches a threshold: its step and True, or its last and False."""
    steps, scores = _curve(steps, scores)
    hits = np.flatnonzero(scores >= threshold)
    return (float(steps[hits[0]]), True) if hits.size else (float(steps[-1]), False)


def time_to_threshold(
    times: Runs, reached: Sequence[bool], confidence: float = 0.95
) -> TimeToThreshold:
    """When half the runs have reached a threshold, counting those that never did.

    Kaplan & Meier's estimator (1958): a run that never got there is known to take longer than its
    last step (censored), which dropping it would hide. The interval of the median is Brookmeyer &
    Crowley's (1982), from log-log limits of the survival curve.

    Args:
        times: for each run the step at which it reached the threshold, or its last step.
        reached: for each run whether it did.
        confidence: nominal coverage, in (0, 1).

    Raises:
        ValueError: there are no runs, a number is not finite, or lengths differ.
    """
    steps = runs_of(times)
    if len(reached) != steps.size:
        raise ValueError(f"{steps.size} times, but {len(reached)} runs that reached or did not")
    share = wilson_interval(sum(map(bool, reached)), steps.size, confidence)
    sample = stats.CensoredData.right_censored(steps, [not there for there in reached])
    survival = stats.ecdf(sample).sf
    with warnings.catch_warnings():
        # The limits are undefined (NaN) where all or no runs are left.
        warnings.simplefilter("ignore", category=RuntimeWarning)
        limits = survival.confidence_interval(confidence, method="log-log")
    left = survival.probabilities
    low = np.where(left == 1, 1.0, np.where(left == 0, 0.0, limits.low.probabilities))
    # Where none is left, the limit of a share of 0 among those that reached (Clopper & Pearson).
    none_left = 1 - ((1 - confidence) / 2) ** (1 / max(1, sum(reached)))
    high = np.where(left == 1, 1.0, np.where(left == 0, none_left, limits.high.probabilities))
    return TimeToThreshold(
        median=_first_at_half(survival.quantiles, left),
        low=_first_at_half(survival.quantiles, low),
        high=_first_at_half(survival.quantiles, high),
        reached=share,
    )


def _first_at_half(steps: np.ndarray, left: np.ndarray) -> float | None:
    """The first step at which half the runs or fewer are left, if there is one."""
    hits = np.flatnonzero(left <= 0.5)
    return float(steps[hits[0]]) if hits.size else None


def _curve(steps: Runs, scores: Runs) -> tuple[np.ndarray, np.ndarray]:
    steps, scores = runs_of(steps), runs_of(scores)
    if steps.size != scores.size:
        raise ValueError(f"{steps.size} steps, but {scores.size} scores")
    if (np.diff(steps) <= 0).any():
        raise ValueError("the steps of a curve do not increase")
    return steps, scores


def _band(
    x: Runs, at_each: list[list[np.ndarray]], statistic: Statistic, confidence: float
) -> Band:
    """The statistic, with its interval, of what the tasks' runs are `at_each` x."""
    points = [bootstrap(tasks, statistic, confidence, BAND_RESAMPLES) for tasks in at_each]
    estimates, lows, highs = (
        [float(value) for value in values] for values in zip(*points, strict=True)
    )
    steps = tuple(float(at) for at in x)
    return Band(steps, tuple(estimates), tuple(lows), tuple(highs), fewest_runs(at_each[0]))
