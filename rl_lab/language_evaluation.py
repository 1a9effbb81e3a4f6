"""What the evaluation of a language experiment found, read from a file that may be damaged.

See `rl_lab.rlhf.evaluate` for what is measured. Whatever is missing or of the wrong type is None.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """A number with its 95 % interval, where it has one."""

    mean: float
    low: float | None = None
    high: float | None = None

    def said(self, form: str = "{:.2f}") -> str:
        """Say it as `0.81 [0.77, 0.84]`."""
        mean = form.format(self.mean)
        if self.low is None or self.high is None:
            return mean
        return f"{mean} [{form.format(self.low)}, {form.format(self.high)}]"


@dataclass(frozen=True)
class Row:
    """One thing measured of the trained policy and of its reference."""

    what: str
    policy: Estimate | None
    reference: Estimate | None
    form: str
    note: str = ""


@dataclass(frozen=True)
class BestOf:
    """Best-of-n of the reference by the proxy; or PPO, beside it."""

    name: str
    kl: float | None
    proxy: float | None
    gold: dict[str, float | None]
    gain: dict[str, float | None]
    distinct_2_kept: float | None
    """distinct-2 as a share of that of as many completions of the reference."""


def number(value: Any) -> float | None:
    """`value` if it is a number."""
    sound = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if sound else None


def estimate(value: Any, middle: str = "mean") -> Estimate | None:
    """Read an interval object, or a plain number."""
    if not isinstance(value, dict):
        plain = number(value)
        return None if plain is None else Estimate(plain)
    mean = number(value.get(middle))
    return None if mean is None else Estimate(
        mean, number(value.get("low")), number(value.get("high"))
    )  # fmt: skip


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _share(part: Any, whole: Any) -> float | None:
    """One number as a share of another; None where that cannot be told."""
    mine, others = number(part), number(whole)
    return mine / others if mine is not None and others else None


class LanguageEvaluation:
    """`evaluation.json` of a language experiment."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.policy, self.reference = (
            mapping(content.get(side)) for side in ("policy", "reference")
        )
        self.prompts = number(content.get("prompts"))
        kl = mapping(content.get("kl"))
        self.kl = estimate(kl.get("exact"))
        self.sampled_kl = estimate(kl.get("sampled"))
        self.gains = {
            judge: estimate(gain, "sd") for judge, gain in mapping(content.get("gain")).items()
        }
        self.win_rates = {
            judge: estimate(rate) for judge, rate in mapping(content.get("win_rate")).items()
        }
        self.judges = list(self.gains) or list(mapping(self.policy.get("gold")))
        self.samples = rows(content.get("samples"))
        notes = content.get("notes")
        self.notes = [str(note) for note in notes] if isinstance(notes, list) else []
        self._best_of = rows(content.get("best_of"))

    @property
    def judge(self) -> str | None:
        """The gold judge that counts."""
        return self.judges[0] if self.judges else None

    @property
    def gain(self) -> Estimate | None:
        """Of the judge that counts, in standard deviations of the reference's scores."""
        return self.gains.get(self.judge or "")

    @property
    def win_rate(self) -> Estimate | None:
        """Of the judge that counts, in [0, 1]."""
        return self.win_rates.get(self.judge or "")

    @property
    def distinct_2_kept(self) -> float | None:
        """The policy's distinct-2 as a share of the reference's."""
        return _share(self.policy.get("distinct_2"), self.reference.get("distinct_2"))

    @property
    def verdict(self) -> str:
        """The result in a line; empty where nothing was measured."""
        parts = []
        if self.gain:
            parts.append(f"gold {self.judge} {self.gain.mean:+.2f} SD")
        if self.kl:
            parts.append(f"KL {self.kl.mean:.2f}")
        if self.win_rate:
            parts.append(f"wins {self.win_rate.mean:.0%}")
        if self.distinct_2_kept is not None:
            parts.append(f"distinct-2 at {self.distinct_2_kept:.0%}")
        return " · ".join(parts)

    def table(self) -> list[Row]:
        """Policy beside reference, a row for each thing measured."""
        found = [self._row("proxy reward", ("proxy",))]
        for number_, judge in enumerate(self.judges):
            note = "the judge that counts" if number_ == 0 else "another judge"
            found.append(self._row(f"gold {judge}", ("gold", judge), note=note))
        found += [
            self._row("response length", ("length",), "{:.1f}", "tokens"),
            self._row("end-token share", ("end_share",), "{:.0%}", "the others were cut off"),
            self._row("distinct-1", ("distinct_1",)),
            self._row("distinct-2", ("distinct_2",), note="share of word pairs that are different"),
            self._row("repetition", ("repetition",)),
            self._row("fluency", ("fluency",), note="reference's log-likelihood a token"),
            self._row("bits a character", ("bits_per_character",), note="on held-out texts"),
            self._row("held-out loss", ("heldout_loss",), note="nats a token, on held-out texts"),
        ]
        return [row for row in found if row.policy or row.reference]

    def _row(self, what: str, keys: tuple[str, ...], form: str = "{:.2f}", note: str = "") -> Row:
        sides: list[Any] = [self.policy, self.reference]
        for key in keys:
            sides = [mapping(side).get(key) for side in sides]
        return Row(what, estimate(sides[0]), estimate(sides[1]), form, note)

    def best_of(self) -> list[BestOf]:
        """PPO first, then best-of-n by n; empty where best-of-n was not measured."""
        found = [
            BestOf(
                f"best of {row.get('n', '?')}",
                number(row.get("kl")),
                number(row.get("proxy")),
                {judge: number(mapping(row.get("gold")).get(judge)) for judge in self.judges},
                {judge: number(mapping(row.get("gain")).get(judge)) for judge in self.judges},
                _share(row.get("distinct_2"), row.get("distinct_2_reference")),
            )
            for row in self._best_of
        ]
        return [self._ppo(), *found] if found else []

    def _ppo(self) -> BestOf:
        def mean(found: Estimate | None) -> float | None:
            return found.mean if found else None

        gold = mapping(self.policy.get("gold"))
        return BestOf(
            "PPO",
            mean(self.kl),
            mean(estimate(self.policy.get("proxy"))),
            {judge: mean(estimate(gold.get(judge))) for judge in self.judges},
            {judge: mean(self.gains.get(judge)) for judge in self.judges},
            self.distinct_2_kept,
        )
