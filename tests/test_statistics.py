"""The mean's interval: known cases, and its coverage measured by simulation."""

import numpy as np
import pytest

from rl_lab.statistics import mean_interval


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


def test_no_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


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
