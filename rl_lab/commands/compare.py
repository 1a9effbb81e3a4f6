"""`rl-lab compare`: whether one group of runs is better than another, or that it cannot be told."""

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab import results
from rl_lab.comparison import Pair, Task, compare, improvement_over_tasks
from rl_lab.errors import UserError
from rl_lab.files import is_directory
from rl_lab.results import Group, Measure
from rl_lab.statistics import aggregate_interval, iqm, runs_interval
from rl_lab.text import inert, inert_text

MOST_DIFFERENCES = 12
"""Differences of recipes that are listed on the terminal; --json lists all."""


def compare_groups(
    *groups: str,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Compare groups of judged runs: a table, a verdict for each pair, and what differs.

    A verdict (better, worse) is given only where the 95 % interval of the difference, corrected
    for all comparisons made at once (Holm), leaves out 0; else about how many more seeds would be
    needed. Groups measured under different conditions (task, budget, judge, episodes) get none.

    Examples: `rl-lab compare cartpole cartpole-2`, `rl-lab compare runs/suite-a runs/suite-b`.

    Parameters
    ----------
    groups
        Each a group's name (cartpole: all of cartpole-seed0, ...), a pattern in quotes, a recipe's
        name, or a directory of runs; one directory alone compares the groups in it.
    json
        Print the comparison as JSON.
    """
    if not groups:
        raise UserError("compare needs groups of runs; `rl-lab runs` lists the runs")
    sides = [(_label(name), results.groups(results.find([name]))) for name in dict.fromkeys(groups)]
    if len(sides) == 1:
        sides = [(group.name, [group]) for group in sides[0][1]]
    if len(sides) < 2:
        raise UserError(f"compare needs two groups of runs; {groups[0]!r} is one")
    tasks = compare(sides)
    if json:
        print(json_module.dumps([_as_data(task) for task in tasks], indent=2))
        return 0
    console = Console()
    for task in tasks:
        _print_task(console, task)
    if len(tasks) > 1:
        _print_over_tasks(tasks)
    return 0


def _label(name: str) -> str:
    """What a side is called: a directory's last part, else the name as given."""
    path = Path(name)
    return path.name if is_directory(path) and path.name else name


def _print_task(console: Console, task: Task) -> None:
    console.print(inert_text(task.name, style="bold"))
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("measure")
    table.add_column("group", overflow="fold")
    for name in ("runs", "mean [95 %]", "IQM [95 %]"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for measure in task.measures:
        for group in task.groups:
            values = group.values(measure)
            table.add_row(
                inert_text(measure.name) if group is task.groups[0] else "",
                inert_text(group.name),
                str(len(values)),
                measure.said(runs_interval(values)),
                measure.said(aggregate_interval([values], iqm)),
            )
    console.print(table)
    for pair in task.pairs:
        for line in _said_of(pair, task.measure):
            console.print(inert_text(line), soft_wrap=True)
    for remark in task.remarks:
        console.print(inert_text(f"note: {remark}"), style="yellow", soft_wrap=True)
    print()


def _said_of(pair: Pair, measure: Measure) -> list[str]:
    """The verdict on a pair, and what differs."""
    names = f"{pair.one.name} and {pair.other.name}"
    if pair.verdict is None:
        lines = [f"{names} are not comparable:", *(f"  {one}" for one in pair.obstacles)]
    else:
        verdict, apart = pair.verdict, pair.verdict.difference
        if verdict.word == "cannot tell":
            lines = [f"{names}: {verdict.sentence}"]
        else:
            lines = [f"{pair.one.name} is {verdict.word} than {pair.other.name}"]
        if apart is not None:
            chance = verdict.improvement
            lines.append(
                f"  difference of means {measure.said(apart)}, p = {apart.p:.2g} (Welch, Holm); "
                f"a run of the first is the better one in "
                f"{chance.mean:.0%} [{chance.low:.0%}, {chance.high:.0%}] of pairs"
            )
    shown = pair.differences[:MOST_DIFFERENCES]
    lines += [f"  differs in {one}" for one in shown]
    if len(pair.differences) > len(shown):
        lines.append(f"  and in {len(pair.differences) - len(shown)} things more (--json)")
    if not pair.differences:
        lines.append("  same recipe, versions and machine")
    return lines


def _print_over_tasks(tasks: list[Task]) -> None:
    for one, other, chance, comparable in improvement_over_tasks(tasks):
        tasks_said = f"the {comparable} tasks"
        if comparable < len(tasks):
            tasks_said = f"{comparable} of {len(tasks)} tasks (the others are not comparable)"
        print(
            f"over {tasks_said}, the chance that a run of {inert(one)} is better than "
            f"one of {inert(other)} is {chance.mean:.0%} [{chance.low:.0%}, {chance.high:.0%}]"
        )


def _as_data(task: Task) -> dict[str, Any]:
    return {
        "task": task.name,
        "measure": asdict(task.measure),
        "groups": [_group_as_data(group) for group in task.groups],
        "pairs": [
            {
                "one": pair.one.name,
                "other": pair.other.name,
                "comparable": pair.verdict is not None,
                "obstacles": pair.obstacles,
                "verdict": asdict(pair.verdict) if pair.verdict else None,
                "differences": pair.differences,
            }
            for pair in task.pairs
        ],
        "remarks": task.remarks,
    }


def _group_as_data(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "runs": [str(result.run.path) for result in group.judged],
        "seeds": [result.seed for result in group.judged],
        "measures": {
            measure.name: {
                "values": group.values(measure),
                "mean": asdict(runs_interval(group.values(measure))),
                "iqm": asdict(aggregate_interval([group.values(measure)], iqm)),
            }
            for measure in group.measures
        },
    }
