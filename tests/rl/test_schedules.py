"""Schedules as data, and never another shape in silence."""

import pytest

from rl_lab.rl.schedules import Schedule, budget_notes


def test_a_linear_schedule_goes_straight_and_then_stays() -> None:
    schedule = Schedule(schedule="linear", start=1.0, end=0.2, over=100)
    assert [schedule.value(step, budget=1000) for step in (0, 50, 100, 500)] == pytest.approx(
        [1.0, 0.6, 0.2, 0.2]
    )


def test_an_exponential_schedule_keeps_its_ratio() -> None:
    schedule = Schedule(schedule="exponential", start=1.0, end=0.01)
    assert [schedule.value(step, budget=100) for step in (0, 50, 100)] == pytest.approx(
        [1.0, 0.1, 0.01]
    )


def test_sb3_asks_by_the_part_that_remains() -> None:
    fixed = Schedule(schedule="linear", start=1.0, over=100).for_sb3(budget=400)
    assert [fixed(remaining) for remaining in (1.0, 0.875, 0.75, 0.0)] == pytest.approx(
        [1.0, 0.5, 0.0, 0.0]
    )


@pytest.mark.parametrize(
    ("hyperparameters", "actual", "words"),
    [
        ({"learning_rate": {"schedule": "linear", "start": 1e-3}}, 50, ["follows", "50", "100"]),
        ({"clip_range": {"schedule": "linear", "start": 1, "over": 80}}, 50, ["still changing"]),
        ({"exploration_fraction": 0.2}, 50, ["10 steps", "20"]),
    ],
)
def test_another_budget_is_remarked_upon(
    hyperparameters: dict[str, object], actual: int, words: list[str]
) -> None:
    (note,) = budget_notes(hyperparameters, written=100, actual=actual)
    for word in [*hyperparameters, *words]:
        assert word in note


def test_nothing_is_said_where_nothing_changes() -> None:
    linear = {"schedule": "linear", "start": 1e-3}
    assert budget_notes({"learning_rate": linear}, 100, 100) == []
    assert budget_notes({"learning_rate": linear | {"over": 100}, "gamma": 0.9}, 100, 500) == []
