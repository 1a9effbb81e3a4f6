"""What a sweep found, as tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab.statistics import Interval
from rl_lab.sweep.space import said
from rl_lab.sweep_recipe import Sweep
from rl_lab.text import inert_text, short


def show(result: Mapping[str, Any], section: Sweep, console: Console) -> None:
    """Print the trials, what fresh seeds said of the best, and the verdict."""
    console.print(_trials(result["trials"], section))
    console.print()
    console.print(_contenders(result["contenders"]))
    console.print(inert_text(result["verdict"], "bold"), soft_wrap=True)
    if result["warning"]:
        console.print(inert_text(f"note: {result['warning']}", "yellow"), soft_wrap=True)


def _trials(trials: list[dict[str, Any]], section: Sweep) -> Table:
    """The best first, then those that were pruned, the farthest first, then those that failed."""
    table = _table("trial", "value", "ended", *section.parameters)
    for trial in sorted(trials, key=_rank):
        ended = {
            "complete": "whole",
            "pruned": f"pruned at {trial['pruned_at'] or 0:.0%}",
        }.get(trial["state"], trial["state"])
        value = trial["value"] if trial["value"] is not None else trial["last_value"]
        table.add_row(
            str(trial["number"]), "–" if value is None else short(value), ended,
            *(inert_text(said(trial["parameters"].get(key))) for key in section.parameters),
        )  # fmt: skip
    return table


def _rank(trial: Mapping[str, Any]) -> tuple[float, float, int]:
    order = {"complete": 0, "pruned": 1}.get(trial["state"], 2)
    merit = trial["value"] if order == 0 else trial["pruned_at"] or 0.0
    return order, -merit, trial["number"]


def _contenders(contenders: list[dict[str, Any]]) -> Table:
    """What was trained on fresh seeds: mean and interval over seeds, and what it is called."""
    table = _table("fresh seeds", "mean [95 %]", "n", "against the recipe as it is")
    for one in contenders:
        interval = Interval(**one["interval"]) if one["interval"] else None
        told = one["verdict"]["sentence"] if one["verdict"] else ""
        if one["failed"]:
            told += f" ({len(one['failed'])} failed)"
        table.add_row(
            "the recipe as it is" if one["trial"] is None else f"trial {one['trial']}",
            _interval(interval), str(interval.n if interval else 0), inert_text(told),
        )  # fmt: skip
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in (first, *others):
        shown = name.rpartition(".")[2]
        table.add_column(Text(shown), min_width=len(shown), overflow="fold")
    return table


def _interval(interval: Interval | None) -> Text:
    if interval is None:
        return Text("–")
    return Text(f"{short(interval.mean)} [{short(interval.low)}, {short(interval.high)}]")
