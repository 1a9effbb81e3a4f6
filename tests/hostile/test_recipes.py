"""Recipes from a stranger: refused in one sentence, soon, whatever they hold."""

import os
import re
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_lab import recipes
from rl_lab.errors import UserError
from rl_lab.rl.recipe import AgentRecipe
from tests.conftest import Lab
from tests.hostile.conftest import Refused

HEAD = "env: {id: CartPole-v1}\nalgorithm: {name: ppo}\nbudget: {steps: 9}\n"


def bomb(first: str, again: str) -> str:
    """Ten lines, each of which stands for the one before it ten times over."""
    lines = [f"a0: &a0 {first}"]
    for n in range(1, 11):
        lines.append(f"a{n}: &a{n} " + again.format(", ".join([f"*a{n - 1}"] * 10)))
    return "\n".join(lines) + "\n"


BOMBS = {
    "lists": bomb("[lol, lol]", "[{}]"),
    "merge keys": bomb("{k: lol}", "{{<<: [{}]}}"),
    "one long word, often": f"a: &a {'x' * 50_000}\nb: [{'*a, ' * 5000}]\n",
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "line 2: key 'a' is given twice"),
        ("a: {b: 1, b: 2}\n", "line 1: key 'b' is given twice"),
        ("a: !!python/object/apply:os.system [echo]\n", "line 1: '!!python/object.*no plain data"),
        ("a: !!python/name:os.system ''\n", "'!!python/name:os.system' is no plain data"),
        ("a: !!binary aGVsbG8=\n", "'!!binary' is no plain data"),
        ("a: !!set {x, y}\n", "'!!set' is no plain data"),
        ("a: !mine x\n", "'!mine' is no plain data"),
        ("a: [1\n", "line"),
        ("- 1\n", "a recipe is a mapping of sections; this is a list"),
        ("hello\n", "a recipe is a mapping of sections; this is a str"),
        ("", "a recipe is a mapping of sections; this is empty"),
        ("a: 1\n---\na: 2\n", "line 2"),
        ("a: \x00\n", "special characters"),
        ("? [a]\n: b\n", "a key is a word"),
        ("a: " + "[" * 3000, "nested too deeply|line"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("".join(" " * n + f"k{n}:\n" for n in range(400)), "nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply, beyond 40 levels"),
        ("name: &a {b: *a}\n", "an alias stands within what it names"),
        ("a: &a [*a]\n", "an alias stands within what it names"),
        ("a: *nowhere\n", "undefined alias"),
        ("<<: 3\n", "line 1: expected a mapping"),
        ("seed: " + "9" * 5000, "a whole number of more than 100 digits"),
        ("seed: 0x" + "f" * 5000, "a whole number of more than 100 digits"),
        ("# " + "x" * 10_000_000, "longer than 100,000 characters"),
        *((text, "aliases written out") for text in BOMBS.values()),
    ],
)
def test_bad_yaml_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        recipes.load(AgentRecipe, str(path))
    assert "bad.yaml" in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [a]\n", "name = .'a'. .*line 4"),
        ("name: {a: 1}\n", "name"),
        ("seed: 0o9\n", "seed = '0o9' .*line 4"),
        ("seed: 1.5\n", "seed = 1.5 .*line 4"),
        ("seed: 99999999999999999999\n", "seed = 99999999999999999999"),
        ("threads: []\n", r"threads = \[\]"),
        ("target_return: .nan\n", "target_return = nan"),
        ("description: " + "[" + "x, " * 9000 + "]\n", "description = "),
        ("1: 2\n", "unknown key '1'"),
        ("null: 2\n", "unknown key 'null'"),
        ("device: gpu\n", "device = 'gpu'"),
        ("logging: {every: 2020-01-01}\n", "logging.every = '2020-01-01'"),
    ],
)
def test_wrong_types_are_named_with_key_and_line(
    text: str, words: str, tmp_path: Path, refused: Refused
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(HEAD + text)
    assert re.search(words, refused("train", str(path), "--dry-run"))


def test_aliases_and_merge_keys_that_stand_for_little_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(
        HEAD + "evaluation: &often {every: 7, episodes: 3}\n"
        "logging: {<<: {every: 9}, every: 5}\nname: &n mine\ndescription: *n\n"
    )
    recipe = recipes.load(AgentRecipe, str(path))
    assert (recipe.logging.every, recipe.description, recipe.evaluation.every) == (5, "mine", 7)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_next_to_nothing(name: str, lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name])

    def limit() -> None:  # what hangs or grows is killed
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))

    result = lab("train", str(path), preexec_fn=limit)
    assert result.returncode == 2
    assert result.stderr.startswith("rl-lab: ")
    assert result.stderr.count("\n") == 1


def test_what_is_no_readable_file_is_refused(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, folder, text = (tmp_path / f"{name}.yaml" for name in ("pipe", "folder", "text"))
    os.mkfifo(pipe)
    folder.mkdir()
    text.write_bytes(b"name: \xff\xfe")
    assert "no regular file" in refused("train", str(pipe))
    assert "no regular file" in refused("train", str(folder))
    assert "no regular file" in refused("recipes", str(folder))
    assert "cannot read recipe" in refused("train", str(text))
    assert "does not exist" in refused("train", "x" * 5000 + ".yaml")
    assert "does not exist" in refused("train", "nul\0.yaml")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert "Permission denied" in refused("train", str(text))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--" + "a." * 10_000 + "b", "1"], "nested deeper than 40"),
        (["--" + "a." * 10_000 + "b=1"], "nested deeper than 40"),
        (["--seed", "9" * 100_000], "more than 100 digits"),
        (["--description", "x" * 120_000], "longer than 100,000 characters"),
        (["--env.kwargs", "{a: " * 5000 + "1" + "}" * 5000], "nested too deeply"),
        (["--env.kwargs", "!!python/object/apply:os.system [echo]"], "no plain data"),
        (["--env.kwargs", BOMBS["one long word, often"]], "--env.kwargs.*aliases written out"),
        (["--env.id", "a: b: c"], "--env.id"),
        (["--x" * 5000, "1"], "unknown key"),
        (["--", "1"], "--|unknown key ''|unexpected"),
        (["--=1"], "unknown key|unexpected|--"),
        (["--env..id", "x"], "env"),
        (["--.", "x"], "unknown key"),
        (["--name.x", "1"], "name"),
        (["--algorithm.\x1b]0;owned\x07", "1"], r"\\x1b\]0;owned\\x07"),
        (["--env.id", "Cart\u202ePole"], r"Cart\\u202ePole"),
        (["--env.id", "[/red]"], "env.id"),
    ],
)
def test_bad_overrides_are_refused(tokens: list[str], words: str, refused: Refused) -> None:
    error = refused("train", "cartpole", *tokens)
    assert re.search(words, error), error


@given(st.text(max_size=200))
def test_no_text_gets_past_the_parser_but_as_data_or_a_user_error(text: str) -> None:
    try:
        recipes.parse_yaml(text, "test")
    except UserError as error:
        assert str(error).startswith("test")
