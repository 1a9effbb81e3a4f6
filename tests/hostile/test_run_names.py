"""Names of runs that are no plain directory names, wherever a name is taken."""

from pathlib import Path

import pytest

from rl_lab.errors import UserError
from rl_lab.run import Run, check_name, fresh_names
from tests.hostile.conftest import Refused

BAD = ["", "../../x", "..", ".", "a/b", "/etc/x", "\\x", "a\\b", ".hidden", "-x", "x" * 101,
       "x" * 300, "a\0b", "a b", "x ", " x", "x.", "x..", "é", "a\nb", "x\n", "\x1b[2J", "a\u202eb",
       "con", "CON", "nul", "Nul.txt", "aux", "prn.a.b", "com1", "LPT9", "*", "a:b", "$(x)",
       "\ud800"]  # fmt: skip
GOOD = ["x", "Pole", "pole", "a.b", "console", "com", "com10", "null", "x" * 100, "0", "a-seed0"]


@pytest.mark.parametrize("name", BAD)
def test_unusable_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        check_name(name)


@pytest.mark.parametrize("name", GOOD)
def test_plain_names_are_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", BAD)
def test_the_command_line_begins_no_run_of_such_a_name(
    name: str, refused: Refused, runs_directory: Path
) -> None:
    assert "cannot be used" in refused("train", "cartpole", f"--name={name}")
    assert not runs_directory.exists()


@pytest.mark.parametrize("name", BAD)
def test_a_recipe_of_such_a_name_gets_a_plain_one(name: str, runs_directory: Path) -> None:
    (made,) = fresh_names(name, [0])
    check_name(made)
    assert (runs_directory / made).parent == runs_directory


@pytest.mark.parametrize(
    "command",
    [["train", "--resume"], ["evaluate"], ["report"], ["play"], ["watch"]],
    ids=lambda command: command[-1],
)
def test_no_command_stumbles_over_a_name(
    command: list[str], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some of the names are directories, and `evaluate` and `report` take directories of runs.
    (tmp_path / "no" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "no" / "runs")
    for name in [*BAD, "x" * 5000, "../" * 2000, "nul\0", "runs/\ud800"]:
        if not name.startswith("-"):
            assert "no run" in refused(*command, name), name


def test_names_that_differ_by_case_are_two_runs(
    make_recipe: object, make_run: object, runs_directory: Path
) -> None:
    recipe = make_recipe("cartpole")  # type: ignore[operator]
    for name in ("pole", "Pole"):
        make_run(recipe, name)  # type: ignore[operator]
        assert Run.open(name).name == name
