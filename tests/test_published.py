"""Groups against published values: words only where the interval carries them."""

import pytest

from rl_lab.reports.published import standings
from rl_lab.suites import Reference


def published(value: float, comparable: bool = True) -> list[Reference]:
    return [Reference(value=value, comparable=comparable, source="somebody")]


@pytest.mark.parametrize(
    ("scores", "value", "word"),
    [
        ([9, 10, 11, 10, 9, 11], 5.0, "met"),
        ([9, 10, 11, 10, 9, 11], 15.0, "below"),
        ([9, 10, 11, 10, 9, 11], 10.2, "cannot tell"),
        ([10, 10, 10, 10, 10], 10.0, "met"),  # the most that can be had, by all
        ([10, 10], 10.0, "cannot tell"),  # by two: they show no spread to judge by
        ([10, 10, 10, 10], 5.0, "cannot tell"),
        ([12], 10.0, "cannot tell"),
        ([8, 12], 9.0, "cannot tell"),
        ([], 10.0, "not judged"),
    ],
)
def test_the_interval_has_the_word(scores: list[float], value: float, word: str) -> None:
    [standing] = standings([(scores, published(value))])
    assert standing.word == word
    assert (standing.warning is not None) == (0 < len(scores) < 5)


def test_what_cannot_be_compared_is_passed_over() -> None:
    runs = [9.0, 10.0, 11.0, 10.0, 9.0]
    other, own = published(50.0, comparable=False), published(5.0)
    none, beside, second = standings([(runs, []), (runs, other), (runs, other + own)])
    assert none.word == "nothing published"
    assert beside.word == "not comparable"
    assert beside.difference is None
    assert second.word == "met"
    assert second.against == own[0]


def test_several_groups_at_once_are_corrected_for() -> None:
    runs = [10.4, 9.9, 10.6, 10.1, 10.5, 10.2]
    [alone] = standings([(runs, published(10.0))])
    noise = [([9.0, 11.0, 10.5, 9.4, 10.1], published(10.0))] * 9
    among = standings([(runs, published(10.0)), *noise])[0]
    assert alone.word == "met"
    assert among.word == "cannot tell"
    assert alone.difference is not None
    assert among.difference is not None
    assert among.difference.low < alone.difference.low
