"""Recipes: found, read safely, overridden, checked, and their mistakes said in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rl_lab import recipes
from rl_lab.commands import kinds
from rl_lab.commands.kinds import Kind
from rl_lab.errors import UserError
from rl_lab.rl.recipe import AgentRecipe

# A stand-in where a generic recipe leaves the environment open.
ENVIRONMENTS = {
    "sac": "Pendulum-v1", "td3": "Pendulum-v1", "ddpg": "Pendulum-v1", "tqc": "Pendulum-v1",
    "crossq": "Pendulum-v1", "maskable_ppo": "RLLab/Match-v0", "her": "RLLab/ReachPoint-v0",
}  # fmt: skip


def load_built_in(name: str) -> tuple[Kind, Any]:
    _, _, data = recipes.read(name)
    generic = data.get("env") == {}
    environment = {"env.id": ENVIRONMENTS.get(name, "CartPole-v1")} if generic else {}
    return kinds.load(name, environment)


@pytest.mark.parametrize("name", recipes.built_in_names())
def test_every_built_in_recipe_builds_against_the_real_signatures(name: str) -> None:
    kind, recipe = load_built_in(name)
    assert recipe.description
    assert kind is kinds.LANGUAGE or recipe.source
    kind.check(recipe, name, False)


@pytest.mark.parametrize("name", recipes.built_in_names())
def test_a_recipe_printed_and_read_again_is_the_same(name: str, tmp_path: Path) -> None:
    kind, recipe = load_built_in(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(recipe), encoding="utf-8")
    assert kinds.load(str(path)) == (kind, recipe)


def test_overrides_are_yaml_and_reach_into_sections() -> None:
    recipe = recipes.load(
        AgentRecipe,
        "cartpole",
        recipes.parse_overrides(
            ["--env.number", "3", "--algorithm.gamma=0.5", "--algorithm.clip_range.end", "1e-3",
             "--env.normalize.rewards", "false", "--algorithm.policy_kwargs.net_arch", "[8, 8]"]
        ),
    )  # fmt: skip
    assert recipe.env.number == 3
    hyperparameters = recipe.algorithm.hyperparameters
    assert hyperparameters["gamma"] == 0.5
    assert hyperparameters["clip_range"]["end"] == 1e-3
    assert hyperparameters["clip_range"]["start"] == 0.2
    assert hyperparameters["policy_kwargs"] == {"net_arch": [8, 8]}
    assert recipe.env.normalize is not None
    assert recipe.env.normalize.observations
    assert not recipe.env.normalize.rewards


def test_a_mapping_given_whole_replaces_the_one_in_the_recipe() -> None:
    overrides = recipes.parse_overrides(
        ["--env.id", "Pendulum-v1", "--algorithm.action_noise", "{ornstein_uhlenbeck: 0.5}"]
    )
    recipe = recipes.load(AgentRecipe, "td3", overrides)
    assert recipe.algorithm.hyperparameters["action_noise"] == {"ornstein_uhlenbeck": 0.5}


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--env.nmber", "3"], ["env.nmber", "env.number", "command line"]),
        (["--nmber", "3"], ["unknown key 'nmber'"]),
        (["--number", "3"], ["env.number"]),
        (["--env.number", "many"], ["env.number", "'many'", "integer"]),
        (["--env.number", "0"], ["env.number", "0", "greater than 0"]),
        (["--seed", "-1"], ["seed", "greater than or equal to 0"]),
        (["--device", "gpu"], ["device", "'gpu'", "cuda"]),
        (["--budget", "3"], ["budget", "3"]),
        (["--budget.steps"], ["--budget.steps needs a value"]),
        (["budget.steps", "3"], ["unexpected 'budget.steps'"]),
        (["--env.wrappers", "[a"], ["--env.wrappers"]),
    ],
)
def test_a_wrong_override_is_named_with_its_value_and_what_is_allowed(
    tokens: list[str], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        recipes.load(AgentRecipe, "cartpole", recipes.parse_overrides(tokens))
    for word in words:
        assert word in str(error.value)


def test_a_mistake_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "env:\n  id: CartPole-v1\n  numbr: 3\nalgorithm: {name: ppo}\nbudget: {steps: 9}\n"
    )
    with pytest.raises(UserError, match=r"env\.numbr.*mine\.yaml, line 3.*env\.number"):
        recipes.load(AgentRecipe, str(path))


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'cartpole'"):
        recipes.find("cartpol")
    with pytest.raises(UserError, match="does not exist"):
        recipes.find("nowhere/x.yaml")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"env\.id is required"):
        recipes.load(AgentRecipe, "sac")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("-2.5", -2.5), (".5", 0.5), ("3", 3), ("1_000", 1000),
     ("1e", "1e"), ("e3", "e3"), ("true", True), ("null", None),
     ("no", "no"), ("on", "on")],
)  # fmt: skip
def test_numbers_are_read_as_yaml_1_2_has_them(text: str, value: object) -> None:
    assert recipes.parse_yaml(text, "test") == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_python_prints_is_read_back(value: float) -> None:
    assert recipes.parse_yaml(repr(value), "test") == value


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
@example("1e-3")
@example("no")
@example("null")
def test_every_string_is_printed_so_that_it_is_read_back(text: str) -> None:
    recipe = recipes.load(AgentRecipe, "cartpole", {"description": text})
    read = recipes.parse_yaml(recipes.dump(recipe), "test")
    assert read["description"] == text


def test_every_key_is_explained() -> None:
    for key, explanation in recipes.fields(AgentRecipe):
        assert explanation, key
