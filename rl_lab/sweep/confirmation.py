"""The best trials and the recipe as it is, trained again on fresh seeds; then what may be said.

The best of many trials is best partly by luck, so its own value says too much. What decides whether
it is better is what it does on seeds that no trial used, beside the recipe as it is on the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rl_lab.benchmark import Planned
from rl_lab.results import result_of
from rl_lab.run import Run
from rl_lab.statistics import Verdict, few_runs, runs_interval, verdicts

EPISODES = 100
"""Fresh episodes that an agent trained on a fresh seed is judged on."""
DEFAULTS = "defaults"
"""What the recipe as it is, is called."""


@dataclass(frozen=True)
class Contender:
    """What is trained on the fresh seeds."""

    trial: int | None
    """Number of the trial; None: the recipe as it is."""
    values: Mapping[str, Any]
    """What its recipe has at each key that was searched; of the recipe as it is, none."""
    recipe: Any

    @property
    def label(self) -> str:
        """Its runs are called <label>-seed<k>."""
        return DEFAULTS if self.trial is None else f"winner{self.trial}"

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return "the recipe as it is" if self.trial is None else f"trial {self.trial}"


def plan(directory: Path, contenders: Sequence[Contender], seeds: Sequence[int]) -> list[Planned]:
    """Every run of every contender: seeds outermost, so that what is stopped early has all."""
    return [
        Planned.of(directory, contender.label, seed, contender.recipe)
        for seed in seeds
        for contender in contenders
    ]


def score(run: Run) -> float | None:
    """What a run was judged to be worth on fresh episodes or held-out prompts; None: it was not."""
    return next(iter(result_of(run).measures.values()), None) if run.recipe_file.exists() else None


def outcome(
    directory: Path, contenders: Sequence[Contender], seeds: Sequence[int]
) -> dict[str, Any]:
    """What the fresh seeds say, as result.json has it.

    Args:
        directory: the sweep's.
        contenders: the recipe as it is first, then trials, the best first.
        seeds: that they were trained on.

    Returns:
        `seeds`, `contenders` (of each its scores with their interval, and of trials the verdict
        against the recipe as it is, corrected for how many there are), `chosen` (the label of the
        highest mean), its `verdict` in a sentence, and `warning`.
    """
    runs = {
        contender.label: [Run(directory / f"{contender.label}-seed{seed}") for seed in seeds]
        for contender in contenders
    }
    scores = {
        label: [value for run in of if (value := score(run)) is not None]
        for label, of in runs.items()
    }
    sound = [contender for contender in contenders if scores[contender.label]]
    trials = [contender for contender in sound if contender.trial is not None]
    judged: dict[str, Verdict] = {}
    if scores[DEFAULTS] and trials:
        pairs = [(scores[trial.label], scores[DEFAULTS]) for trial in trials]
        judged = dict(zip([trial.label for trial in trials], verdicts(pairs), strict=True))
    # Of equal means the first, so the recipe as it is has to be beaten.
    chosen = max(sound, key=lambda one: _mean(scores[one.label]), default=contenders[0])
    said = _sentence(chosen, judged.get(chosen.label))
    for contender in [chosen, *contenders[:1]] if chosen.trial is not None else [chosen]:
        lost = len(seeds) - len(scores[contender.label])
        if lost and scores[contender.label]:
            said += f" (not counted: {lost} of {len(seeds)} runs of {contender.name}, not judged)"
    fewest = min((len(scores[contender.label]) for contender in sound), default=0)
    return {
        "seeds": list(seeds),
        "contenders": [
            {
                "label": contender.label,
                "trial": contender.trial,
                "parameters": dict(contender.values),
                "scores": scores[contender.label],
                "failed": [run.name for run in runs[contender.label] if score(run) is None],
                "interval": asdict(runs_interval(scores[contender.label]))
                if scores[contender.label]
                else None,
                "verdict": _told(judged.get(contender.label)),
            }
            for contender in contenders
        ],
        "chosen": chosen.label,
        "verdict": said,
        "warning": few_runs(fewest),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _told(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    apart = asdict(verdict.difference) if verdict.difference else None
    return {"word": verdict.word, "sentence": verdict.sentence, "difference": apart}


def _sentence(chosen: Contender, verdict: Verdict | None) -> str:
    if chosen.trial is None:
        return "no trial did better on fresh seeds than the recipe as it is"
    if verdict is None:
        return f"{chosen.name} cannot be judged: no run of the recipe as it is finished"
    if verdict.word == "cannot tell":
        return f"whether {chosen.name} is better than the recipe as it is: {verdict.sentence}"
    return f"{chosen.name} is {verdict.word} than the recipe as it is"
