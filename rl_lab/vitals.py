"""The numbers that tell how learning goes, and the word to say when one looks wrong.

Named by metric, not by algorithm: a run shows those that its algorithm logs, so a new algorithm
that uses the field's names is understood at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from rl_lab.metrics import Record, latest, numbers_of

Judge = Callable[[list[float], list[Record]], str | None]


@dataclass(frozen=True)
class Vital:
    """One number of the dashboard."""

    metric: str
    label: str
    judge: Judge = lambda values, records: None
    """From all values so far (and the whole log) to a word of warning, or None."""


@dataclass(frozen=True)
class Reading:
    """A vital as it stands: its newest value and, if it looks wrong, the word for it."""

    label: str
    value: float
    warning: str | None


def _above(limit: float, word: str) -> Judge:
    return lambda values, records: word if values[-1] > limit else None


def _below(limit: float, word: str) -> Judge:
    return lambda values, records: word if values[-1] < limit else None


def _entropy(values: list[float], records: list[Record]) -> str | None:
    """`train/entropy_loss` is minus the entropy. A Gaussian's may well be negative: see its std."""
    continuous = latest(records, "train/std") is not None
    return "collapsed" if not continuous and abs(values[-1]) < 0.01 else None


def _exploding(values: list[float], records: list[Record]) -> str | None:
    """Far beyond what it has been: in this run, or (a spike) in the twenty lines before."""
    if len(values) < 21:
        return None
    size = abs(values[-1])
    if size > 1e3 * median(abs(value) for value in values) > 0:
        return "exploding"
    if size > 30 * median(abs(value) for value in values[-21:-1]) > 0:
        return "spike"
    return None


VITALS = (
    Vital("train/approx_kl", "KL", _above(0.1, "high")),
    Vital("train/kl_divergence_loss", "KL", _above(0.1, "high")),
    Vital("train/clip_fraction", "clip share", _above(0.5, "high")),
    Vital("train/entropy_loss", "entropy loss", _entropy),
    Vital("train/std", "action std", _below(0.01, "collapsed")),
    Vital("train/explained_variance", "explained variance", _below(0.0, "negative")),
    Vital("train/value_loss", "value loss", _exploding),
    Vital("train/loss", "loss", _exploding),
    Vital("train/actor_loss", "actor loss", _exploding),
    Vital("train/critic_loss", "critic loss", _exploding),
    Vital("train/ent_coef", "entropy coefficient", _above(100.0, "exploding")),
    Vital("rollout/exploration_rate", "exploration"),
    Vital("train/policy_objective", "policy objective"),
    Vital("train/is_line_search_success", "line search", _below(0.5, "failed")),
    Vital("train/step_size", "step size"),
    Vital("rollout/return_std", "return std", _below(1e-8, "no signal")),
    Vital("train/learning_rate", "learning rate"),
)

# A value function knows nothing in its first updates; that is no fault.
GRACE_LINES = 10


def readings(records: list[Record]) -> list[Reading]:
    """The vitals that a run logs, in the order of VITALS."""
    found = []
    for vital in VITALS:
        _, values = numbers_of(records, vital.metric)
        if values:
            warning = vital.judge(values, records) if len(values) > GRACE_LINES else None
            found.append(Reading(vital.label, values[-1], warning))
    return found


def alerts(records: list[Record]) -> dict[str, str]:
    """Sentences about the vitals that look wrong, by their label."""
    return {
        reading.label: f"{reading.label} {reading.warning}: {reading.value:.4g}"
        for reading in readings(records)
        if reading.warning
    }


def phases(records: list[Record]) -> dict[str, float]:
    """Share of the time spent in each phase so far, largest first; sums to 1, or is empty."""
    for record in reversed(records):
        seconds = {
            name.removeprefix("phase/"): value
            for name, value in record.items()
            if name.startswith("phase/") and isinstance(value, int | float)
        }
        total = math.fsum(seconds.values())
        if total > 0:
            ordered = sorted(seconds.items(), key=lambda item: -item[1])
            return {name: value / total for name, value in ordered}
    return {}
