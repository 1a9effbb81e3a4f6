"""A verdict is given only where the corrected interval supports it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lab.statistics import difference, verdict, verdicts
from tests.statistics.samples import runs

OPPOSITE = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
CLEAR = [1.0, 1.1, 0.9, 1.05, 0.95], [0.0, 0.1, -0.1, 0.05, -0.05]
quick = settings(max_examples=30, deadline=None)


def test_a_clear_difference_is_told_both_ways() -> None:
    a, b = CLEAR
    better, worse = verdict(a, b), verdict(b, a)
    assert (better.word, worse.word) == ("better", "worse")
    assert better.difference == difference(a, b)
    assert (better.improvement.mean, better.more_runs) == (1, None)
    assert better.sentence == "better"


def test_the_same_runs_are_a_tie() -> None:
    tie = verdict(CLEAR[0], CLEAR[0])
    assert (tie.word, tie.more_runs) == ("cannot tell", None)
    assert tie.sentence == "cannot tell; more seeds would hardly help"


def test_an_unclear_difference_says_how_many_more_seeds() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 5), rng.normal(0, 1, 5)
    found = verdict(a, b)
    assert found.word == "cannot tell"
    assert found.more_runs is not None and found.more_runs > 1
    assert f"about {found.more_runs} more seeds a side" in found.sentence


@pytest.mark.parametrize("a", [[1.0], [1.0, 1.0, 1.0]])
def test_with_one_run_on_a_side_it_cannot_tell(a: list[float]) -> None:
    found = verdict(a, [0.0])
    assert (found.word, found.difference) == ("cannot tell", None)
    assert found.sentence == "cannot tell; at least two seeds a side are needed"


def test_several_comparisons_at_once_ask_for_more() -> None:
    b = np.array([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])
    a = b + 1.3
    alone = verdict(a, b)
    assert alone.word == "better"
    assert alone.difference is not None and alone.difference.p > 0.005
    ties = [(a, a)] * 20
    among_many = verdicts([(a, b), *ties])[0]
    assert among_many.word == "cannot tell"
    assert among_many.difference is not None
    assert among_many.difference.low < alone.difference.low
    assert among_many.difference.p == pytest.approx(21 * alone.difference.p)


def test_what_cannot_be_judged_is_not_corrected_for() -> None:
    a, b = CLEAR
    first, second, third = verdicts([([1.0], b), (a, b), (a, [2.0])])
    assert second == verdict(a, b)
    assert {first.word, third.word} == {"cannot tell"}


@quick
@given(st.lists(st.tuples(runs(), runs()), max_size=3))
def test_swapping_sides_turns_the_verdict(pairs: list[tuple[list[float], list[float]]]) -> None:
    there, back = verdicts(pairs), verdicts([(b, a) for a, b in pairs])
    assert [OPPOSITE[found.word] for found in there] == [found.word for found in back]
    for found in there:
        told = found.difference is not None and (
            found.difference.low > 0 or found.difference.high < 0
        )
        assert told == (found.word != "cannot tell")
        assert found.more_runs is None or not told
