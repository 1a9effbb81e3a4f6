"""Groups against each other: verdicts where the data carry them, and none where they do not."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rl_lab import results
from rl_lab.cli import main
from rl_lab.comparison import compare
from rl_lab.errors import UserError
from tests.judged_runs import RECIPE, VERSIONS, judged_group, judged_run

Groups = tuple[str, list[results.Group]]


def side(name: str) -> Groups:
    return name, results.groups(results.find([name]))


def scores(seed: int, mean: float, runs: int = 10) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 1.0, runs))


def test_a_tie_is_called_one_and_a_real_difference_found(runs_directory: Path) -> None:
    judged_group(runs_directory, "a", scores(0, 0.0))
    judged_group(runs_directory, "again", scores(1, 0.0))
    judged_group(runs_directory, "better", scores(2, 5.0))
    (task,) = compare([side("a"), side("again"), side("better")])
    words = {(pair.one.name, pair.other.name): pair.verdict for pair in task.pairs}
    tie = words["a", "again"]
    assert tie is not None
    assert tie.word == "cannot tell"
    assert "more" in tie.sentence
    assert [words[name, "better"].word for name in ("a", "again")] == ["worse", "worse"]  # type: ignore[union-attr]
    # Three comparisons at once: the p-values are corrected, so none is below its plain one.
    (alone,) = compare([side("a"), side("better")])[0].pairs
    assert alone.verdict is not None
    assert alone.verdict.difference.p < words["a", "better"].difference.p  # type: ignore[union-attr]
    assert task.remarks == []


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        ({"env": {"id": "Acrobot-v1", "kwargs": {}}}, {}, "environment: CartPole-v1 and Acrobot"),
        (
            {"env": {"id": "CartPole-v1", "kwargs": {}, "wrappers": ["ClipReward"]}},
            {},
            r"environment's wrappers: \[\] and \['ClipReward'\]",
        ),
        ({"budget": {"steps": 2000}}, {}, r"budget \(steps\): 1000 and 2000"),
        ({}, {"episodes": 20}, "episodes: 10"),
    ],
)
def test_what_was_measured_otherwise_is_not_comparable(
    change: dict, options: dict, why: str, runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged_group(runs_directory, "a", scores(0, 0.0))
    judged_group(runs_directory, "b", scores(1, 9.0), recipe=RECIPE | change, **options)
    (pair,) = compare([side("a"), side("b")])[0].pairs
    assert pair.verdict is None
    with pytest.raises(SystemExit):
        main(["compare", "a", "b"])
    said = capsys.readouterr().out
    assert "a and b are not comparable" in said
    assert re.search(why, said)


def test_what_differs_is_said(runs_directory: Path) -> None:
    other = RECIPE | {"algorithm": {"name": "ppo", "gamma": 0.9}}
    judged_group(runs_directory, "a", scores(0, 0.0))
    versions = VERSIONS | {"torch": "2.14.0"}
    judged_group(runs_directory, "b", scores(1, 0.0), recipe=other, versions=versions)
    (pair,) = compare([side("a"), side("b")])[0].pairs
    assert pair.verdict is not None
    assert pair.differences == [
        "algorithm.gamma: 0.98 and 0.9",
        "versions: python 3.11.7, torch 2.13.0 and python 3.11.7, torch 2.14.0",
    ]


def test_sides_that_share_runs_or_mix_recipes_are_refused(runs_directory: Path) -> None:
    judged_group(runs_directory, "a", scores(0, 0.0))
    (pair,) = compare([side("a-seed[0-5]"), side("a-seed[4-9]")])[0].pairs
    assert pair.verdict is None
    assert pair.obstacles == ["they share 2 runs"]
    judged_group(runs_directory / "x", "one", [1.0, 2.0])
    judged_run(runs_directory / "x" / "one-seed7", 7, 4.0, RECIPE | {"threads": 2})
    judged_group(runs_directory / "y", "one", [1.0, 2.0])
    judged_group(runs_directory / "y", "two", [1.0, 2.0])
    with pytest.raises(UserError, match="'x' has runs of one name and different recipes"):
        compare([side("x"), side("y")])


def test_few_runs_runs_not_judged_and_equal_seeds_are_remarked_on(runs_directory: Path) -> None:
    judged_group(runs_directory, "a", [1.0, 2.0, None])
    judged_group(runs_directory, "b", [1.0] * 5)
    (runs_directory / "b-seed1" / "recipe.yaml").write_text(
        (runs_directory / "b-seed0" / "recipe.yaml").read_text()
    )
    (task,) = compare([side("a"), side("b")])
    few, unjudged, same = (
        any(word in remark for remark in task.remarks)
        for word in ("only 2 runs", "1 of 3 runs of a have not been judged", "b: runs of the same")
    )
    assert few and unjudged and same
    judged_group(runs_directory, "c", [None])
    with pytest.raises(UserError, match=r"rl-lab evaluate c-seed0"):
        compare([side("a"), side("c")])


def test_suites_are_compared_task_by_task(
    runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pole = RECIPE
    robot = RECIPE | {"name": "acrobot", "env": {"id": "Acrobot-v1", "kwargs": {}}}
    for number, suite in enumerate(("x", "y")):
        judged_group(runs_directory / suite, "pole", scores(number, 4.0 * number), recipe=pole)
        judged_group(runs_directory / suite, "robot", scores(9 + number, 0.0), recipe=robot)
    with pytest.raises(SystemExit) as end:
        main(["compare", "x", "y", "--json"])
    assert not end.value.code
    first, second = json.loads(capsys.readouterr().out)
    assert (first["task"], second["task"]) == ("pole", "robot")
    assert first["pairs"][0]["verdict"]["word"] == "worse"
    assert second["pairs"][0]["verdict"]["word"] == "cannot tell"
    assert first["groups"][0]["measures"]["return"]["mean"]["n"] == 10
    with pytest.raises(SystemExit) as end:
        main(["compare", "x", "y"])
    said = capsys.readouterr().out
    assert "over the 2 tasks, the chance that a run of x is better than one of y is" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "compare needs groups of runs"),
        (["a"], "'a' is one"),
        (["a", "nothing"], "no run 'nothing'"),
        (["x", "y"], "no group of runs in common"),
    ],
)
def test_wrong_arguments_are_a_sentence(
    arguments: list[str],
    sentence: str,
    runs_directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judged_group(runs_directory, "a", [1.0])
    judged_group(runs_directory / "x", "one", [1.0])
    judged_group(runs_directory / "x", "other", [1.0], recipe=RECIPE | {"threads": 2})
    judged_group(runs_directory / "y", "two", [1.0])
    with pytest.raises(SystemExit) as end:
        main(["compare", *arguments])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_judged_runs_that_did_not_finish_are_remarked_on(runs_directory: Path) -> None:
    judged_group(runs_directory, "a", scores(0, 0.0))
    stopped, *_ = judged_group(runs_directory, "b", scores(1, 0.0))
    stopped.update_status(state="stopped", step=10)
    (task,) = compare([side("a"), side("b")])
    (remark,) = task.remarks
    assert remark.startswith("b: 1 of 10 judged runs did not finish")


def test_only_comparable_tasks_are_counted(
    runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    robot = RECIPE | {"env": {"id": "Acrobot-v1", "kwargs": {}}}
    for number, suite in enumerate(("x", "y")):
        judged_group(runs_directory / suite, "pole", scores(number, 0.0))
        judged_group(
            runs_directory / suite, "robot", scores(9, 0.0), recipe=robot, episodes=10 + number
        )
    with pytest.raises(SystemExit):
        main(["compare", "x", "y"])
    assert "over 1 of 2 tasks (the others are not comparable)" in capsys.readouterr().out


def test_a_name_too_long_for_a_file_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["compare", "a" * 300, "b"])
    assert end.value.code == 2
    assert "no run" in capsys.readouterr().err
