"""What runs came to, and finding and grouping them."""

import json
from pathlib import Path

import pytest

from rl_lab import results
from rl_lab.errors import UserError
from rl_lab.files import write_json
from rl_lab.results import Measure
from tests import fake_experiment
from tests.judged_runs import RECIPE, judged_group, judged_run


def names(found: list[results.Run]) -> list[str]:
    return [run.name for run in found]


def test_runs_are_found_by_name_prefix_pattern_directory_and_recipe(runs_directory: Path) -> None:
    judged_group(runs_directory, "a", [1.0] * 11)
    judged_group(runs_directory, "ab", [1.0])
    judged_group(runs_directory / "suite", "cartpole", [1.0, 2.0])
    all_a = [f"a-seed{seed}" for seed in range(11)]
    assert names(results.find(["a-seed3"])) == ["a-seed3"]
    assert names(results.find(["a"])) == all_a  # 2 before 10
    assert names(results.find(["a-seed[12]"])) == ["a-seed1", "a-seed2"]
    assert names(results.find(["a*", "a-seed0"])) == [*all_a, "ab-seed0"]
    assert names(results.find(["suite"])) == ["cartpole-seed0", "cartpole-seed1"]
    assert names(results.find([str(runs_directory / "suite")])) == names(results.find(["suite"]))
    assert len(results.find(["cartpole"])) == 12  # by the recipe's name
    with pytest.raises(UserError, match="did you mean"):
        results.find(["a-sed0"])
    with pytest.raises(UserError, match="no run"):
        results.find(["/nowhere/*"])


def test_groups_are_runs_that_differ_in_their_seeds_alone(runs_directory: Path) -> None:
    judged_group(runs_directory, "a", [1.0, None, 3.0])
    other = RECIPE | {"algorithm": {"name": "ppo", "gamma": 0.9}}
    judged_run(runs_directory / "a-seed3", 3, 4.0, other)
    judged_group(runs_directory, "b", [5.0])
    one, two, three = results.groups(results.find(["a", "b"]))
    assert [len(group.results) for group in (one, two, three)] == [3, 1, 1]
    assert one.values(Measure("return")) == [1.0, 3.0]
    assert [result.seed for result in one.judged] == [0, 2]
    assert (two.name, three.name) == ("a", "b")
    with pytest.raises(UserError, match="2 recipes"):
        results.named_group("a", results.find(["a"]))


@pytest.mark.parametrize("content", ["{", "[]", '{"best greedy": {"return": {"mean": "x"}}}'])
def test_an_evaluation_that_cannot_be_read_is_none(runs_directory: Path, content: str) -> None:
    run = judged_run(runs_directory / "a-seed0", 0, 1.0)
    run.evaluation_file.write_text(content)
    assert results.result_of(run).measures == {}


def test_an_experiment_is_measured_by_its_first_judge(runs_directory: Path) -> None:
    result = results.result_of(fake_experiment.build(runs_directory / "x-seed0"))
    assert result.kind == "language"
    first = next(iter(result.measures))
    assert first.name.startswith("gold gain, ")
    assert result.conditions["prompts"]


def test_an_experiment_without_gold_judges_has_nothing_to_be_judged_by(
    runs_directory: Path,
) -> None:
    run = fake_experiment.build(runs_directory / "x-seed0")
    found = json.loads(run.evaluation_file.read_text())
    write_json(run.evaluation_file, found | {"gain": {}, "win_rate": {}})
    assert results.result_of(run).measures == {}


def test_an_empty_name_is_not_every_run(runs_directory: Path) -> None:
    judged_run(runs_directory / "a-seed0", 0, 1.0)
    with pytest.raises(UserError, match="empty name"):
        results.find([""])


def test_an_evaluation_of_a_model_that_is_no_longer_the_best_does_not_count(
    runs_directory: Path,
) -> None:
    run = judged_run(runs_directory / "a-seed0", 0, 1.0)
    (run.best / f"{500:012d}").mkdir(parents=True)
    assert results.result_of(run).measures == {}  # it was not said of which step it is
    for step, known in ((500, True), (400, False)):
        evaluations = run.evaluations
        evaluations["best greedy"]["step"] = step
        write_json(run.evaluation_file, evaluations)
        assert bool(results.result_of(run).measures) == known
