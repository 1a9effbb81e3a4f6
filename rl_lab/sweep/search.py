"""The search: trials are drawn, trained by workers, looked at while they train, pruned and told."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from rl_lab.files import writing
from rl_lab.recipes import Section
from rl_lab.run import Run
from rl_lab.sweep.measure import Measure
from rl_lab.sweep.space import said
from rl_lab.sweep.study import Study
from rl_lab.sweep_recipe import Sweep
from rl_lab.text import short
from rl_lab.workers import Job, Workers, training


@dataclass
class Running:
    """A trial at work."""

    trial: Trial
    runs: list[Run]
    """One for each seed."""


class Search:
    """The trials of a sweep, from wherever its journal stands."""

    def __init__(
        self,
        directory: Path,
        sweep: Sweep,
        study: Study,
        measure: Measure,
        recipe_of: Callable[[Mapping[str, Any], int], Any],
        seeds: Sequence[int],
        workers: Workers,
        options: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        """Take up the trials that were begun and not finished.

        Args:
            directory: the sweep's, locked.
            sweep: its section.
            study: its trials.
            measure: how runs are measured.
            recipe_of: (values by dotted key, seed) -> the recipe of a run.
            seeds: of each trial's runs.
            workers: train the runs.
            options: of `rl-lab train`, such as `--trust=MODULE`.
            say: told in a sentence of each trial that ends.
        """
        self.directory, self.sweep, self.study, self.measure = directory, sweep, study, measure
        self._recipe_of, self._seeds, self._workers = recipe_of, seeds, workers
        self._options, self._say = options, say
        self.running = [self._start(trial) for trial in study.unfinished()]

    def poll(self) -> bool:
        """Look at every trial, begin those there is room for; return whether more is to come."""
        for running in list(self.running):
            self._look(running)
        while self._workers.free and len(self.study.trials) < self.sweep.trials:
            self.running.append(self._start(self.study.draw()))
        return bool(self.running) or len(self.study.trials) < self.sweep.trials

    def _start(self, trial: Trial) -> Running:
        """Make the runs of a trial that are not there yet, and have what is left of them done."""
        values = self.study.values(trial.params)
        runs = []
        for seed in self._seeds:
            run = Run(self.directory / f"trial{trial.number}-seed{seed}")
            recipe = self._recipe_of(values, seed)
            ensure(run, recipe, seed, recipe.threads)
            if run.state != "finished":
                self._workers.add(Job(run, [training(run, self._options)]))
            runs.append(run)
        return Running(trial, runs)

    def _look(self, running: Running) -> None:
        """Report what is new of a trial, and tell how it ended if it has."""
        trial, runs = running.trial, running.runs
        # Another process may hold a run: a worker whose parent was killed as it began.
        at_work = [run for run in runs if self._workers.at_work(run) or run.locked()]
        # At the last evaluation there is nothing left to be saved.
        course = {k: value for k, value in self._course(runs).items() if k < self.measure.most}
        if self.study.report(trial, course):
            self.study.prune(trial)
            for run in at_work:
                self._workers.end(run)
            self._ended(running, f"pruned at {self._share(runs):.0%}")
        elif not at_work and not self._workers.stopping:
            self._tell(running)

    def _tell(self, running: Running) -> None:
        """Tell the value of a trial whose runs have all ended."""
        for run in running.runs:
            if run.state != "finished":
                reason = run.status.get("reason") or f"see {run.path / 'console.log'}"
                self.study.fail(running.trial, f"{run.name} {run.state}: {reason}")
                self._ended(running, f"failed: {reason}")
                return
        values = [self.measure.value(run) for run in running.runs]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            self.study.fail(running.trial, "it was not evaluated")
            self._ended(running, "failed: it was not evaluated")
            return
        value = sum(known) / len(known)
        self.study.complete(running.trial, value)
        self._ended(running, short(value))

    def _course(self, runs: Sequence[Run]) -> dict[int, float]:
        """Means over the runs, where all of them have got that far."""
        courses = [self.measure.course(run) for run in runs]
        shared = set.intersection(*(set(course) for course in courses))
        return {
            number: sum(course[number] for course in courses) / len(courses) for number in shared
        }

    def _share(self, runs: Sequence[Run]) -> float:
        """How far a trial has got, in [0, 1]."""
        return min(1.0, max(self._course(runs), default=0) / max(self.measure.most, 1))

    @property
    def done(self) -> float:
        """Trials that have ended, those at work counted by how far they are."""
        ended = len(self.study.trials) - len(self.running)
        return ended + sum(self._share(running.runs) for running in self.running)

    def _ended(self, running: Running, how: str) -> None:
        self.running.remove(running)
        values = self.study.values(running.trial.params)
        self._say(f"trial {running.trial.number}: {how} · {_said(values)}")


def ensure(run: Run, recipe: Section, seed: int, threads: int) -> None:
    """Make a run's directory unless it is there; one that was being made by a killed process goes.

    Raises:
        StorageError: it cannot be made.
    """
    if run.recipe_file.exists():
        return
    with writing(run.path):
        if run.path.exists():
            shutil.rmtree(run.path)
    command = ["rl-lab", "sweep", "--resume", run.path.parent.name]
    Run.create(run.path.name, recipe, command, seed, threads, parent=run.path.parent)


def _said(values: Mapping[str, Any]) -> str:
    """Values by key in a line, each key by its last part."""
    return ", ".join(f"{key.rpartition('.')[2]} {said(value)}" for key, value in values.items())
