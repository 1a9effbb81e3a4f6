"""Environment ids that import a module: nothing is run that the user has not named himself."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rl_lab import cli
from rl_lab.errors import UserError
from rl_lab.provenance import ROOT
from rl_lab.rl import environments, trust
from rl_lab.rl.recipe import AgentRecipe, Environment
from rl_lab.run import Run
from tests.conftest import Lab
from tests.hostile.conftest import Refused

MODULE = """
import pathlib
import gymnasium
pathlib.Path({trace!r}).write_text("it was run")
gymnasium.register("Strange-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
"""


@pytest.fixture(autouse=True)
def no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.VARIABLE, "")


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the module `strange_envs`, which can be imported, was."""
    folder = tmp_path / "installed"
    folder.mkdir()
    path = tmp_path / "trace"
    (folder / "strange_envs.py").write_text(MODULE.format(trace=str(path)))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder)]))
    return path


def test_an_id_never_imports_a_module_it_names() -> None:
    with pytest.raises(UserError, match=r"importing a module runs its code.*--trust antigravity$"):
        environments.make(Environment(id="antigravity:CartPole-v1"))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "environment_id",
    ["os:CartPole-v1", "os.path:CartPole-v1", "envs.recall:RLLab/Recall-v0", ":CartPole-v1",
     "ENVS:RLLab/Match-v0", "../envs:RLLab/Match-v0", "envs:os:RLLab/Match-v0", " envs:X",
     "antigravity:ALE/Pong-v5", "antigravity:MiniGrid-Empty-5x5-v0"],
)  # fmt: skip
def test_only_the_packages_the_lab_knows_are_imported(environment_id: str) -> None:
    with pytest.raises(UserError, match="would import the module"):
        environments.check_id(environment_id)


@pytest.mark.parametrize(
    ("written", "alone"),
    [("envs:RLLab/Match-v0", "RLLab/Match-v0"), ("envs:CartPole-v1", "CartPole-v1"),
     ("minigrid:MiniGrid-Empty-5x5-v0", "MiniGrid-Empty-5x5-v0"),
     ("ale_py:ALE/Pong-v5", "ALE/Pong-v5")],
)  # fmt: skip
def test_the_packages_the_lab_knows_need_no_trust(written: str, alone: str) -> None:
    package = written.partition(":")[0]
    pytest.importorskip(package)
    assert environments.check_id(written) == alone


def test_a_package_of_the_lab_that_is_missing_names_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environments, "installed", lambda name: name != "minigrid")
    with pytest.raises(UserError, match=r"extra 'minigrid'.*pip install"):
        environments.check_id("minigrid:MiniGrid-Empty-5x5-v0")


def test_trust_is_given_by_name_and_lasts_one_command() -> None:
    trust.grant(["one,two.three", "four"])
    assert trust.granted() == ["one", "two.three", "four"]
    trust.grant([])
    assert trust.granted() == []


@pytest.mark.parametrize("given", ["", "a b", "../x", "a:b", "1", "a,,b", "-", "\x1b[2J"])
def test_what_is_no_module_is_no_trust(given: str, refused: Refused) -> None:
    assert "name of a Python module" in refused("train", "cartpole", f"--trust={given}")


def test_a_trusted_module_that_is_not_there_is_a_sentence() -> None:
    trust.grant(["no_such_module"])
    with pytest.raises(UserError, match="cannot be imported: No module named 'no_such_module'"):
        environments.check_id("no_such_module:CartPole-v1")


def test_from_training_to_judging_nothing_is_imported_without_trust(
    lab: Lab, refused: Refused, trace: Path, runs_directory: Path
) -> None:
    settings = ["train", "cartpole", "--env.id", "strange_envs:Strange-v0", "--name", "strange",
                "--budget.steps", "256", "--quiet", "--env.vectorization", "subproc",
                "--env.number", "2"]  # fmt: skip
    for untrusting in ([], ["--dry-run"], ["--trust", "strange"], ["--trust", "envs,json"]):
        assert "--trust strange_envs" in refused(*settings, *untrusting)
    assert not trace.exists()
    assert not runs_directory.exists()

    trained = lab(*settings, "--trust", "json", "--trust", "strange_envs")
    assert trained.returncode == 0, trained.stderr
    assert trace.exists()
    trace.unlink()

    # The run directory, somebody else's from here on, gives no trust by itself.
    run = Run(runs_directory / "strange")
    assert "strange_envs" in run.provenance["command"]
    run.update_status(state="stopped")
    for command in (
        ["evaluate", "strange", "--episodes", "2", "--model", "last"],
        ["play", "strange", "--video", "--model", "last"],
        ["train", "--resume", "strange", "--quiet"],
        ["train", str(run.recipe_file), "--dry-run"],
    ):
        assert "--trust strange_envs" in refused(*command)
    for command in (["report", "strange"], ["watch", "strange"], ["runs"]):
        with pytest.raises(SystemExit) as ending:
            cli.main(command)
        assert ending.value.code == 0
    assert not trace.exists()
    judged = lab("evaluate", "strange", "--episodes", "2", "--model", "last",
                 "--trust=strange_envs")  # fmt: skip
    assert judged.returncode == 0, judged.stderr
    assert trace.exists()


def test_trust_reaches_the_processes_of_several_seeds(
    lab: Lab, trace: Path, runs_directory: Path
) -> None:
    result = lab("train", "cartpole", "--env.id", "strange_envs:Strange-v0", "--seeds", "0,1",
                 "--name", "strange", "--budget.steps", "256", "--quiet",
                 "--trust", "strange_envs")  # fmt: skip
    assert result.returncode == 0, result.stderr
    states = [Run(path).state for path in sorted(runs_directory.glob("strange-seed*"))]
    assert states == ["finished", "finished"]


def test_a_wrapper_or_keyword_is_no_way_around(make_recipe: Callable[..., AgentRecipe]) -> None:
    for kwargs in ({"id": "antigravity:X"}, {"entry_point": "antigravity:X"}):
        with pytest.raises(UserError):
            environments.make(Environment(id="CartPole-v1", kwargs=kwargs))
    for wrapper in ("antigravity:Wrapper", "antigravity.Wrapper", "Wrapper.__init__"):
        with pytest.raises(UserError, match="no wrapper"):
            environments.make(Environment(id="CartPole-v1", wrappers=[wrapper]))
    assert "antigravity" not in sys.modules
