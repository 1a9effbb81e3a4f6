"""In what a run's recipe differs from the built-in one of its name, or from the defaults."""

from collections.abc import Callable

from rl_lab.commands.kinds import differences_to_default
from rl_lab.recipe_differences import flat
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rlhf.recipe import LanguageRecipe


def test_a_recipe_is_laid_out_by_dotted_key() -> None:
    laid_out = flat({"env": {"id": "X", "kwargs": {}}, "seed": 1})
    assert laid_out == {"env.id": "X", "env.kwargs": {}, "seed": 1}


def test_against_the_built_in_recipe(make_recipe: Callable[..., AgentRecipe]) -> None:
    same = make_recipe("cartpole", {"seed": 3}).model_dump(mode="json")
    assert differences_to_default(same) == ("the built-in recipe cartpole", [])
    del same["env"]["timeout"]  # of an older version, which had no such key
    assert differences_to_default(same)[1] == []
    changed = {"algorithm.gamma": 0.9, "env.normalize.rewards": False, "algorithm.vf_coef": 0.7}
    recipe = make_recipe("cartpole", changed).model_dump(mode="json")
    found = {row["key"]: (row["value"], row["other"]) for row in differences_to_default(recipe)[1]}
    assert found["algorithm.gamma"] == (0.9, 0.98)
    assert found["algorithm.vf_coef"] == (0.7, None)
    assert found["env.normalize.rewards"] == (False, None)


def test_against_the_defaults_of_its_kind(make_recipe: Callable[..., AgentRecipe]) -> None:
    changed = {"name": "mine", "env.normalize": {"rewards": False}, "threads": 2}
    recipe = make_recipe("cartpole", changed).model_dump(mode="json")
    default, rows = differences_to_default(recipe)
    found = {row["key"]: (row["value"], row["other"]) for row in rows}
    assert default == "the defaults"
    assert found["threads"] == (2, 1)
    assert found["env.normalize.rewards"] == (False, True)
    assert "env.normalize.observations" not in found  # as it is by default with the section
    assert "env.id" not in found  # it has no default to differ from


def test_a_language_recipe_by_the_name_of_an_agents_is_held_against_its_own_defaults() -> None:
    sections = {"data": {"source": "movie-reviews"}, "pretrain": {"steps": 7}}
    recipe = LanguageRecipe.model_validate({"name": "cartpole", **sections}).model_dump(mode="json")
    default, rows = differences_to_default(recipe)
    assert default == "the defaults"
    assert any(row["key"] == "pretrain.steps" for row in rows)
