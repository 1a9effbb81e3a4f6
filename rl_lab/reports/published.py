"""How groups of runs stand to what was published of their tasks: met, below or untold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rl_lab.statistics import FEW, Interval, few_runs, holm_confidences, paired_difference
from rl_lab.suites import Reference
from rl_lab.text import short

Word = Literal["met", "below", "cannot tell", "not comparable", "nothing published", "not judged"]


@dataclass(frozen=True)
class Standing:
    """What may be said of a group; higher scores are better."""

    word: Word
    sentence: str
    """The word's reason, with figures."""
    difference: Interval | None
    """Mean less the published value, with its interval; None where they cannot be compared."""
    against: Reference | None
    """The published value that is to be met."""
    warning: str | None
    """Said where the runs are few."""


def standings(groups: Sequence[tuple[Sequence[float], Sequence[Reference]]]) -> list[Standing]:
    """Hold groups against published values, all at once.

    `met` and `below` are said only where there are at least two runs, and the interval of their
    mean (Student's t, with Holm's correction for as many groups as are held against a value) lies
    on one side of the value. A published value counts as exact, though it is a mean, often of one
    run: it is said beside it of how many.

    Args:
        groups: of each, one score a run (higher is better), and what was published, the value to
            be met first. Values that are not comparable are passed over.
    """
    against = [
        next((one for one in references if one.comparable), None) for _, references in groups
    ]
    tested = [
        (scores, reference.value)
        for (scores, _), reference in zip(groups, against, strict=True)
        if reference is not None and len(scores) >= 2
    ]
    p_values = [paired_difference(list(a), [b] * len(a)).p for a, b in tested]
    confidences = iter(holm_confidences(p_values))
    found = []
    for (scores, references), reference in zip(groups, against, strict=True):
        tests = reference is not None and len(scores) >= 2
        confidence = next(confidences) if tests else None
        found.append(_standing(list(scores), references, reference, confidence))
    return found


def _standing(
    scores: list[float],
    references: Sequence[Reference],
    reference: Reference | None,
    confidence: float | None,
) -> Standing:
    warning = few_runs(len(scores)) if scores else None
    if not scores:
        return Standing("not judged", "no run of it has been judged", None, reference, None)
    if not references:
        said = "no published value is known for this task"
        return Standing("nothing published", said, None, None, warning)
    if reference is None:
        said = "what was published is of other conditions"
        return Standing("not comparable", said, None, None, warning)
    if confidence is None:
        said = f"one run of {short(scores[0])} against {short(reference.value)}"
        return Standing("cannot tell", said, None, reference, warning)
    apart = paired_difference(scores, [reference.value] * len(scores), confidence)
    word: Word = "met" if apart.low >= 0 else "below" if apart.high < 0 else "cannot tell"
    if len(set(scores)) == 1 and len(scores) < FEW:
        word = "cannot tell"  # too few to take it that others are equal as well
    ends = f"[{_signed(apart.low)}, {_signed(apart.high)}]"
    said = f"against {short(reference.value)}, a difference of {_signed(apart.mean)} {ends}"
    interval = Interval(apart.mean, apart.low, apart.high, apart.n)
    return Standing(word, said, interval, reference, warning)


def _signed(value: float) -> str:
    sign = "+" if value > 0 else "-" if value < 0 else ""
    return f"{sign}{short(abs(value))}"
