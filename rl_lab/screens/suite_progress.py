"""How far a benchmark is, read from its directories alone, and the grid that shows it."""

import time
from collections.abc import Sequence
from typing import Literal

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rl_lab.benchmark import Planned, judged
from rl_lab.errors import UserError
from rl_lab.results import Measure, result_of
from rl_lab.screens.drawing import BLOCKS, duration
from rl_lab.statistics import runs_interval
from rl_lab.suites import Entry, Suite
from rl_lab.text import inert, inert_text, short

Stage = Literal["waiting", "running", "judging", "done", "stopped", "failed"]
SIGNS: dict[Stage, tuple[str, str]] = {
    "waiting": ("·", "dim"), "judging": ("?", "green"), "done": ("✓", "cyan"),
    "stopped": ("‖", "yellow"), "failed": ("✗", "bold red"),
}  # fmt: skip
"""What a cell of the grid shows, and its style; of a running one, a block as high as it is far."""


class RunProgress:
    """One run of a benchmark as last looked at."""

    def __init__(self, plan: Planned, episodes: int) -> None:
        self.plan, self._episodes = plan, episodes
        self.stage: Stage = "waiting"
        self.share = 0.0
        """Of its training that is done, in [0, 1]."""
        self.seconds = 0.0
        """That its training took so far, since it was last started."""
        self.score: float | None = None
        """What it came to, by the measure that counts."""

    def refresh(self) -> None:
        """Look again; what is done does not change."""
        if self.stage == "done" or not self.plan.run.recipe_file.exists():
            return
        status, state = self.plan.run.status, self.plan.run.state
        budget = status.get("budget") or 0
        self.share = min(status["step"] / budget, 1.0) if budget else 0.0
        if "started" in status:
            self.seconds = max(status.get("heartbeat", 0.0) - status["started"], 0.0)
        if state == "finished":
            self.share = 1.0
            is_judged = not self.plan.agent or judged(self.plan.run, self._episodes)
            self.stage = "done" if is_judged else "judging"
            self.score = _score(self.plan) if is_judged else None
        elif state == "created":
            self.stage = "waiting"
        else:
            self.stage = {"running": "running", "stopped": "stopped"}.get(state, "failed")  # type: ignore[assignment]


class SuiteProgress:
    """All runs of a benchmark."""

    def __init__(self, suite: Suite, planned: Sequence[Planned], at_a_time: int) -> None:
        """Look at a benchmark for the first time.

        Args:
            suite: what is run.
            planned: every run of it.
            at_a_time: how many runs go on side by side.
        """
        self.suite, self._at_a_time = suite, at_a_time
        self.runs = [RunProgress(plan, suite.episodes) for plan in planned]
        self.refresh()

    def refresh(self) -> None:
        """Look again."""
        for run in self.runs:
            run.refresh()

    def count(self, stage: Stage) -> int:
        """How many runs are there."""
        return sum(run.stage == stage for run in self.runs)

    @property
    def seconds_left(self) -> float | None:
        """Until all are trained, by what the runs of each entry took; None before that is known."""
        left = 0.0
        for entry in self.suite.entries:
            runs = [run for run in self.runs if run.plan.entry == entry.label]
            shares = sum(run.share for run in runs)
            if shares < 0.01:
                return None
            a_run = sum(run.seconds for run in runs) / shares
            left += a_run * sum(1 - run.share for run in runs if run.stage != "failed")
        return left / self._at_a_time

    # --- as a grid, and as lines -----------------------------------------------------------------

    def grid(self) -> RenderableType:
        """One row an entry, one cell a seed."""
        table = Table(box=None, header_style="dim", pad_edge=False, expand=True)
        table.add_column("recipe", overflow="fold")
        table.add_column(f"seeds 0–{self.suite.seeds - 1}")
        table.add_column("done", justify="right")
        table.add_column(Text("mean [95 %]"), justify="right", no_wrap=True)
        table.add_column("published", justify="right")
        for entry in self.suite.entries:
            runs = [run for run in self.runs if run.plan.entry == entry.label]
            scores = [run.score for run in runs if run.score is not None]
            table.add_row(
                inert_text(entry.label),
                Text.assemble(*map(_cell, runs)),
                f"{sum(run.stage == 'done' for run in runs)} of {len(runs)}",
                _said(scores),
                _published(entry),
            )
        signs = "· waiting  ▄ training  ? to be judged  ✓ done  ‖ stopped  ✗ failed"
        against = [entry.against for entry in self.suite.entries if entry.against is not None]
        if not all(reference.comparable for reference in against):
            signs += "  * under other conditions"
        return Panel(Lines(table, Text(signs, style="dim")), title=inert_text(self.suite.name),
                     subtitle=self.line())  # fmt: skip

    def line(self) -> str:
        """How far it is, in a line."""
        parts = [
            f"{self.count('done')} of {len(self.runs)} done",
            f"{self.count('running')} running",
        ]
        if self.count("failed"):
            parts.append(f"{self.count('failed')} failed")
        if self.seconds_left is not None:
            parts.append(f"about {duration(self.seconds_left)} left")
        return " · ".join(parts)


class PlainProgress:
    """A benchmark for logs and pipes: a line for each run that ends, and one a minute."""

    SECONDS = 60.0

    def __init__(self, progress: SuiteProgress) -> None:
        self._progress = progress
        self._said = {id(run): run.stage for run in progress.runs}
        self._next = time.monotonic()

    def lines(self, now: float) -> list[str]:
        """What there is to say since the last call, at a time of `time.monotonic`."""
        found = []
        for run in self._progress.runs:
            if self._said[id(run)] != run.stage and run.stage in ("done", "failed", "stopped"):
                score = f": {short(run.score)}" if run.score is not None else ""
                found.append(f"{inert(run.plan.run.name)} {run.stage}{score}")
            self._said[id(run)] = run.stage
        if now >= self._next:
            self._next = now + self.SECONDS
            found.append(self._progress.line())
        return found


def _cell(run: RunProgress) -> tuple[str, str]:
    if run.stage == "running":
        return BLOCKS[min(int(run.share * len(BLOCKS)), len(BLOCKS) - 1)], "bold green"
    return SIGNS[run.stage]


def _said(scores: Sequence[float]) -> Text:
    if not scores:
        return Text("–")
    return Text(Measure("score").said(runs_interval(scores)))


def _published(entry: Entry) -> str:
    against = entry.against
    return "–" if against is None else f"{short(against.value)}{'' if against.comparable else '*'}"


def _score(plan: Planned) -> float | None:
    try:
        return next(iter(result_of(plan.run).measures.values()), None)
    except UserError:
        return None
