"""The charts of a report of groups, drawn from its plain data (`rl_lab.reports.group_report`)."""

from collections import defaultdict
from functools import partial
from typing import Any

import jinja2

from rl_lab.language_evaluation import estimate
from rl_lab.reports import language_charts
from rl_lab.reports.figures import BLUE, GREEN, GREY, ORANGE, svg

Markup = jinja2.filters.Markup
WIDE, SMALL = (6.8, 3.5), language_charts.SIZE
THIN: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.45}
"""One seed among several."""


def of_group(group: dict[str, Any], name: str) -> dict[str, list[Markup]]:
    """A group's charts, by the part of the page where they stand; a part may have none.

    Args:
        group: as of `group_report`.
        name: unique among the groups of the page.
    """
    found: dict[str, list[Markup]] = {"learning": [], "against_kl": [], "reward": []}
    if group["agents"] and group["agents"]["band"]:
        draw = partial(_learning, group=group)
        found["learning"] = [svg(f"{name}-learning", "", draw, WIDE)]
    if group["language"]:
        found["against_kl"] = [
            svg(f"{name}-kl-{index}", chart["what"], partial(_against_kl, runs=chart["runs"]),
                SMALL)
            for index, chart in enumerate(group["language"]["against_kl"])
        ]  # fmt: skip
        found["reward"] = _reward(group["language"]["reward"], name)
    return found


def _learning(axes: Any, group: dict[str, Any]) -> None:
    """Learning curves: each seed thin, their interquartile mean bold, with its band."""
    curves, band = group["agents"]["curves"], group["agents"]["band"]
    for index, curve in enumerate(curves):
        axes.plot(curve["steps"], curve["returns"], color=GREY, **THIN,
                  label=None if index else "each seed")  # fmt: skip
    if band["n"] > 1:
        axes.fill_between(band["x"], band["low"], band["high"], color=BLUE, alpha=0.2, linewidth=0,
                          label="95 % at each step")  # fmt: skip
    axes.plot(band["x"], band["mean"], color=BLUE, linewidth=2.2,
              label=f"interquartile mean of {band['n']}")  # fmt: skip
    if group["target"] is not None:
        axes.axhline(group["target"], color=GREEN, linewidth=1, linestyle="--", label="target")
    against = group["standing"]["against"]
    if group["references"]:
        axes.axhline((against or group["references"][0])["value"], color=ORANGE, linewidth=1,
                     linestyle=":", label="published" if against
                     else "published, of other conditions")  # fmt: skip
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of evaluations in training")


def _against_kl(axes: Any, runs: list[dict[str, Any]]) -> None:
    """Reward against KL, look by look: each seed thin, their mean bold."""
    by_update: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for index, run in enumerate(runs):
        axes.plot(run["kl"], run["reward"], color=GREY, marker="o", markersize=2, **THIN,
                  label=None if index else "each seed, look by look")  # fmt: skip
        for update, kl, reward in zip(run["update"], run["kl"], run["reward"], strict=True):
            by_update[update].append((kl, reward))
    shared = [found for _, found in sorted(by_update.items()) if len(found) == len(runs)]
    if shared and len(runs) > 1:
        means = [[sum(column) / len(runs) for column in zip(*found, strict=True)]
                 for found in shared]  # fmt: skip
        axes.plot(*zip(*means, strict=True), color=GREEN, marker="o", markersize=4, linewidth=2.2,
                  label=f"mean of {len(runs)}")  # fmt: skip
    axes.set_xlabel("exact KL to the reference, nats a completion")


def _reward(reward: dict[str, Any] | None, name: str) -> list[Markup]:
    """Agreement with people by margin, and calibration."""
    if reward is None:
        return []
    sides = ("model", "baseline", "half", "full")
    bins = [
        row | {side: estimate(row[side]) for side in sides}
        for row in reward["accuracy"]
        if row["bin"]
    ]
    tables = [run["table"] for run in reward["reliability"]]
    charts = (
        language_charts.accuracy_by_margin(bins, f"{name}-margin"),
        language_charts.reliability(tables, f"{name}-reliability"),
    )
    return [chart for chart in charts if chart is not None]


def across(found: dict[str, Any]) -> Markup:
    """The performance profile of a suite: which share of runs is above each normalised score."""

    def draw(axes: Any) -> None:
        profile = found["profile"]
        axes.fill_between(profile["x"], profile["low"], profile["high"], color=BLUE, alpha=0.2,
                          linewidth=0, label="95 % at each score")  # fmt: skip
        axes.plot(profile["x"], profile["mean"], color=BLUE, linewidth=2.2,
                  label=f"mean of {len(found['tasks'])} tasks")  # fmt: skip
        axes.axvline(1.0, color=ORANGE, linewidth=1, linestyle=":", label="published")
        axes.set_xlabel("normalised score")
        axes.set_ylabel("share of runs above it")
        axes.set_ylim(-0.02, 1.05)

    return svg("profile", "", draw, WIDE)
