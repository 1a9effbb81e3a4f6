"""Intervals of means and shares: known cases, and coverage measured by simulation."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rl_lab.statistics import (
    FEW,
    Interval,
    few_runs,
    mean_interval,
    runs_interval,
    wilson_interval,
)
from tests.statistics.samples import NOT_RUNS, number, runs


def test_the_interval_holds_the_mean_and_shrinks_with_n() -> None:
    data = np.random.default_rng(0).normal(size=400)
    wide, narrow = mean_interval(data[:20]), mean_interval(data)
    assert wide.low < wide.mean < wide.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert (wide.n, narrow.n) == (20, 400)


def test_of_a_large_sample_it_is_the_normal_interval() -> None:
    data = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    interval = mean_interval(data)
    half = 1.96 * data.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(data.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(data.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("values", [[5.0], [5.0] * 20])
def test_without_spread_it_is_the_value(values: list[float]) -> None:
    interval = mean_interval(values)
    assert (interval.mean, interval.low, interval.high) == (5.0, 5.0, 5.0)


def test_one_value_that_differs_gives_a_finite_interval() -> None:
    interval = mean_interval([500.0] * 19 + [9.0])
    assert np.isfinite([interval.low, interval.high]).all()
    assert interval.low < interval.mean <= interval.high


@pytest.mark.parametrize("wrong", NOT_RUNS)
@pytest.mark.parametrize("function", [mean_interval, runs_interval])
def test_what_are_not_values_is_refused(
    function: Callable[[list[float]], Interval], wrong: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"no values|finite|number a run"):
        function(wrong)


def test_over_runs_it_is_students_interval() -> None:
    values = [3.0, 5.0, 4.0, 8.0]
    interval, known = runs_interval(values), stats.ttest_1samp(values, 0).confidence_interval()
    assert (interval.mean, interval.n) == (5.0, 4)
    assert (interval.low, interval.high) == pytest.approx((known.low, known.high))
    assert runs_interval([0.1] * 3) == Interval(0.1, 0.1, 0.1, 3)


def test_over_three_runs_it_covers_the_truth_where_the_bootstrap_does_not() -> None:
    samples = np.random.default_rng(0).normal(size=(400, 3))
    student, bootstrap = (
        np.mean([interval.low <= 0 <= interval.high for interval in map(function, samples)])
        for function in (runs_interval, mean_interval)
    )
    assert student > 0.91
    assert bootstrap < 0.82


@given(runs(), number, st.sampled_from([0.5, 1.0, 4.0]))
@settings(max_examples=50, deadline=None)
def test_shifted_and_scaled_values_shift_and_scale_the_interval(
    values: list[float], by: float, times: float
) -> None:
    ours, plain = runs_interval([times * value + by for value in values]), runs_interval(values)
    for end, known in [(ours.low, plain.low), (ours.high, plain.high)]:
        assert end == pytest.approx(times * known + by, rel=1e-6, abs=1e-3)


@given(runs())
@settings(max_examples=30, deadline=None)
def test_the_interval_holds_the_mean(values: list[float]) -> None:
    for interval in (runs_interval(values), mean_interval(values)):
        assert interval.low <= interval.mean <= interval.high
        assert interval.n == len(values)


@pytest.mark.parametrize(("n", "warned"), [(1, True), (FEW - 1, True), (FEW, False), (50, False)])
def test_few_runs_are_warned_of(n: int, warned: bool) -> None:
    warning = few_runs(n)
    assert (warning is not None) == warned
    assert warning is None or warning.startswith(f"only {n} run")


def test_it_is_the_same_every_time() -> None:
    assert mean_interval([1.0, 2.0, 4.0]) == mean_interval([1.0, 2.0, 4.0])


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    covered = sum(
        interval.low <= 0.0 <= interval.high
        for interval in (mean_interval(generator.normal(size=30)) for _ in range(200))
    )
    # 95 % nominal; BCa of 30 normal values covers 93-94 %; three standard errors are 5 %.
    assert covered / 200 >= 0.88


def test_wilson_interval_of_a_known_case() -> None:
    interval = wilson_interval(8, 10)
    known = stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert (interval.mean, interval.n) == (0.8, 10)
    assert (interval.low, interval.high) == pytest.approx((known.low, known.high))


@pytest.mark.parametrize(("successes", "mean"), [(0, 0.0), (5, 1.0), (2.5, 0.5)])
def test_wilson_interval_stays_inside_and_is_never_a_point(successes: float, mean: float) -> None:
    interval = wilson_interval(successes, 5)
    assert interval.mean == mean
    assert 0 <= interval.low <= mean <= interval.high <= 1
    assert interval.high - interval.low > 0.3


def test_wilson_interval_covers_a_rare_event() -> None:
    rng = np.random.default_rng(0)
    intervals = [wilson_interval(int(k), 50) for k in rng.binomial(50, 0.05, size=2000)]
    covered = np.mean([interval.low <= 0.05 <= interval.high for interval in intervals])
    assert 0.92 < covered < 0.99


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_interval_of_no_sense_is_an_error(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="trials"):
        wilson_interval(successes, n)
