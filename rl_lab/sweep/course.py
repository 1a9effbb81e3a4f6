"""The course of a sweep: first the search, then the best trials once more on fresh seeds."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from rl_lab import benchmark, recipes
from rl_lab.drawing import duration
from rl_lab.errors import UserError
from rl_lab.experiment_view import ExperimentView, view_of
from rl_lab.files import write_json
from rl_lab.run import Run
from rl_lab.run_view import RunView
from rl_lab.sweep import confirmation
from rl_lab.sweep.confirmation import EPISODES, Contender
from rl_lab.sweep.measure import Measure
from rl_lab.sweep.search import Search, ensure
from rl_lab.sweep.study import Study
from rl_lab.sweep_recipe import Sweep
from rl_lab.text import short
from rl_lab.workers import Workers, end_leftovers


class Course:
    """A sweep under way. Whoever makes one holds the sweep's lock."""

    def __init__(
        self,
        directory: Path,
        sweep: Sweep,
        measure: Measure,
        seed: int,
        recipe_of: Callable[[Mapping[str, Any]], Any],
        jobs: int,
        options: list[str],
        say: Callable[[str], None],
    ) -> None:
        """Take a sweep up wherever it stands.

        Args:
            directory: the sweep's.
            sweep: its section.
            measure: how runs are measured.
            seed: the recipe's; the first of the trials' runs.
            recipe_of: values by dotted key -> the recipe with them.
            jobs: runs at a time.
            options: of `rl-lab train` and `rl-lab evaluate`, such as `--trust=MODULE`.
            say: told what happened, in a sentence.

        Raises:
            UserError: its journal is damaged.
            StorageError: it cannot be written.
        """
        self.directory, self.sweep, self.measure = directory, sweep, measure
        self._recipe_of, self._options, self._say = recipe_of, options, say
        end_leftovers([Run(path.parent) for path in directory.glob("*/recipe.yaml")])
        self.seeds = range(seed, seed + sweep.seeds_a_trial)
        self.fresh_seeds = range(self.seeds.stop, self.seeds.stop + sweep.fresh_seeds)
        self.workers = Workers([], jobs)
        self.views: list[RunView | ExperimentView] = []
        """Of the runs at work."""
        self.study = Study(directory, sweep, seed, measure.most)
        self._contenders: list[Contender] = []
        self._search = Search(
            directory, sweep, self.study, measure,
            lambda values, run_seed: recipes.for_run(recipe_of(values), run_seed),
            self.seeds, self.workers, options, lambda sentence: say(f"{sentence} · {self._far()}"),
        )  # fmt: skip
        self._began, self._done_before = time.monotonic(), self._done()

    def more(self) -> bool:
        """Do what is to be done now; return whether there is more.

        Raises:
            UserError: no trial came to anything.
        """
        at_work = self.workers.poll()
        if not self.workers.stopping:
            searching = self._search.poll()
            if not searching and not self._contenders:
                self._confirm()
            at_work = self.workers.poll() or searching
        self._look_at_runs()
        return at_work

    def _confirm(self) -> None:
        """Have the best trials, and the recipe as it is, trained on fresh seeds."""
        best = self.study.best(self.sweep.winners)
        if not best:
            failed = [trial.user_attrs.get("why") for trial in self.study.trials]
            first = next((why for why in failed if why), "all were pruned")
            raise UserError(f"no trial of {self.directory.name} finished: {first}")
        found = [Contender(None, {}, self._recipe_of({}))]
        for trial in best:
            values = self.study.values(trial.params)
            found.append(Contender(trial.number, values, self._recipe_of(values)))
        self._contenders = found
        planned = confirmation.plan(self.directory, found, self.fresh_seeds)
        for one in planned:
            ensure(one.run, one.recipe, one.seed, one.threads)
        for job in benchmark.jobs(planned, EPISODES, self._options):
            self.workers.add(job)
        names = ", ".join(str(trial.number) for trial in best)
        count = f"{len(self.fresh_seeds)} fresh seeds"
        self._say(f"trials {names} and the recipe as it is, again on {count} · {self._far()}")

    def result(self) -> dict[str, Any]:
        """What came of it; written to result.json as well.

        Raises:
            StorageError: it cannot be written.
        """
        found = {
            "sweep": self.directory.name,
            "trials": [self._described(trial) for trial in self.study.trials],
        } | confirmation.outcome(self.directory, self._contenders, self.fresh_seeds)
        write_json(self.directory / "result.json", found)
        return found

    def _described(self, trial: FrozenTrial) -> dict[str, Any]:
        state = trial.state.name.lower()
        share = (trial.last_step or 0) / max(self.measure.most, 1)
        return {
            "number": trial.number,
            "state": state,
            "value": trial.value if state == "complete" else None,
            "pruned_at": min(1.0, share) if state == "pruned" else None,
            "last_value": trial.value if state == "pruned" else None,
            "parameters": self.study.values(trial.params),
            "why": trial.user_attrs.get("why"),
        }

    # --- how far it is ---------------------------------------------------------------------------

    def heading(self) -> str:
        """The sweep in a line."""
        return f"sweep {self.directory.name}: {self._far()}"

    def _far(self) -> str:
        trials = self.study.trials
        ended = sum(trial.state.is_finished() for trial in trials)
        parts = [f"{ended} of {self.sweep.trials} trials"]
        if self.study.best(1):
            parts.append(f"best {short(self.study.best(1)[0].value or 0.0)}")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def _seconds_left(self) -> float | None:
        done = self._done()
        since = done - self._done_before
        if since <= 0:
            return None
        fresh = len(self.fresh_seeds) * (self.sweep.winners + 1)
        total = self.sweep.trials * len(self.seeds) + fresh
        return max(0.0, total - done) * (time.monotonic() - self._began) / since

    def _done(self) -> float:
        """Runs done, those at work counted by how far they are."""
        fresh = [
            Run(self.directory / f"{contender.label}-seed{seed}")
            for contender in self._contenders
            for seed in self.fresh_seeds
        ]
        confirmed = sum(confirmation.score(run) is not None for run in fresh)
        return self._search.done * len(self.seeds) + confirmed

    def _look_at_runs(self) -> None:
        """Keep views of the runs at work, and of no others."""
        known = {view.run.path: view for view in self.views}
        self.views[:] = [known.get(run.path) or view_of(run) for run in self.workers.runs]
