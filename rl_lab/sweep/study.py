"""The trials of a sweep as optuna keeps them: one journal of JSON lines, from which it goes on."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from rl_lab.errors import UserError
from rl_lab.files import cut_partial_line, is_file, is_there, writing
from rl_lab.seeding import stream
from rl_lab.sweep_recipe import Parameter, Sweep

TRIALS = 40
"""What the sampler's stream of random numbers is for."""


def _distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter as optuna has it; of choices, which may be lists, their places in the list."""
    if parameter.choices is not None:
        return CategoricalDistribution(range(len(parameter.choices)))
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.integer:
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


class Study:
    """Trials drawn, reported, pruned and told.

    Whoever opens it holds the sweep's lock. Drawing is seeded by a trial's number, so a sweep that
    was interrupted draws what it would have drawn, as long as its trials come one after another.
    """

    def __init__(self, directory: Path, sweep: Sweep, seed: int, steps: int) -> None:
        """Open the journal, or begin it.

        Args:
            directory: the sweep's.
            sweep: its section.
            seed: the recipe's.
            steps: intermediate values of a whole trial, about.

        Raises:
            UserError: the journal is damaged.
            StorageError: it cannot be written.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._seed = sweep, seed
        self._judged: dict[int, int] = {}
        journal = self._journal = directory / "journal.log"
        if is_there(journal) and not is_file(journal):  # a pipe would keep us waiting
            raise UserError(f"{journal} is no regular file")
        with writing(journal):
            cut_partial_line(journal)
            # optuna's own lock, left by a process that was killed; the sweep's keeps others out.
            Path(f"{journal}.lock").unlink(missing_ok=True)
        pruning = sweep.pruning
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if pruning is not None:
            pruner = optuna.pruners.MedianPruner(
                sweep.startup_trials, math.ceil(pruning.warmup * steps)
            )
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal))), study_name="sweep",
                direction="maximize", load_if_exists=True, pruner=pruner,
            )  # fmt: skip
            self._check()
        except (
            ValueError, LookupError, TypeError, AttributeError, AssertionError,
            optuna.exceptions.OptunaError,
        ) as error:  # fmt: skip
            raise UserError(
                f"{journal} is damaged ({type(error).__name__}); start a new sweep, or cut the "
                "journal after its last whole line"
            ) from error

    def _check(self) -> None:
        """The journal's trials are of this space, as another's would not be."""
        known = {key: _distribution(value) for key, value in self._sweep.parameters.items()}
        for trial in self.trials:
            if any(known.get(key) != found for key, found in trial.distributions.items()):
                raise ValueError("trials of another space")

    @property
    def trials(self) -> list[FrozenTrial]:
        """Every trial so far, in their order."""
        return self._study.get_trials(deepcopy=False)

    def best(self, count: int) -> list[FrozenTrial]:
        """The completed trials of highest value, the earlier first where two are equal.

        Of trials with the same values only the first counts.
        """
        done = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        found: list[FrozenTrial] = []
        for trial in sorted(done, key=lambda trial: (-_value(trial), trial.number)):
            if len(found) < count and all(trial.params != other.params for other in found):
                found.append(trial)
        return found

    def unfinished(self) -> list[Trial]:
        """Trials that were begun and not told, as a process that was killed leaves them."""
        return [
            self._open(trial)
            for trial in self.trials
            if trial.state in (TrialState.RUNNING, TrialState.WAITING)
        ]

    def draw(self) -> Trial:
        """Begin the next trial."""
        self._sampler_of(len(self.trials))
        with writing(self._journal):
            trial = self._study.ask()
            self._suggest(trial)
        return trial

    def _open(self, frozen: FrozenTrial) -> Trial:
        self._sampler_of(frozen.number)
        with writing(self._journal):
            trial = Trial(self._study, frozen._trial_id)
            self._suggest(trial)  # it may have been killed before all were drawn
        return trial

    def _sampler_of(self, number: int) -> None:
        (seed,) = stream(self._seed, TRIALS, 1, number + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=self._sweep.startup_trials
            )

    def _suggest(self, trial: Trial) -> None:
        for key, parameter in self._sweep.parameters.items():
            trial._suggest(key, _distribution(parameter))

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial's recipe has at each key, from its `params`."""
        return {
            key: value if choices is None else choices[value]
            for key, value in drawn.items()
            for choices in [self._sweep.parameters[key].choices]
        }

    def report(self, trial: Trial, course: Mapping[int, float]) -> bool:
        """Report intermediate values; return whether the trial should be pruned.

        Each is judged when it is reported, so it does not matter how many came at once; the newest
        of those reported before a kill is judged again.

        Args:
            trial: the trial.
            course: its intermediate values so far, by number.
        """
        known = self.trials[trial.number].intermediate_values
        newest = max(known, default=0)
        for number in sorted(course):
            if number < newest or number <= self._judged.get(trial.number, 0):
                continue
            self._judged[trial.number] = number
            with writing(self._journal):
                if number not in known:
                    trial.report(course[number], number)
            if trial.should_prune():
                return True
        return False

    def complete(self, trial: Trial, value: float) -> None:
        """Tell what a trial came to."""
        self._tell(trial, TrialState.COMPLETE, value)

    def prune(self, trial: Trial) -> None:
        """Tell that a trial is ended early."""
        self._tell(trial, TrialState.PRUNED)

    def fail(self, trial: Trial, why: str) -> None:
        """Tell that a trial came to nothing, and why."""
        with writing(self._journal):
            trial.set_user_attr("why", why)
        self._tell(trial, TrialState.FAIL)

    def _tell(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        with writing(self._journal):
            self._study.tell(trial, value, state)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None  # it is complete
    return trial.value
