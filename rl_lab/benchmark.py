"""A benchmark: every entry of a suite on every seed, each run in the suite's own directory.

What is there already is kept: a run that finished is not trained again, one that was judged is not
judged again, and one that was killed goes on where it was.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_lab import recipes
from rl_lab.engines.workers import LAB, Job, training
from rl_lab.files import is_directory, writing
from rl_lab.language_evaluation import mapping
from rl_lab.recipes import Section
from rl_lab.results import JUDGED, is_current
from rl_lab.run import Run


@dataclass(frozen=True)
class Planned:
    """One run of a benchmark."""

    entry: str
    """Label of its entry."""
    seed: int
    recipe: Section
    """Resolved, with the seed."""
    threads: int
    agent: bool
    """Whether it is an agent's, which is judged after training; else an experiment's."""
    run: Run

    @classmethod
    def of(cls, directory: Path, entry: str, seed: int, recipe: Any) -> "Planned":
        """Plan the run of an entry's recipe and a seed."""
        resolved = recipes.for_run(recipe, seed)
        run = Run(directory / f"{entry}-seed{seed}")
        return cls(entry, seed, resolved, recipe.threads, hasattr(recipe, "env"), run)


def jobs(planned: Sequence[Planned], episodes: int, options: Sequence[str] = ()) -> list[Job]:
    """What is left to do; the directories of runs that are not there yet are made by `create`.

    Args:
        planned: every run of the benchmark.
        episodes: that an agent is judged on.
        options: of `rl-lab train` and `rl-lab evaluate`, such as `--trust=MODULE`.
    """
    found = []
    for plan in planned:
        commands = []
        if plan.run.state != "finished":
            commands.append(training(plan.run, options))
        if plan.agent and (commands or not judged(plan.run, episodes)):
            commands.append(
                [*LAB, "evaluate", str(plan.run.path), "--episodes", str(episodes), *options]
            )
        if commands:
            found.append(Job(plan.run, commands, plan.threads))
    return found


def create(planned: Sequence[Planned], command: list[str]) -> None:
    """Make the directories of the runs that are not there yet.

    Args:
        planned: every run of the benchmark.
        command: the command line that asked for them.

    Raises:
        UserError: one cannot be made.
        StorageError: likewise.
    """
    for plan in planned:
        if not plan.run.recipe_file.exists():
            _clear_away(plan.run)
            name, parent = plan.run.name, plan.run.path.parent
            Run.create(name, plan.recipe, command, plan.seed, plan.threads, parent=parent)


def _clear_away(run: Run) -> None:
    """Remove what a process left that was killed while it made the run's directory.

    A directory that holds anything else is not ours, and stays.

    Raises:
        StorageError: it cannot be removed.
    """
    if not is_directory(run.path):
        return
    with writing(run.path):
        if all(path.name.startswith(".recipe.yaml.") for path in run.path.iterdir()):
            shutil.rmtree(run.path)


def judged(run: Run, episodes: int) -> bool:
    """Whether an agent has been judged on so many episodes."""
    found = mapping(run.evaluations.get(JUDGED))
    return mapping(found.get("return")).get("n") == episodes and is_current(run, found)
