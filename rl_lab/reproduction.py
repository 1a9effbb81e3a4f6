"""Whether a run that was repeated came to the same: to the bit, as far as can be told, or not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rl_lab import checkpoint
from rl_lab.experiment_view import is_experiment
from rl_lab.language_evaluation import LanguageEvaluation, estimate, mapping, number, rows
from rl_lab.plain_json import read_object
from rl_lab.provenance import changes
from rl_lab.results import JUDGED
from rl_lab.run import Run
from rl_lab.sameness import run_differences
from rl_lab.statistics import Interval, paired_difference

Word = Literal["bit-equal", "statistically equal", "different"]


@dataclass(frozen=True)
class Reproduction:
    """What a repetition of a run came to."""

    word: Word
    bits: list[str]
    """Names of everything whose bits differ; empty: nothing does."""
    circumstances: list[str]
    """What the two were made with that differs, a phrase each."""
    measure: str
    """What both were judged by."""
    apart: Interval | None
    """The repetition's mean minus the original's, with a 95 % interval over the same episodes or
    prompts (`n` of them); None: there is nothing to tell by."""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.word == "bit-equal":
            return "bit-equal: weights, logged numbers and evaluation are the same to the last bit"
        if self.apart is None:
            return f"different: its bits are others, and there is no {self.measure} to judge by"
        said = (
            f"{self.measure} {self.apart.mean:+.3g} [{self.apart.low:+.3g}, {self.apart.high:+.3g}]"
        )
        return f"{self.word}: its bits are others; {said} on the same {self.apart.n:,}"


def compare(
    original: Run, again: Run, then: Mapping[str, Any], now: Mapping[str, Any]
) -> Reproduction:
    """Compare a finished run with its finished repetition.

    Args:
        original: the run.
        again: its repetition.
        then: what the original's evaluation found, as its evaluation.json has it.
        now: likewise, of the repetition.

    Raises:
        CheckpointError: a snapshot is damaged.
    """
    bits = run_differences(original, again)
    if is_experiment(original):
        same = then == now
        measure, apart = _language(then, now)
    else:
        mine, theirs = (rows(mapping(one.get(JUDGED)).get("episodes")) for one in (then, now))
        same = mine == theirs
        measure, apart = _agent(mine, theirs)
    bits += [] if same else ["evaluation"]
    return Reproduction(
        _word(bits, apart), bits, circumstances(original, again), measure, apart
    )  # fmt: skip


def _word(bits: list[str], apart: Interval | None) -> Word:
    if not bits:
        return "bit-equal"
    if apart is not None and apart.low <= 0 <= apart.high:
        return "statistically equal"
    return "different"


def _agent(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[str, Interval | None]:
    """The difference of returns, episode by episode from the same starts."""
    then, now = (
        {str(episode.get("seed")): number(episode.get("episode_return")) for episode in episodes}
        for episodes in (mine, theirs)
    )
    pairs = [
        (now[seed], value)
        for seed, value in then.items()
        if value is not None and now.get(seed) is not None
    ]
    if len(pairs) < 2:
        return "return", None
    after, before = zip(*pairs, strict=True)
    return "return", paired_difference(after, before)


def _language(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Interval | None]:
    """The difference of mean gold scores, by the judge that counts; without judges, of the proxy.

    Both were judged on the same prompts, but scores are kept as means with intervals only, so the
    interval is that of independent means: wider than one of pairs would be.
    """
    judge = LanguageEvaluation(dict(then)).judge
    measure = "proxy reward" if judge is None else f"gold score ({judge})"
    found = []
    for one in (then, now):
        policy = mapping(one.get("policy"))
        value = policy.get("proxy") if judge is None else mapping(policy.get("gold")).get(judge)
        score, n = estimate(value), number(mapping(value).get("n"))
        if score is None or score.low is None or score.high is None or n is None:
            return measure, None
        found.append((score.mean, (score.high - score.low) / 2, int(n)))
    (before, half_before, n), (after, half_after, _) = found
    half = math.hypot(half_before, half_after)
    return measure, Interval(after - before, after - before - half, after - before + half, n)


def circumstances(original: Run, again: Run) -> list[str]:
    """What two runs were made with that differs: versions, threads, machine, device, the lab."""
    then, now = (_made_with(run) for run in (original, again))
    found = changes(original.provenance, again.provenance)
    return found + [
        f"{name} {now.get(name)} (was {then.get(name)})"
        for name in ("device", "processor")
        if then.get(name) != now.get(name)
    ]


def _made_with(run: Run) -> dict[str, Any]:
    """Device and processor, where a run's newest snapshot tells."""
    newest = checkpoint.directories(run.checkpoints)[-1:]
    return read_object(newest[0] / "made_with.json") if newest else {}
