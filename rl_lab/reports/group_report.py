"""What a report of runs says, as plain data: everything its page shows, and its JSON holds.

A group is the runs of one recipe over seeds; a suite's report also looks across its groups.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rl_lab.experiment_view import ExperimentView, view_of
from rl_lab.language_evaluation import number
from rl_lab.plain_json import LARGEST_NUMBER
from rl_lab.recipes import built_in_names
from rl_lab.reports import agent_group, background, language_group
from rl_lab.reports.background import CompareWithDefault, View
from rl_lab.reports.published import Standing, standings
from rl_lab.results import Group
from rl_lab.run_view import RunView
from rl_lab.statistics import (
    aggregate_interval,
    few_runs,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    runs_interval,
)
from rl_lab.suites import Entry, Reference, Suite

ZOO = "rl-baselines3-zoo benchmark.md"
"""Where a recipe's `reference_return` is from."""
DONE_BY = ("env.", "algorithm.", "budget.")
"""Keys of a recipe that a published return depends on."""


def content(
    groups: Sequence[Group], title: str, compare: CompareWithDefault, suite: Suite | None = None
) -> dict[str, Any]:
    """Everything there is to say of some groups.

    Args:
        groups: at least one.
        title: of the report.
        compare: tells in what a recipe differs from the default.
        suite: which they are of; its entries know what was published.

    Returns:
        `title`, `description`, `written`, `groups` (see `_group`), `across` (see `_across`).
    """
    entries = {entry.label: entry for entry in suite.entries} if suite else {}
    places = {label: place for place, label in enumerate(entries)}
    groups = sorted(groups, key=lambda group: places.get(group.name, len(places)))
    views = [[view_of(result.run) for result in group.results] for group in groups]
    behind = [background.background(some, compare) for some in views]
    references = [
        _references(group, entries.get(group.name), about["differences"])
        for group, about in zip(groups, behind, strict=True)
    ]
    scores = [_scores(group) for group in groups]
    standing = standings(list(zip(scores, references, strict=True)))
    return {
        "title": title,
        "description": suite.description if suite else "",
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "groups": [
            _group(*parts)
            for parts in zip(groups, views, scores, references, standing, behind, strict=True)
        ],
        "across": _across(groups, scores, references, entries),
    }


def _references(
    group: Group, entry: Entry | None, differences: Sequence[dict[str, Any]]
) -> list[Reference]:
    """What was published: by the suite; else by the recipe, for as long as it is as it came."""
    if entry is not None:
        return entry.references
    value = _usable(group.recipe.get("reference_return"))
    if value is None:
        return []
    changed = any(row["key"].startswith(DONE_BY) for row in differences)
    name = group.recipe.get("name")
    source = ZOO if name in built_in_names() else "the recipe's reference_return"
    return [Reference(value=value, runs=1, comparable=not changed, source=source)]


def _usable(value: Any) -> float | None:
    """A number of a recipe that can be calculated with; a stranger's need not be one."""
    found = number(value)
    return found if found is not None and abs(found) <= LARGEST_NUMBER else None


def _scores(group: Group) -> list[float]:
    """The measure that counts, one number for each judged run."""
    return group.values(group.measures[0]) if group.measures else []


def _group(
    group: Group,
    views: Sequence[View],
    scores: list[float],
    references: Sequence[Reference],
    standing: Standing,
    about: dict[str, Any],
) -> dict[str, Any]:
    """One group: what it came to, what it took, and how it came about."""
    measure = group.measures[0] if group.measures else None
    target = _usable(group.recipe.get("target_return"))
    agents = [view for view in views if isinstance(view, RunView)]
    experiments = [view for view in views if isinstance(view, ExperimentView)]
    return {
        "name": group.name,
        "kind": group.results[0].kind,
        "measure": measure.name if measure else "",
        "form": measure.form if measure else None,
        "n": len(scores),
        "runs": [
            {
                "name": result.run.name,
                "seed": result.seed,
                "state": view.state,
                "reason": str(result.run.status.get("reason") or ""),
                "score": result.measures[measure] if measure and result.measures else None,
            }
            | asdict(background.cost_of(view))
            for result, view in zip(group.results, views, strict=True)
        ],
        "iqm": asdict(aggregate_interval([scores])) if scores else None,
        "mean": asdict(runs_interval(scores)) if scores else None,
        "over_reference": _over_reference(scores)
        if measure and measure.name.startswith("gold gain")
        else None,
        "references": [reference.model_dump() for reference in references],
        "standing": {
            "word": standing.word,
            "sentence": standing.sentence,
            "difference": asdict(standing.difference) if standing.difference else None,
            "against": standing.against.model_dump() if standing.against else None,
            "warning": standing.warning,
        },
        "target": target,
        "at_target": sum(one >= target for one in scores) if target is not None else None,
        "cost": background.cost_of_all(views),
        "agents": agent_group.content(agents, target) if agents else None,
        "language": language_group.content(experiments) if experiments else None,
        "background": about,
    }


def _over_reference(gains: list[float]) -> str | None:
    """What the interval of a language model's gain over itself before PPO allows to say."""
    if len(gains) < 2:
        return None
    apart = runs_interval(gains)
    if apart.low > 0:
        return "better than"
    return "worse than" if apart.high < 0 else "not told from"


# --- across the tasks of a suite -----------------------------------------------------------------


def _across(
    groups: Sequence[Group],
    scores: Sequence[list[float]],
    references: Sequence[Sequence[Reference]],
    entries: dict[str, Entry],
) -> dict[str, Any] | None:
    """Aggregates of normalised scores: 0 is what random actions get, 1 what was published.

    Returns:
        `tasks`, `left_out` (groups of which no scale is known, or no run was judged), `warning`,
        `normalised` (scores by task), `iqm`, `mean`, `median`, `optimality_gap`, `profile`, and
        `improvement`: how likely a run is above
        the published value, over the tasks where that is comparable (None without any). None
        unless two tasks have a scale.
    """
    tasks: dict[str, list[float]] = {}
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for group, own, known in zip(groups, scores, references, strict=True):
        entry = entries.get(group.name)
        if entry is None or entry.random is None or entry.top is None or not own:
            continue
        scale = entry.top - entry.random
        relative = [(one - entry.random) / scale for one in own] if scale else []
        if not relative or any(_usable(one) is None for one in relative):
            continue
        tasks[group.name] = relative
        comparable = [reference.value for reference in known if reference.comparable]
        if comparable:
            ours.append(own)
            theirs.append(comparable[:1])
    if len(tasks) < 2:
        return None
    normalised = list(tasks.values())
    highest = max(1.0, *(one for runs in normalised for one in runs))
    taus = np.linspace(0, 1.05 * highest, 106).tolist()
    return {
        "tasks": list(tasks),
        "left_out": [group.name for group in groups if group.name not in tasks],
        "warning": few_runs(min(map(len, normalised))),
        "normalised": tasks,
        **{
            name: asdict(aggregate_interval(normalised, statistic))
            for name, statistic in (
                ("iqm", iqm), ("mean", mean), ("median", median),
                ("optimality_gap", optimality_gap),
            )
        },
        "profile": asdict(performance_profile(normalised, taus)),
        "improvement": _improvement(ours, theirs) if ours else None,
    }  # fmt: skip


def _improvement(ours: list[list[float]], published: list[list[float]]) -> dict[str, Any]:
    """How likely a run is above what was published; `n` is of the runs, not of published values."""
    chance = asdict(probability_of_improvement(ours, published))
    return chance | {"n": min(map(len, ours))}
