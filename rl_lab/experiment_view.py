"""A language experiment as somebody watching sees it: its stages, each a run of its own."""

import time
from pathlib import Path
from typing import Any

from rl_lab import language_vitals
from rl_lab.language_evaluation import LanguageEvaluation, mapping, number, rows
from rl_lab.metrics import Record
from rl_lab.plain_json import parse, read_object
from rl_lab.run import Run
from rl_lab.run_view import RunView

STAGES = ("data", "pretrain", "reward", "judges", "ppo", "evaluate")
"""In their order, as `rl_lab.rlhf.recipe` has them."""


class ExperimentView:
    """An experiment as last looked at."""

    def __init__(self, run: Run, pinned: str | None = None) -> None:
        """Read it for the first time.

        Args:
            run: the experiment.
            pinned: the stage to show; None: the one at work, and after the end `ppo`.
        """
        self.run = run
        self.whole = RunView(run)
        """The experiment's own directory: its recipe, state and events."""
        self.pinned = pinned
        self.stages: dict[str, RunView | None] = {}
        """Every stage it has, in order; None: not begun."""
        self.samples: list[dict[str, Any]] = []
        """Completions of the newest look, as of `samples.jsonl`."""
        self.evaluation: LanguageEvaluation | None = None
        self.ceiling: float | None = None
        """Share of held-out pairs on which a judge can agree with people at most; None: unknown."""
        self._changed: dict[Path, int] = {}
        self._refresh_stages()

    def refresh(self) -> None:
        """Read what is new."""
        self.whole.refresh()
        self._refresh_stages()

    def _refresh_stages(self) -> None:
        before, self.stages = self.stages, {}
        for name in STAGES:
            run = Run(self.run.path / name)
            begun = run.recipe_file.is_file()
            view = before.get(name)
            if begun and view is not None and view.status["created"] == run.status["created"]:
                view.refresh()
            elif begun:  # new, or made anew
                view = RunView(run)
            if begun or self.whole.recipe.get(name) is not None:
                self.stages[name] = view if begun else None
        samples = self.run.path / "ppo" / "samples.jsonl"
        if self._has_changed(samples):
            self.samples = _newest_samples(samples)
        report = self.run.path / "data" / "report.json"
        if self._has_changed(report):
            self.ceiling = _ceiling(read_object(report))
        for evaluation in (self.run.evaluation_file, self.run.path / "evaluate/evaluation.json"):
            if self._has_changed(evaluation):
                content = Run(evaluation.parent).evaluations
                self.evaluation = LanguageEvaluation(content) if content else self.evaluation

    def _has_changed(self, path: Path) -> bool:
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return False
        changed = self._changed.get(path) != stamp
        self._changed[path] = stamp
        return changed

    # --- what is shown ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"{self.run.name}/{self.pinned}" if self.pinned else self.run.name

    @property
    def current(self) -> str | None:
        """The stage to show; None before the first has begun."""
        begun = [name for name, view in self.stages.items() if view is not None]
        if self.pinned in begun:
            return self.pinned
        if self.whole.state == "finished" and "ppo" in begun:
            return "ppo"
        at_work = self.whole.status.get("stage")
        return at_work if at_work in begun else (begun[-1] if begun else None)

    @property
    def stage(self) -> RunView | None:
        """The view of the current stage."""
        return self.stages[self.current] if self.current else None

    @property
    def state(self) -> str:
        return self.stage_state(self.pinned) if self.pinned else self.whole.state

    @property
    def live(self) -> bool:
        """Whether there is more to come: of the pinned stage, or of the experiment."""
        return self.stage_state(self.pinned) == "running" if self.pinned else self.whole.live

    def stage_state(self, name: str) -> str:
        """One of `rl_lab.run.STATES`, or `reused`, or `to come`."""
        view = self.stages.get(name)
        if view is None:
            return "to come"
        if view.status.get("reused") is True and view.state == "finished":
            return "reused"
        at_work = self.whole.state == "running" and self.whole.status.get("stage") == name
        if at_work and view.state in ("created", "died"):  # the experiment holds the lock for it
            return "running"
        return view.state

    def stage_seconds(self, name: str) -> float:
        """Seconds a stage has taken, as far as they are known."""
        view = self.stages.get(name)
        if view is None:
            return 0.0
        started = view.status.get("started", view.status.get("created"))
        if not isinstance(started, int | float) or not started:
            return view.elapsed
        if self.stage_state(name) == "reused":  # its last heartbeat is when it was taken
            return view.elapsed
        running = self.stage_state(name) == "running"
        ended = time.time() if running else view.status.get("heartbeat", started)
        resumed = view.elapsed > ended - started  # `started` is of the last start
        return view.elapsed if resumed else float(ended - started)

    @property
    def events(self) -> list[Record]:
        """Of the current stage; before the first has begun, of the experiment."""
        return self.stage.events if self.stage else self.whole.events

    # --- ppo's numbers, which stand for the experiment -------------------------------------------

    @property
    def ppo(self) -> list[Record]:
        """Lines of the ppo stage."""
        view = self.stages.get("ppo")
        return view.records if view else []

    @property
    def kl_section(self) -> dict[str, Any]:
        return mapping(mapping(self.whole.recipe.get("ppo")).get("kl"))

    @property
    def warnings(self) -> list[str]:
        """What looks wrong in the current stage."""
        if self.stage is None:
            return []
        known = self.stage.warnings
        if self.current == "ppo":
            return language_vitals.warnings(self.ppo, self.kl_section) + known
        if self.current == "pretrain":
            return language_vitals.pretraining_warnings(self.stage.records) + known
        return known


def _ceiling(report: dict[str, Any]) -> float | None:
    """Of the data stage's report, over pairs of any margin: its first row."""
    first = next(iter(rows(report.get("ceiling"))), {})
    return number(first.get("full"))


def view_of(run: Run) -> RunView | ExperimentView:
    """The view that fits a run: an agent's, an experiment's, or one pinned to a stage."""
    view = RunView(run)
    if isinstance(view.recipe.get("stage"), str) and run.path.absolute().name in STAGES:
        path = run.path.absolute()
        return ExperimentView(Run(path.parent), pinned=path.name)
    planned = "env" not in view.recipe and any(name in view.recipe for name in STAGES)
    return ExperimentView(run) if planned or is_experiment(run) else view


def is_experiment(run: Run) -> bool:
    """Whether a run has begun as an experiment; told without reading its recipe or metrics."""
    begun = any((run.path / name / "recipe.yaml").is_file() for name in STAGES)
    return begun or run.status.get("unit") == "stages"


def _newest_samples(path: Path) -> list[dict[str, Any]]:
    """The rows of the last step; damaged lines are left out."""
    found = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return []
    for line in text.split("\n"):
        try:
            row = parse(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    newest = max((row["step"] for row in found), default=0)
    return [row for row in found if row["step"] == newest]
