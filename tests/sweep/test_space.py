"""What may be searched, and that mistakes in it come out before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rl_lab import recipes
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.stage_inputs import hashes
from rl_lab.sweep_recipe import Parameter, Sweep
from tests.test_cli import run as rl_lab

GAMMA = {"low": 0.9, "high": 0.999}


@given(
    low=st.floats(1e-3, 1e3), width=st.floats(1e-2, 1e3), log=st.booleans(), integer=st.booleans()
)
def test_what_is_tried_out_lies_in_the_range(
    low: float, width: float, log: bool, integer: bool
) -> None:
    if integer:
        low, width = float(round(low)) + 1, float(round(width)) + 1
    parameter = Parameter(low=low, high=low + width, log=log, integer=integer)
    tried = parameter.examples
    assert {min(tried), max(tried)} == {low, low + width}
    assert all(isinstance(value, int) for value in tried) == integer


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs low and high"),
        ({"low": 1}, "needs low and high"),
        ({"low": 2, "high": 1}, "should be below"),
        ({"low": 0, "high": 1, "log": True}, "above 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "log or step"),
        ({"low": 0, "high": 1, "step": 0.3}, "no whole number of steps"),
        ({"low": 0, "high": 1, "step": 3}, "no whole number of steps"),
        ({"low": 0.5, "high": 3, "integer": True}, "no whole number"),
        ({"choices": [1]}, "at least two"),
        ({"choices": [1, 1]}, "all different"),
        ({"choices": [1, 2], "low": 0}, "not both"),
        ({"choices": [1, 2], "log": True}, "not both"),
    ],
)
def test_a_parameter_that_says_nothing_sensible_is_refused(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Parameter.model_validate(given)


def test_a_parameter_survives_being_written_down() -> None:
    for parameter in (Parameter(choices=[[64, 64], "x", None]), Parameter(low=1, high=5, step=2)):
        assert Parameter.model_validate(parameter.model_dump()) == parameter


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["acrobot"], ["'acrobot'", "no `sweep` section"]),
        ([], ["needs a recipe"]),
        (["cartpole", "--trials", "0"], ["--trials 0", "at least 1"]),
        (["cartpole", "--resume", "x"], ["--resume takes only the sweep"]),
        (["--resume", "x"], ["no sweep 'x'"]),
        (["cartpole", "--name", "../x"], ["'../x'"]),
        (["cartpole", "--sweep.trails", "3"], ["sweep.trails", "sweep.trials"]),
        (["cartpole", "--sweep.parameters", "{}"], ["sweep.parameters", "at least 1"]),
        (
            ["cartpole", "--sweep.parameters", "{algorithm.gama: {low: 0.9, high: 0.99}}"],
            ["sweep.parameters.algorithm.gama", "'gamma'"],
        ),
        (
            ["cartpole", "--sweep.parameters", "{algorithm.gamma: {low: 0.9, high: 1.1}}"],
            ["sweep.parameters.algorithm.gamma", "1.1", "from 0 to 1"],
        ),
        (
            ["cartpole", "--sweep.parameters", "{algorithm.n_steps: {low: 16, high: 64}}"],
            ["sweep.parameters.algorithm.n_steps", "whole number"],
        ),
        (
            ["cartpole", "--sweep.parameters", "{env.nmber: {choices: [1, 2]}}"],
            ["sweep.parameters.env.nmber", "'env.number'"],
        ),
        (
            ["cartpole", "--sweep.parameters", "{seed: {choices: [1, 2]}}"],
            ["sweep.parameters.seed", "the same for all trials"],
        ),
        (
            ["cartpole", "--sweep.parameters",
             "{algorithm.policy_kwargs: {choices: [{}, null]},"
             " algorithm.policy_kwargs.net_arch: {choices: [[8], [16]]}}"],
            ["algorithm.policy_kwargs.net_arch", "part of"],
        ),
        (
            ["movie-reviews", "--sweep", "{parameters: {ppo.epochs: {choices: [1, 2]}}}",
             "--judges", "null"],
            ["'movie-reviews'", "gold judge"],
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(
    tokens: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    runs_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("rl_lab.commands.sweep._run")  # what is not refused must not run for hours
    code, output, error = rl_lab(capsys, "sweep", *tokens)
    assert (code, output) == (2, "")
    (line,) = [line for line in error.splitlines() if not line.startswith("note: ")]
    assert line.startswith("rl-lab: ")
    for word in words:
        assert word in line
    assert not list(runs_directory.glob("*"))


def test_training_takes_no_notice_of_it() -> None:
    sweep = Sweep(parameters={"algorithm.gamma": Parameter(**GAMMA)})
    recipe = recipes.load(AgentRecipe, "acrobot").model_copy(update={"sweep": sweep})
    assert recipes.for_run(recipe, 3) == recipes.load(AgentRecipe, "acrobot", {"seed": 3})


def test_stages_are_found_again_whatever_is_searched() -> None:
    under = {"threads": 2, "device": "cpu", "versions": {}}
    sweep = {"parameters": {"ppo.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}}}
    searched = recipes.load(LanguageRecipe, "movie-reviews", {"sweep": sweep})
    assert hashes(searched, under) == hashes(recipes.load(LanguageRecipe, "movie-reviews"), under)


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_the_built_in_spaces_can_be_built(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rl_lab.commands import kinds
    from rl_lab.sweep import space

    kind, recipe = kinds.load(name)
    assert recipe.sweep is not None

    def build(changes: dict[str, Any]) -> None:
        kind.check(kinds.load(name, changes)[1], name, False)

    space.check(recipe.sweep.parameters, build)
