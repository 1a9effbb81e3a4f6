"""Groups of runs against each other: who is better, if that can be told, and what differs.

Sides are compared task by task, on the measure that counts; every verdict given at once is
corrected for the others (Holm). Where the conditions differ, there is no verdict.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rl_lab.errors import UserError
from rl_lab.language_evaluation import mapping
from rl_lab.recipe_differences import flat
from rl_lab.results import NAMELY, Group, Measure
from rl_lab.statistics import (
    Interval,
    Verdict,
    few_runs,
    probability_of_improvement,
    verdicts,
)


@dataclass(frozen=True)
class Pair:
    """One side against another."""

    one: Group
    other: Group
    verdict: Verdict | None
    """None: they are not comparable."""
    obstacles: list[str]
    """Why they are not."""
    differences: list[str]
    """What differs in their recipes, versions and machines."""


@dataclass(frozen=True)
class Task:
    """The sides on one task."""

    name: str
    measure: Measure
    """The one that counts."""
    groups: list[Group]
    pairs: list[Pair]
    remarks: list[str]
    """What should be known before a number is believed."""

    @property
    def measures(self) -> list[Measure]:
        """What all groups have."""
        first, *others = self.groups
        return [one for one in first.measures if all(one in group.measures for group in others)]


def compare(sides: Sequence[tuple[str, Sequence[Group]]]) -> list[Task]:
    """Compare sides, on each task that all of them have.

    Args:
        sides: name and groups of each, two or more. A side of one group is one task whatever the
            group is called; sides of several are matched by the groups' names.

    Raises:
        UserError: no task is common to all, or a group on it has no judged run.
    """
    matched = _matched(sides)
    waiting: list[tuple[int, Group, Group]] = []
    tasks: list[tuple[str, Measure, list[Group]]] = []
    for number, (task, groups) in enumerate(matched):
        tasks.append((task, _measure_that_counts(task, groups), groups))
        waiting += [(number, one, other) for one, other in combinations(groups, 2)]
    obstacles = [_obstacles(one, other) for _, one, other in waiting]
    comparable = [index for index, found in enumerate(obstacles) if not found]
    scores = []
    for index in comparable:
        number, one, other = waiting[index]
        measure = tasks[number][1]
        scores.append((_higher_is_better(one, measure), _higher_is_better(other, measure)))
    judged = dict(zip(comparable, verdicts(scores), strict=True))
    pairs: list[list[Pair]] = [[] for _ in tasks]
    for index, (number, one, other) in enumerate(waiting):
        pairs[number].append(
            Pair(one, other, judged.get(index), obstacles[index], differences(one, other))
        )
    return [
        Task(name, measure, groups, pairs[number], list(_remarks(groups)))
        for number, (name, measure, groups) in enumerate(tasks)
    ]


def _matched(sides: Sequence[tuple[str, Sequence[Group]]]) -> list[tuple[str, list[Group]]]:
    """The tasks that all sides have, each with a group of every side, named after it."""
    if all(len(groups) == 1 for _, groups in sides):
        groups = [Group(name, side[0].results) for name, side in sides]
        return [(_task(groups), groups)]
    by_name = [{group.name: group for group in groups} for _, groups in sides]
    for (name, side), found in zip(sides, by_name, strict=True):
        if len(found) < len(side):
            raise UserError(
                f"{name!r} has runs of one name and different recipes; name groups of one recipe"
            )
    common = [name for name in by_name[0] if all(name in side for side in by_name)]
    if not common:
        listed = "; ".join(f"{name}: {', '.join(g.name for g in side)}" for name, side in sides)
        raise UserError(f"the sides have no group of runs in common ({listed})")
    return [
        (
            task,
            [Group(name, by[task].results) for (name, _), by in zip(sides, by_name, strict=True)],
        )
        for task in common
    ]


def _task(groups: Sequence[Group]) -> str:
    recipe = groups[0].recipe
    return str(mapping(recipe.get("env")).get("id") or recipe.get("name") or groups[0].name)


def _measure_that_counts(task: str, groups: Sequence[Group]) -> Measure:
    for group in groups:
        if not group.judged:
            runs = " ".join(result.run.path.name for result in group.results[:3])
            raise UserError(
                f"no run of {group.name!r} has been judged on {task}; `rl-lab evaluate {runs}` "
                "judges agents, and an experiment has judges and an evaluate stage"
            )
    measures = groups[0].measures
    shared = [one for one in measures if all(one in group.measures for group in groups)]
    if not shared:
        raise UserError(f"the groups on {task} have no measure in common")
    return shared[0]


def _obstacles(one: Group, other: Group) -> list[str]:
    """Why two groups cannot be compared."""
    if one.results[0].kind != other.results[0].kind:
        return ["one trains agents, the other language models"]
    runs = [{result.run.path.resolve() for result in group.judged} for group in (one, other)]
    shared = len(runs[0] & runs[1])
    if shared:
        return [f"they share {shared} {'run' if shared == 1 else 'runs'}"]
    return [
        f"{key}: {_short(mine)} and {_short(theirs)}"
        for key, mine, theirs in _unequal(one.conditions, other.conditions)
    ]


def differences(one: Group, other: Group) -> list[str]:
    """What differs in recipes, versions, and machines, one thing a line."""
    found = [
        f"{key}: {_short(mine)} and {_short(theirs)}"
        for key, mine, theirs in _unequal(flat(_told(one.recipe)), flat(_told(other.recipe)))
    ]
    for what in ("versions", "hardware", "threads", "git.commit"):
        mine, theirs = (_made_with(group, what) for group in (one, other))
        if mine != theirs:
            found.append(f"{what}: {_listed(mine)} and {_listed(theirs)}")
    return found


def _told(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in NAMELY}


def _unequal(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*mine, *theirs]):
        if mine.get(key) != theirs.get(key):
            yield key, mine.get(key), theirs.get(key)


def _made_with(group: Group, what: str) -> set[str]:
    """What the runs of a group were made with; `versions` as package and number."""
    found: set[str] = set()
    for result in group.results:
        value: Any = result.run.provenance
        for key in what.split("."):
            value = mapping(value).get(key)
        if isinstance(value, Mapping):
            found |= {f"{key} {version}" for key, version in value.items() if version}
        else:
            found.add(str(value))
    return found


def _listed(values: set[str]) -> str:
    return ", ".join(sorted(values)) or "unknown"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _remarks(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        missing = len(group.results) - len(group.judged)
        if missing:
            yield f"{missing} of {len(group.results)} runs of {group.name} have not been judged"
        short_of = sum(result.run.state != "finished" for result in group.judged)
        if short_of:
            yield (
                f"{group.name}: {short_of} of {len(group.judged)} judged runs did not finish, so "
                "they had less than their budget"
            )
        warning = few_runs(len(group.judged))
        if warning:
            yield f"{group.name}: {warning}"
        seeds = [result.seed for result in group.judged]
        if len(set(seeds)) < len(seeds):
            yield f"{group.name}: runs of the same seed are no independent runs"


def improvement_over_tasks(tasks: Sequence[Task]) -> Iterator[tuple[str, str, Interval, int]]:
    """How likely a run of one side is better than one of another, and over how many tasks.

    Only tasks on which the two are comparable count; sides without any are left out.
    """
    for place, pair in enumerate(tasks[0].pairs):
        scores: tuple[list[list[float]], list[list[float]]] = ([], [])
        for task in tasks:
            here = task.pairs[place]
            if here.verdict is not None:
                for side, group in zip(scores, (here.one, here.other), strict=True):
                    side.append(_higher_is_better(group, task.measure))
        if scores[0]:
            chance = probability_of_improvement(*scores)
            yield pair.one.name, pair.other.name, chance, len(scores[0])


def _higher_is_better(group: Group, measure: Measure) -> list[float]:
    sign = -1.0 if measure.better == "lower" else 1.0
    return [sign * value for value in group.values(measure)]
