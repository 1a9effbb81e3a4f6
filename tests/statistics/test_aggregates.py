"""Aggregates over tasks and runs: against scipy, against rliable, and by their properties."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rl_lab.statistics import (
    aggregate_interval,
    iqm,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
)
from rl_lab.statistics.aggregates import Statistic
from tests.statistics.samples import NOT_RUNS, number, tasks

STATISTICS = [iqm, mean, median, optimality_gap]
REFERENCE = json.loads(
    (Path(__file__).parents[1] / "rliable_reference.json").read_text(encoding="utf-8")
)
quick = settings(max_examples=50, deadline=None)


def assert_close_to_rliable(ours: Any, theirs: dict[str, Any], runs: int) -> None:
    """Estimates are equal; intervals are two bootstraps of the same data.

    The end of a percentile interval of B resamples has a standard error of about
    sqrt(0.025 x 0.975 / B) / density there, which for a normal of standard deviation s is
    0.16 / sqrt(B) / 0.058 = 2.7 s / sqrt(B). With s a quarter of the interval and rliable's
    B = 2,000 (ours, 9,999, adds a fifth), that is 1.7 % of its width; four of these are 7 %. What
    takes few values (5 runs of one task) moves by one of its steps instead.
    """
    assert ours.mean == pytest.approx(theirs["mean"], abs=1e-9)
    width = theirs["high"] - theirs["low"]
    tolerance = (0.07 if runs > 5 else 0.15) * width
    assert ours.low == pytest.approx(theirs["low"], abs=tolerance)
    assert ours.high == pytest.approx(theirs["high"], abs=tolerance)


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_aggregates_are_those_of_rliable(name: str, statistic: Statistic) -> None:
    kept = REFERENCE[name]
    ours = aggregate_interval(kept["a"], statistic)
    assert_close_to_rliable(ours, kept["aggregates"][statistic.__name__], len(kept["a"][0]))


@pytest.mark.parametrize("name", REFERENCE)
def test_probability_of_improvement_is_that_of_rliable(name: str) -> None:
    kept = REFERENCE[name]
    ours = probability_of_improvement(kept["a"], kept["b"])
    assert_close_to_rliable(ours, kept["probability_of_improvement"], len(kept["a"][0]))
    assert ours.n == min(len(kept["a"][0]), len(kept["b"][0]))


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 8, 11])
def test_iqm_is_scipys_trimmed_mean(runs: int) -> None:
    scores = np.random.default_rng(runs).normal(size=(3, runs))
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


def test_a_task_with_more_runs_weighs_no_more_in_the_mean() -> None:
    ragged = [[0.0], [1.0, 1.0, 1.0]]
    assert aggregate_interval(ragged, mean).mean == 0.5
    assert aggregate_interval(ragged, median).mean == 0.5
    assert aggregate_interval(ragged, optimality_gap).mean == 0.5
    assert aggregate_interval(ragged, mean).n == 1


def test_the_optimality_gap_counts_nothing_beyond_one() -> None:
    assert aggregate_interval([[0.5, 3.0]], optimality_gap).mean == 0.25


def test_runs_are_drawn_within_tasks_only() -> None:
    # Tasks far apart, runs of each equal: nothing to draw differently.
    interval = aggregate_interval([[0.0] * 5, [100.0] * 5], mean)
    assert (interval.low, interval.high) == (50.0, 50.0)


def test_more_runs_narrow_the_interval_and_lower_confidence_does() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 40))
    wide, narrow = aggregate_interval(scores[:, :10]), aggregate_interval(scores)
    assert narrow.high - narrow.low < 0.7 * (wide.high - wide.low)
    sure = aggregate_interval(scores, confidence=0.5)
    assert sure.high - sure.low < 0.5 * (narrow.high - narrow.low)


@quick
@given(tasks(), st.sampled_from(STATISTICS))
def test_the_interval_holds_the_estimate_and_stays_among_the_scores(
    scores: list[list[float]], statistic: Statistic
) -> None:
    interval = aggregate_interval(scores, statistic)
    assert interval.low <= interval.mean <= interval.high
    assert interval == aggregate_interval(scores, statistic)
    every = np.concatenate(scores)
    if statistic is not optimality_gap:
        slack = 1e-9 * np.abs(every).max()
        assert every.min() - slack <= interval.low <= interval.high <= every.max() + slack


@quick
@given(tasks(), st.sampled_from([iqm, mean, median]), number, st.sampled_from([0.25, 1.0, 4.0]))
def test_shifted_and_scaled_scores_shift_and_scale_the_interval(
    scores: list[list[float]], statistic: Statistic, by: float, times: float
) -> None:
    plain = aggregate_interval(scores, statistic)
    moved = aggregate_interval([times * np.asarray(runs) + by for runs in scores], statistic)
    for ours, theirs in [
        (moved.mean, plain.mean),
        (moved.low, plain.low),
        (moved.high, plain.high),
    ]:
        assert ours == pytest.approx(times * theirs + by, rel=1e-9, abs=1e-6)


@quick
@given(tasks(), st.sampled_from(STATISTICS), st.randoms(use_true_random=False))
def test_the_order_of_runs_and_tasks_does_not_matter(
    scores: list[list[float]], statistic: Statistic, random: Any
) -> None:
    mixed = [random.sample(runs, len(runs)) for runs in scores]
    random.shuffle(mixed)
    ours = aggregate_interval(mixed, statistic)
    assert ours.mean == pytest.approx(aggregate_interval(scores, statistic).mean, abs=1e-6)


@pytest.mark.parametrize("wrong", NOT_RUNS)
def test_what_are_not_scores_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values|finite|number a run"):
        aggregate_interval([[1.0], wrong])


def test_no_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="no tasks"):
        aggregate_interval([])
