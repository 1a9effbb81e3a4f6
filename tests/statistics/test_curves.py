"""Profiles, learning curves and times to a threshold: known cases, rliable, properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lab.statistics import (
    first_reach,
    mean,
    performance_profile,
    sample_efficiency,
    time_to_threshold,
)
from tests.statistics.samples import NOT_RUNS, tasks
from tests.statistics.test_aggregates import REFERENCE

quick = settings(max_examples=30, deadline=None)


@pytest.mark.parametrize("name", REFERENCE)
def test_profiles_are_those_of_rliable(name: str) -> None:
    kept = REFERENCE[name]
    known, ours = kept["profile"], performance_profile(kept["a"], kept["profile"]["taus"])
    assert ours.x == tuple(known["taus"])
    assert ours.mean == pytest.approx(known["mean"], abs=1e-9)
    # Shares of so many runs move in steps; two bootstraps' ends differ by one step at most.
    step = 1 / (len(kept["a"]) * len(kept["a"][0])) + 1e-9
    assert ours.low == pytest.approx(known["low"], abs=step)
    assert ours.high == pytest.approx(known["high"], abs=step)


@quick
@given(tasks())
def test_a_profile_falls_from_one_to_none(scores: list[list[float]]) -> None:
    every = np.concatenate(scores)
    taus = [every.min() - 1, *np.quantile(every, [0.3, 0.6]), every.max()]
    band = performance_profile(scores, taus)
    assert (band.mean[0], band.mean[-1]) == (1, 0)
    assert (np.diff(band.mean) <= 0).all()
    for low, at, high in zip(band.low, band.mean, band.high, strict=True):
        assert 0 <= low <= at <= high <= 1 + 1e-9


def test_curves_meet_on_a_common_grid() -> None:
    curves = [([0.0, 100.0], [0.0, 10.0]), ([0.0, 50.0, 100.0], [2.0, 2.0, 2.0])]
    band = sample_efficiency([curves], mean, points=5)
    assert band.x == (0, 25, 50, 75, 100)
    assert band.mean == pytest.approx([1, 2.25, 3.5, 4.75, 6])
    assert band.n == 2
    for low, at, high in zip(band.low, band.mean, band.high, strict=True):
        assert low <= at <= high


def test_a_run_that_ended_early_keeps_its_last_score() -> None:
    curves = [([10.0, 20.0], [0.0, 8.0]), ([0.0, 40.0], [0.0, 4.0])]
    band = sample_efficiency([curves], mean, points=4)
    assert band.x == (10, 20, 30, 40)
    assert band.mean == pytest.approx([0.5, 5, 5.5, 6])


def test_whole_runs_are_drawn_again() -> None:
    # Two flat curves: the same draws at every step give the same interval at every step.
    curves = [([0.0, 9.0], [score, score]) for score in (0.0, 1.0, 5.0)]
    band = sample_efficiency([curves], points=4)
    assert len(set(band.low)) == len(set(band.high)) == 1
    assert sample_efficiency([curves], points=4) == band


@pytest.mark.parametrize(
    "wrong", [[], [[]], [[([0.0, 0.0], [1.0, 2.0])]], [[([0.0], [1.0, 2.0])]], [[([], [])]]]
)
def test_what_are_not_curves_is_refused(wrong: list) -> None:
    with pytest.raises(ValueError, match=r"no runs|increase|scores|no values"):
        sample_efficiency(wrong)


def test_when_a_curve_first_reaches_a_threshold() -> None:
    assert first_reach([10.0, 20.0, 30.0], [1.0, 5.0, 4.0], 4.5) == (20.0, True)
    assert first_reach([10.0, 20.0, 30.0], [1.0, 5.0, 4.0], 6.0) == (30.0, False)


def test_kaplan_meier_of_a_known_case() -> None:
    # By hand: at risk 6, 5, 3, 1; left 5/6, 4/6, 4/9, 0. The greatest time was seen to happen.
    found = time_to_threshold([1, 2, 2.5, 3, 4, 5], [True, True, False, True, False, True])
    assert found.median == 3
    assert found.low == 1  # log-log limits at 1 reach from 0.27 to 0.97
    assert found.high is None
    assert (found.reached.mean, found.reached.n) == (pytest.approx(4 / 6), 6)


def test_runs_that_never_got_there_are_not_dropped() -> None:
    found = time_to_threshold([1.0, 2.0, 9.0, 9.0, 9.0], [True, True, False, False, False])
    assert (found.median, found.low, found.high) == (None, 1, None)
    nobody = time_to_threshold([9.0] * 4, [False] * 4)
    assert (nobody.median, nobody.low, nobody.high, nobody.reached.mean) == (None, None, None, 0)


def test_runs_that_all_get_there_at_once_leave_no_doubt_if_they_are_enough() -> None:
    ten, three = (
        time_to_threshold([7.0] * 10, [True] * 10),
        time_to_threshold([7.0] * 3, [True] * 3),
    )
    assert (ten.median, ten.low, ten.high) == (7, 7, 7)
    assert (three.median, three.high) == (7, None)


def test_the_interval_of_the_median_time_covers_it() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        times, ends = rng.exponential(1, 20), rng.uniform(0.5, 4, 20)
        found = time_to_threshold(np.minimum(times, ends), list(times <= ends))
        low, high = found.low or np.inf, found.high or np.inf
        held += low <= np.log(2) <= high
    assert 0.92 <= held / 400 <= 0.99


@quick
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12))
def test_the_median_time_lies_in_its_interval(found_at: list[tuple[int, bool]]) -> None:
    times, reached = zip(*found_at, strict=True)
    found = time_to_threshold(times, reached)
    median, high = found.median or np.inf, found.high or np.inf
    assert (found.low or np.inf) <= median <= high
    if all(reached):
        assert found.median == sorted(times)[(len(times) - 1) // 2]


@pytest.mark.parametrize("wrong", NOT_RUNS)
def test_what_are_not_times_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values|finite|number a run"):
        time_to_threshold(wrong, [True] * len(wrong))


def test_as_many_outcomes_as_times_are_wanted() -> None:
    with pytest.raises(ValueError, match="2 times, but 1"):
        time_to_threshold([1.0, 2.0], [True])
