"""What may be said of the best trials once they were trained on fresh seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rl_lab import recipes
from rl_lab.files import write_json
from rl_lab.results import JUDGED
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from rl_lab.sweep.confirmation import Contender, outcome, plan

AS_IT_IS = [100.0, 101.0, 102.0, 103.0, 104.0]


@pytest.fixture
def judge(tmp_path: Path, make_recipe: Any) -> Any:
    """Write contenders' judged runs, a list of scores each, the recipe as it is first."""

    def do(*scores: Sequence[float | None]) -> dict[str, Any]:
        recipe: AgentRecipe = make_recipe("acrobot")
        contenders = [
            Contender(None if number == 0 else number, {"algorithm.gamma": 0.9}, recipe)
            for number in range(len(scores))
        ]
        seeds = range(1, 6)
        planned = plan(tmp_path, contenders, seeds)
        assert len({planned.run.path for planned in planned}) == len(planned)
        for one in planned:
            run = Run(one.run.path)
            run.path.mkdir()
            run.recipe_file.write_text(recipes.dump(one.recipe))
            score = scores[[c.label for c in contenders].index(one.entry)][one.seed - 1]
            if score is not None:
                write_json(run.evaluation_file, {JUDGED: {"return": {"mean": score, "n": 100}}})
        return outcome(tmp_path, contenders, seeds)

    return do


def test_what_is_clearly_better_is_called_so(judge: Any) -> None:
    found = judge(AS_IT_IS, [score + 20 for score in AS_IT_IS], [score + 1 for score in AS_IT_IS])
    assert found["chosen"] == "winner1"
    assert found["verdict"] == "trial 1 is better than the recipe as it is"
    assert found["warning"] is None
    assert found["contenders"][2]["verdict"]["word"] == "cannot tell"
    assert found["contenders"][0]["verdict"] is None


def test_what_may_be_luck_is_not(judge: Any) -> None:
    found = judge(AS_IT_IS, [score + 1 for score in AS_IT_IS])
    assert found["chosen"] == "winner1"
    assert "cannot tell" in found["verdict"]
    assert "more seeds" in found["verdict"]


def test_the_recipe_as_it_is_stands_unless_it_is_beaten(judge: Any) -> None:
    found = judge(AS_IT_IS, list(reversed(AS_IT_IS)), [0.0] * 5)
    assert found["chosen"] == "defaults"
    assert "no trial did better" in found["verdict"]


def test_runs_that_failed_are_named_and_counted(judge: Any) -> None:
    found = judge(AS_IT_IS, [200.0, None, 201.0, 202.0, None])
    (_, trial) = found["contenders"]
    assert trial["failed"] == ["winner1-seed2", "winner1-seed5"]
    assert trial["interval"]["n"] == 3
    assert found["warning"] is not None


def test_without_the_recipe_as_it_is_nothing_is_said(judge: Any) -> None:
    found = judge([None] * 5, AS_IT_IS)
    assert "cannot be judged" in found["verdict"]
    assert found["contenders"][1]["verdict"] is None


def test_what_the_verdict_leaves_out_is_said_with_it(judge: Any) -> None:
    found = judge(AS_IT_IS, [200.0, None, 201.0, 202.0, None])
    assert "better" in found["verdict"]
    assert found["verdict"].endswith("(not counted: 2 of 5 runs of trial 1, not judged)")
