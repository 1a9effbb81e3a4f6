"""A sweep's journal: what is drawn, pruned and kept, also by one that was killed."""

import json
from pathlib import Path
from typing import Any

import pytest

from rl_lab.errors import UserError
from rl_lab.sweep.study import Study
from rl_lab.sweep_recipe import Parameter, Pruning, Sweep

SPACE = {
    "a.rate": Parameter(low=1e-4, high=1.0, log=True),
    "a.count": Parameter(low=2, high=64, integer=True, log=True),
    "a.net": Parameter(choices=[[64, 64], "small", None]),
}


def a_sweep(**changes: Any) -> Sweep:
    return Sweep(parameters=SPACE, startup_trials=3, pruning=Pruning(warmup=0.0), **changes)


def worth(values: dict[str, Any]) -> float:
    return -abs(values["a.rate"] - 0.1) + values["a.count"] / 64


def test_values_are_those_of_the_space(tmp_path: Path) -> None:
    study = Study(tmp_path, a_sweep(), 0, 10)
    for _ in range(12):
        trial = study.draw()
        values = study.values(trial.params)
        assert 1e-4 <= values["a.rate"] <= 1.0
        assert isinstance(values["a.count"], int)
        assert values["a.net"] in SPACE["a.net"].choices  # type: ignore[operator]
        study.complete(trial, worth(values))


def test_one_that_is_killed_again_and_again_draws_the_same(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = Study(tmp_path / "whole", a_sweep(), 7, 10)
    for _ in range(8):
        trial = whole.draw()
        whole.report(trial, {1: worth(whole.values(trial.params))})
        whole.complete(trial, worth(whole.values(trial.params)))
    for _ in range(8):
        Study(tmp_path / "killed", a_sweep(), 7, 10).draw()  # and nothing is told
        killed = Study(tmp_path / "killed", a_sweep(), 7, 10)
        (trial,) = killed.unfinished()
        killed.report(trial, {1: worth(killed.values(trial.params))})
        killed.complete(trial, worth(killed.values(trial.params)))
    assert [trial.params for trial in killed.trials] == [trial.params for trial in whole.trials]
    assert len({str(trial.params) for trial in whole.trials}) == 8


def test_a_trial_whose_values_were_not_all_drawn_is_completed(tmp_path: Path) -> None:
    study = Study(tmp_path, a_sweep(), 0, 10)
    drawn = study.draw().params
    journal = tmp_path / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while it wrote the last
    (trial,) = Study(tmp_path, a_sweep(), 0, 10).unfinished()
    assert trial.params.keys() == drawn.keys()


def test_the_journal_is_plain_json_and_all_there_is(tmp_path: Path) -> None:
    study = Study(tmp_path, a_sweep(), 0, 10)
    study.complete(study.draw(), 1.0)
    study.fail(study.draw(), "it broke")
    assert [path.name for path in tmp_path.iterdir()] == ["journal.log"]
    assert all(json.loads(line) for line in (tmp_path / "journal.log").read_text().splitlines())
    again = Study(tmp_path, a_sweep(), 0, 10).trials
    assert [trial.state.name for trial in again] == ["COMPLETE", "FAIL"]
    assert again[1].user_attrs["why"] == "it broke"


def test_a_lock_left_by_a_killed_process_is_removed(tmp_path: Path) -> None:
    Study(tmp_path, a_sweep(), 0, 10).draw()
    (tmp_path / "journal.log.lock").symlink_to("journal.log")
    Study(tmp_path, a_sweep(), 0, 10).draw()
    assert [path.name for path in tmp_path.iterdir()] == ["journal.log"]


@pytest.mark.parametrize("damage", ["not json\n", "[]\n", '{"op_code": 99}\n', '{"op_code": 4}\n'])
def test_a_damaged_journal_is_one_sentence(damage: str, tmp_path: Path) -> None:
    study = Study(tmp_path, a_sweep(), 0, 10)
    study.complete(study.draw(), 1.0)
    journal = tmp_path / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:2], damage, *lines[2:]]))
    with pytest.raises(UserError, match="is damaged"):
        Study(tmp_path, a_sweep(), 0, 10)


def test_a_journal_of_another_space_is_refused(tmp_path: Path) -> None:
    Study(tmp_path, a_sweep(), 0, 10).draw()
    other = Sweep(parameters={"a.rate": Parameter(low=0, high=2)})
    with pytest.raises(UserError, match="is damaged"):
        Study(tmp_path, other, 0, 10)


def courses(study: Study, *values: list[float]) -> None:
    """Trials that ran to their end."""
    for course in values:
        trial = study.draw()
        assert not study.report(trial, dict(enumerate(course, start=1)))
        study.complete(trial, course[-1])


def test_what_is_below_the_median_is_pruned(tmp_path: Path) -> None:
    study = Study(tmp_path, a_sweep(), 0, 10)
    courses(study, [1, 2, 3], [2, 3, 4], [3, 4, 5])
    better, worse, recovered = study.draw(), study.draw(), study.draw()
    assert not study.report(better, {1: 2.5, 2: 3.5})
    assert study.report(worse, {1: 1.5})
    assert study.report(recovered, {1: 1.5, 2: 9})  # it was to be ended before it rose


def test_nothing_is_pruned_early_in_a_trial_or_in_a_sweep(tmp_path: Path) -> None:
    late = a_sweep().model_copy(update={"pruning": Pruning(warmup=0.25)})
    study = Study(tmp_path, late, 0, 8)
    courses(study, [1, 2, 3], [2, 3, 4])
    third = study.draw()
    assert not study.report(third, {1: -9, 2: -9, 3: -9})
    study.complete(third, 9)
    fourth = study.draw()
    assert not study.report(fourth, {1: -9})
    assert study.report(fourth, {1: -9, 2: -9})


def test_without_pruning_nothing_is(tmp_path: Path) -> None:
    study = Study(tmp_path, a_sweep().model_copy(update={"pruning": None}), 0, 10)
    courses(study, [1, 2], [2, 3], [3, 4], [-9, -9])


def test_a_kill_between_report_and_verdict_changes_nothing(tmp_path: Path) -> None:
    study = Study(tmp_path, a_sweep(), 0, 10)
    courses(study, [1, 2], [2, 3], [3, 4])
    trial = study.draw()
    trial.report(0.5, 1)  # and it was killed before it asked
    again = Study(tmp_path, a_sweep(), 0, 10)
    (trial,) = again.unfinished()
    assert again.report(trial, {1: 0.5})


def test_the_best_are_those_of_highest_value_once_each(tmp_path: Path) -> None:
    two = Sweep(parameters={"a": Parameter(choices=[0, 1])})
    study = Study(tmp_path, two, 0, 10)
    for value in (1.0, 3.0, 2.0, 3.0, 0.5, 2.5):
        study.complete(study.draw(), value)
    study.fail(study.draw(), "no")
    pruned = study.draw()
    study.report(pruned, {1: 99.0})
    study.prune(pruned)
    best = study.best(5)
    assert best[0].number == 1
    assert len(best) == len({trial.params["a"] for trial in best}) <= 2
