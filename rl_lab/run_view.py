"""A run as somebody watching sees it: read from its directory alone, again and again."""

import time
from typing import Any

from rl_lab import recipes, vitals
from rl_lab.errors import UserError
from rl_lab.metric_sample import MetricSample
from rl_lab.metrics import Record, numbers_of
from rl_lab.run import Run
from rl_lab.vitals import Reading

SECONDS_TO_START = 60.0


class RunView:
    """A run as last looked at."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.recipe: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        self.state = "created"
        self.records: list[Record] = []
        """All that was logged, or of a long log an even choice: see `one_in`."""
        self.training_returns: list[float] = []
        """Mean return of the last 100 training episodes, line by line."""
        self.evaluation_returns: list[float] = []
        """Mean return of each evaluation."""
        self.vitals: list[Reading] = []
        self.events: list[Record] = []
        self._reader = MetricSample(run.metrics_file)
        self.refresh()

    def refresh(self) -> None:
        """Read what is new."""
        if not self.recipe:
            try:
                self.recipe = recipes.read(str(self.run.recipe_file))[2]
            except UserError:
                self.recipe = {}
        self.status = self.run.status
        self.state = self.run.state
        records = self._reader.read().records
        if records is not self.records:  # a long log is gone through only when it grew
            self.records = records
            self.training_returns = numbers_of(self.records, "rollout/ep_rew_mean")[1]
            self.evaluation_returns = numbers_of(self.records, "eval/mean_reward")[1]
            self.vitals = vitals.readings(self._reader.recent)
            self.events = [record for record in self.records if "event" in record]

    @property
    def one_in(self) -> int:
        """Of so many lines of the log one is among the records."""
        return self._reader.one_in

    @property
    def live(self) -> bool:
        """Whether there is more to come: it runs, or was made moments ago and is about to."""
        young = time.time() - self.status.get("created", 0) < SECONDS_TO_START
        return self.state == "running" or (self.state == "created" and young)

    @property
    def step(self) -> int:
        logged = self.records[-1]["step"] if self.records else 0
        return max(int(self.status.get("step", 0)), int(logged))

    @property
    def budget(self) -> int:
        """Steps at which it ends; 0 where that is not known (yet)."""
        recipe = self.recipe.get("budget")
        planned = recipe.get("steps") if isinstance(recipe, dict) else None
        budget = planned or self.status.get("budget")
        return budget if isinstance(budget, int) and budget > 0 else 0

    @property
    def unit(self) -> str:
        """What its steps are called."""
        return str(self.status.get("unit", "steps"))

    @property
    def best(self) -> dict[str, Any] | None:
        """`return` and `step` of the best evaluation in training."""
        return self.status.get("best")

    @property
    def warnings(self) -> list[str]:
        """What looks wrong, in a few words each."""
        return [f"{reading.label} {reading.warning}" for reading in self.vitals if reading.warning]

    @property
    def elapsed(self) -> float:
        """Seconds of training."""
        logged = self.records[-1]["wall"] if self.records else 0.0
        return float(max(self.status.get("wall", 0.0), logged))

    @property
    def steps_per_second(self) -> float | None:
        """Over at least the last tenth of the run, evaluations included; None before it moves."""
        if not self.records:
            return None
        last = self.records[-1]
        since = 0.9 * last["wall"]
        before = [
            record
            for record in self.records
            if record["wall"] <= since and record["step"] < last["step"]
        ]
        first = before[-1] if before else self.records[0]
        seconds, steps = last["wall"] - first["wall"], last["step"] - first["step"]
        return steps / seconds if seconds > 0 and steps > 0 else None

    @property
    def seconds_left(self) -> float | None:
        rate = self.steps_per_second
        if self.state != "running" or not rate:
            return None
        return max(self.budget - self.step, 0) / rate
