"""Differences, chances of improvement and corrections: against scipy, and by their properties."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rl_lab.statistics import (
    difference,
    holm,
    holm_confidences,
    paired_difference,
    probability_of_improvement,
    runs_needed,
)
from rl_lab.statistics.comparisons import MOST_RUNS
from tests.statistics.samples import NOT_RUNS, runs, two_sides

quick = settings(max_examples=50, deadline=None)
p_value = st.floats(0, 1)


def test_the_difference_is_scipys_welch_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 7), rng.normal(0, 0.5, 4)
    ours, known = difference(a, b), stats.ttest_ind(a, b, equal_var=False)
    ends = known.confidence_interval(0.95)
    assert ours.mean == pytest.approx(a.mean() - b.mean())
    assert (ours.low, ours.high, ours.p) == pytest.approx((ends.low, ends.high, known.pvalue))
    assert ours.n == 4


def test_the_paired_difference_is_scipys_and_narrower_where_pairs_move_alike() -> None:
    rng = np.random.default_rng(0)
    b = rng.normal(0, 5, 10)
    a = b + rng.normal(1, 0.5, 10)
    ours, known = paired_difference(a, b), stats.ttest_rel(a, b)
    ends = known.confidence_interval(0.95)
    assert (ours.low, ours.high, ours.p) == pytest.approx((ends.low, ends.high, known.pvalue))
    unpaired = difference(a, b)
    assert ours.low > 0 > unpaired.low


@quick
@given(runs(2), runs(2), st.sampled_from([0.8, 0.95, 0.99]))
def test_p_and_interval_say_the_same(a: list[float], b: list[float], confidence: float) -> None:
    found = difference(a, b, confidence)
    assert found.low <= found.mean <= found.high
    assert 0 <= found.p <= 1
    if abs(found.p - (1 - confidence)) > 1e-9:
        assert (found.p < 1 - confidence) == (found.low > 0 or found.high < 0)
    back = difference(b, a, confidence)
    assert (back.low, back.high, back.p) == pytest.approx((-found.high, -found.low, found.p))


def test_values_without_spread_are_told_apart_only_with_enough_of_them() -> None:
    # Of 3 + 3 runs one order in ten separates them by chance; of 5 + 5, one in 126.
    few, enough = difference([500.0] * 3, [9.0] * 3), difference([500.0] * 5, [9.0] * 5)
    assert (few.low, few.high, few.p) == (0.0, 491.0, pytest.approx(0.1))
    assert (enough.low, enough.high) == (491.0, 491.0)
    assert enough.p == pytest.approx(stats.mannwhitneyu([1] * 5, [0] * 5, method="exact").pvalue)
    # 0.1 has no exact sum: rounding must not pass for spread or difference.
    same = difference([0.1] * 3, [0.1] * 7)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_pairs_that_all_differ_alike_are_judged_by_their_signs() -> None:
    assert paired_difference([2.0] * 3, [1.0] * 3).p == 0.25
    assert paired_difference([2.0] * 3, [1.0] * 3).low == 0
    assert paired_difference([2.0] * 6, [1.0] * 6).low == 1
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).p == 1


@quick
@given(two_sides)
def test_chances_of_both_sides_add_up_to_one(
    sides: tuple[list[list[float]], list[list[float]]],
) -> None:
    a, b = sides
    ours = probability_of_improvement(a, b)
    theirs = probability_of_improvement(b, a)
    assert ours.mean + theirs.mean == pytest.approx(1)
    assert 0 <= ours.low <= ours.mean <= ours.high <= 1


def test_ties_count_half() -> None:
    assert probability_of_improvement([[1.0, 2.0]], [[1.0, 2.0]]).mean == 0.5
    assert probability_of_improvement([[1.0]], [[1.0]]).mean == 0.5
    assert probability_of_improvement([[1.0, 3.0]], [[1.0]]).mean == 0.75


@quick
@given(two_sides)
def test_only_the_order_of_scores_counts_for_improvement(
    sides: tuple[list[list[float]], list[list[float]]],
) -> None:
    a, b = sides
    cubed = [[[score**3 for score in task] for task in side] for side in (a, b)]
    plain = probability_of_improvement(a, b)
    assert probability_of_improvement(*cubed) == plain


def test_other_tasks_on_one_side_are_refused() -> None:
    with pytest.raises(ValueError, match="2 tasks on one side, 1"):
        probability_of_improvement([[1.0], [2.0]], [[1.0]])


def test_holm_of_a_known_case() -> None:
    # Holm (1979) by hand: 4 x 0.01, 3 x 0.02, 2 x 0.03 (not below the one before), 0.04 likewise.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.0, 0.5]) == [0, 0.5]
    assert holm([]) == []


@quick
@given(st.lists(p_value, min_size=1, max_size=6))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    corrected = np.array(holm(p))
    bonferroni = np.minimum(1, len(p) * np.array(p))
    assert (corrected >= np.array(p) - 1e-12).all()
    assert (corrected <= bonferroni + 1e-12).all()
    assert (np.diff(corrected[np.argsort(p)]) >= -1e-12).all()


@quick
@given(st.lists(st.tuples(runs(2), runs(2)), min_size=1, max_size=5))
def test_the_corrected_interval_leaves_out_zero_where_holms_p_says_so(
    pairs: list[tuple[list[float], list[float]]],
) -> None:
    p_values = [difference(a, b).p for a, b in pairs]
    confidences = holm_confidences(p_values)
    for (a, b), p, confidence in zip(pairs, holm(p_values), confidences, strict=True):
        wide = difference(a, b, confidence)
        assert confidence >= 0.95 - 1e-12
        if abs(p - 0.05) > 1e-9:
            assert (p < 0.05) == (wide.low > 0 or wide.high < 0)


def test_as_many_runs_as_needed_have_the_power() -> None:
    # One standard deviation apart takes 17 a side by the t-test's tables.
    a, b = np.array([-1.0, 1.0]) / np.sqrt(2), 1 + np.array([-1.0, 1.0]) / np.sqrt(2)
    assert runs_needed(a, b) == 17
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (2000, 17)), rng.normal(1, 1, (2000, 17))
    told = (stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert told == pytest.approx(0.8, abs=0.03)


def test_what_runs_cannot_tell() -> None:
    assert runs_needed([1.0, 2.0], [2.0, 1.0]) is None
    assert runs_needed([0.0, 100.0], [0.0, 100.1]) is None
    assert runs_needed([500.0] * 3, [9.0] * 3) == 4  # 2 of 70 orders separate four and four
    assert runs_needed([1.0, 1.0], [1.0, 1.0]) is None


@quick
@given(runs(2), runs(2))
def test_more_power_takes_more_runs(a: list[float], b: list[float]) -> None:
    some, more = runs_needed(a, b, power=0.5), runs_needed(a, b, power=0.9)
    assert (some or MOST_RUNS) <= (more or MOST_RUNS)
    assert runs_needed(b, a) == runs_needed(a, b)


@pytest.mark.parametrize("wrong", [*NOT_RUNS, [1.0]])
@pytest.mark.parametrize("function", [difference, paired_difference, runs_needed])
def test_what_are_not_two_runs_is_refused(
    function: Callable[..., object], wrong: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"values|finite|number a run|at least two"):
        function(wrong, [1.0, 2.0])
