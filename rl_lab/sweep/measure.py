"""What a trial is worth, read from its run directories while it trains and when it has ended.

Intermediate values are numbered by evaluation, not by step: how many steps lie between evaluations
may depend on what is searched (they wait for the end of an update), and a trial is compared with
others at its k-th evaluation.
"""

from typing import Protocol

from rl_lab.language_evaluation import LanguageEvaluation
from rl_lab.metrics import MetricReader, Record, numbers_of
from rl_lab.run import Run

LAST = 3
"""Evaluations, the last of a run, whose mean return is an agent's value."""


class Measure(Protocol):
    """How runs of one recipe are measured."""

    most: int
    """The number of the last intermediate value, about."""

    def course(self, run: Run) -> dict[int, float]:
        """Intermediate values so far, by number, from 1 on; what the start is worth is left out."""

    def value(self, run: Run) -> float | None:
        """What a finished run of a trial came to; None if that was not measured."""


class AgentMeasure:
    """Evaluation returns; the value is the mean of the last three.

    Not the best of them: the best of many noisy evaluations is too high, and the more so the
    noisier they are, so a search would find what is noisy. Not the last alone: that is noisy.
    """

    def __init__(self, every: int, budget: int) -> None:
        self.every = every
        self.most = budget // every
        self._readers: dict[str, MetricReader] = {}

    def course(self, run: Run) -> dict[int, float]:
        steps, values = numbers_of(self._records(run), "eval/mean_reward")
        return _by_number(steps, values, self.every)

    def value(self, run: Run) -> float | None:
        steps, values = numbers_of(self._records(run), "eval/mean_reward")
        last = [value for step, value in zip(steps, values, strict=True) if step > 0][-LAST:]
        return sum(last) / len(last) if last else None

    def _records(self, run: Run) -> list[Record]:
        return _read_on(self._readers, run)


class LanguageMeasure:
    """Gold scores of the judge that counts: at PPO's looks, and the gain that `evaluate` measured.

    The gain over the reference is in standard deviations of the reference's scores. The proxy
    reward is no measure: it is what PPO makes too much of.
    """

    def __init__(self, judge: str, every: int, updates: int) -> None:
        self.judge, self.every = judge, every
        self.most = updates // every
        self._readers: dict[str, MetricReader] = {}

    def course(self, run: Run) -> dict[int, float]:
        records = _read_on(self._readers, Run(run.path / "ppo"))
        return _by_number(*numbers_of(records, f"look/gold/{self.judge}"), self.every)

    def value(self, run: Run) -> float | None:
        gain = LanguageEvaluation(run.evaluations).gains.get(self.judge)
        return gain.mean if gain else None


def _read_on(readers: dict[str, MetricReader], run: Run) -> list[Record]:
    """Records of a run's metrics, of which only what is new is read."""
    key = str(run.metrics_file)
    return readers.setdefault(key, MetricReader(run.metrics_file)).read()


def _by_number(steps: list[int], values: list[float], every: int) -> dict[int, float]:
    """The first value at or after each multiple of `every`, by that multiple's number."""
    found: dict[int, float] = {}
    for step, value in zip(steps, values, strict=True):
        if step >= every:
            found.setdefault(step // every, value)
    return found
