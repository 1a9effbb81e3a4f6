"""What several tests need: a runs directory of their own, and the command line as a user has it."""

# ruff: noqa: E402 -- threads are pinned before anything imports numpy or torch
from rl_lab import threads

threads.pin(1)

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from rl_lab import recipes
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run

# No timed assertions: a loaded machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

Lab = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def runs_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test keeps its runs to itself, and draws without a screen."""
    path = tmp_path / "runs"
    monkeypatch.setenv("RL_LAB_RUNS", str(path))
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return path


@pytest.fixture
def lab() -> Lab:
    """Run `rl-lab` in a process of its own."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "rl_lab.cli", *arguments],
            capture_output=True, text=True, timeout=300, check=False,
            env=os.environ | {"COLUMNS": "100"}, **options,
        )  # fmt: skip

    return run


@pytest.fixture
def make_recipe() -> Callable[..., AgentRecipe]:
    """Build a recipe from a built-in one and dotted overrides, `{"env.id": ...}`."""

    def make(name: str, overrides: dict[str, object] | None = None) -> AgentRecipe:
        return recipes.load(AgentRecipe, name, overrides or {})

    return make


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """Make the run directory of a recipe."""

    def make(recipe: AgentRecipe, name: str = "test") -> Run:
        return Run.create(name, recipe, ["test"], recipe.seed, recipe.threads)

    return make
