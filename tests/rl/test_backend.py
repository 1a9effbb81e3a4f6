"""Which code an agent learns with: chosen, said, and refused where it is not there."""

from typing import Any

import pytest

from rl_lab.errors import UserError
from rl_lab.rl import agent
from rl_lab.rl.fast.ppo import FastPPO
from tests.rl.faulty import SMALL, MakeRecipe, MakeRun, events, run_to_end


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "fast: "),
        ({"algorithm.backend": "fast"}, "fast: "),
        ({"algorithm.backend": "sb3"}, "sb3: as asked"),
        (
            {"env.id": "Pendulum-v1", "algorithm.use_sde": True},
            "sb3: not for the fast one: state-dependent exploration (use_sde)",
        ),
    ],
)
def test_the_run_says_whose_code_learns(
    settings: dict[str, Any], said: str, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe("ppo", SMALL | {"env.id": "CartPole-v1"} | settings)
    run = make_run(recipe)
    run_to_end(run, recipe)
    (told,) = events(run, "backend")
    assert told.startswith(said)


def test_an_agent_that_only_acts_is_sb3s(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe("ppo", {"env.id": "CartPole-v1", "budget.steps": 100})
    model = agent.build(recipe)
    assert isinstance(model, FastPPO)
    snapshot = agent.agent_state.playable(model)
    assert not isinstance(agent.load(recipe, snapshot), FastPPO)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("a2c", {"env.id": "CartPole-v1"}, "there is none for a2c, only for ppo"),
        (
            "ppo",
            {"env.id": "Pendulum-v1", "algorithm.use_sde": True},
            r"not for state-dependent exploration \(use_sde\); auto uses SB3's",
        ),
    ],
)
def test_the_fast_one_is_refused_where_it_is_not(
    name: str, settings: dict[str, Any], said: str, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(name, {"algorithm.backend": "fast", "budget.steps": 100} | settings)
    with pytest.raises(UserError, match=f"algorithm.backend = 'fast': {said}"):
        agent.build(recipe)


def test_a_run_that_goes_on_with_other_code_says_so(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe("ppo", SMALL | {"env.id": "CartPole-v1"})
    run = make_run(recipe)
    run_to_end(run, recipe)
    longer = {"budget": recipe.budget.model_copy(update={"steps": recipe.budget.steps * 2})}
    other = {"algorithm": recipe.algorithm.model_copy(update={"backend": "sb3"})}
    run_to_end(run, recipe.model_copy(update=longer | other))
    assert any("backend sb3 (was fast)" in said for said in events(run, "note"))
