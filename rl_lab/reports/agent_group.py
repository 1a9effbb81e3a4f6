"""What agents of one recipe came to over their seeds, as plain data."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rl_lab.language_evaluation import mapping
from rl_lab.metrics import numbers_of
from rl_lab.reports import clips
from rl_lab.results import JUDGED
from rl_lab.run import Run
from rl_lab.run_view import RunView
from rl_lab.statistics import first_reach, sample_efficiency, time_to_threshold


def content(views: Sequence[RunView], target: float | None) -> dict[str, Any]:
    """What the agents of one recipe did while they learnt.

    Args:
        views: of the runs.
        target: mean evaluation return from which the task counts as solved.

    Returns:
        `curves` (each run's evaluations in training), `band` (their interquartile mean at each
        step), `time_to_target` (None without target or evaluations), `clips`.
    """
    curves = [curve for view in views if (curve := _curve(view))["steps"]]
    drawn = [(curve["steps"], curve["returns"]) for curve in curves]
    return {
        "curves": curves,
        "band": asdict(sample_efficiency([drawn])) if drawn else None,
        "time_to_target": _time_to(target, drawn) if drawn and target is not None else None,
        "clips": [
            described
            for clip in episodes_to_see([view.run for view in views])
            if (described := clip.described()) is not None
        ],
    }


def episodes_to_see(runs: Sequence[Run]) -> list[clips.Clip]:
    """Best, median and worst of the episodes that the runs were judged on."""
    return clips.choose([(run, mapping(run.evaluations.get(JUDGED))) for run in runs])


def _curve(view: RunView) -> dict[str, Any]:
    by_step = dict(zip(*numbers_of(view.records, "eval/mean_reward"), strict=True))
    steps = sorted(step for step in by_step if step < 2**53)  # as floats still apart
    return {"run": view.run.name, "steps": steps, "returns": [by_step[step] for step in steps]}


def _time_to(target: float, curves: Sequence[tuple[list[int], list[float]]]) -> dict[str, Any]:
    """Steps until an evaluation first reaches the target; a run that never did is censored."""
    times, reached = zip(*(first_reach(*curve, target) for curve in curves), strict=True)
    return {"target": target} | asdict(time_to_threshold(times, reached))
