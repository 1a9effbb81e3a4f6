"""The charts of a language experiment's report."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jinja2

from rl_lab import language_vitals
from rl_lab.experiment_view import ExperimentView
from rl_lab.language_evaluation import estimate, mapping, number, rows
from rl_lab.metrics import Record, numbers_of
from rl_lab.reports.figures import BLUE, COLOURS, GREEN, GREY, ORANGE, svg
from rl_lab.text import inert

Markup = jinja2.filters.Markup
SIZE = (4.6, 3.0)  # inches; two beside each other on a page, one on a phone


def against_kl(experiment: ExperimentView) -> list[Markup]:
    """Proxy and gold against exact KL: the looks as a path, best-of-n as points, PPO as judged."""
    looks = [record for record in experiment.ppo if number(record.get("look/kl")) is not None]
    evaluation = experiment.evaluation
    points = evaluation.best_of()[1:] if evaluation else []
    judges = language_vitals.judges(experiment.ppo) or (evaluation.judges if evaluation else [])
    if not looks and not points:
        return []

    policy = evaluation.policy if evaluation else {}
    gold = mapping(policy.get("gold"))
    charts = [("proxy reward", "look/proxy", [p.proxy for p in points], policy.get("proxy"))]
    charts += [
        (
            f"gold {judge}",
            f"look/gold/{judge}",
            [p.gold.get(judge) for p in points],
            gold.get(judge),
        )
        for judge in judges[:3]
    ]

    def draw(axes: Any, key: str, heights: Sequence[float | None], judged: Any) -> None:
        path = [(look["look/kl"], look[key]) for look in looks if number(look.get(key)) is not None]
        if path:
            axes.plot(*zip(*path, strict=True), color=GREEN, marker="o", markersize=3,
                      label="PPO, look by look")  # fmt: skip
        others = [
            (point.kl, height, point.name.removeprefix("best of "))
            for point, height in zip(points, heights, strict=True)
            if point.kl is not None and height is not None
        ]
        if others:
            axes.plot([kl for kl, _, _ in others], [height for _, height, _ in others],
                      color=ORANGE, marker="s", markersize=5, linewidth=0.8, linestyle=":",
                      label="best of n")  # fmt: skip
        for kl, height, n in others:
            axes.annotate(inert(n), (kl, height), fontsize=9, xytext=(0, 6),
                          textcoords="offset points", ha="center")  # fmt: skip
        result = estimate(judged)
        if evaluation and evaluation.kl and result:
            axes.plot([evaluation.kl.mean], [result.mean], color=BLUE, marker="*",
                      markersize=12, linestyle="none", label="the result")  # fmt: skip
            if result.low is not None and result.high is not None:
                axes.vlines(evaluation.kl.mean, result.low, result.high, color=BLUE)
        axes.set_xlabel("exact KL to the reference, nats a completion")

    return [
        svg(f"kl-{index}", title, partial(draw, key=key, heights=heights, judged=judged), SIZE)
        for index, (title, key, heights, judged) in enumerate(charts)
    ]


def course(experiment: ExperimentView) -> list[Markup]:
    """How training went: PPO's numbers, update by update."""
    records = experiment.ppo
    if not records:
        return []
    judges = language_vitals.judges(records)[:3]
    gold = [(f"gold/{judge}", judge, COLOURS[i]) for i, judge in enumerate(judges)]
    gold += [(f"look/gold/{judge}", "", COLOURS[i]) for i, judge in enumerate(judges)]
    panels: list[tuple[str, list[tuple[str, str, str]]]] = [
        ("proxy reward", [("reward/proxy", "training", GREEN), ("look/proxy", "held out", BLUE)]),
        ("gold, dots: held-out looks", gold),
        ("KL, nats a response", [("kl/exact", "exact", GREEN), ("look/kl", "held out", BLUE)]),
        ("KL coefficient", [("kl/coefficient", "", GREEN)]),
        ("entropy, nats a token", [("train/entropy", "", GREEN)]),
        ("response length, tokens", [("rollout/response_length", "", GREEN),
                                     ("look/response_length", "", BLUE)]),
        ("shares", [("rollout/end_share", "ended", GREEN),
                    ("train/clip_fraction", "clipped", ORANGE),
                    ("look/distinct_2", "distinct-2, held out", BLUE)]),
        ("explained variance of the critic", [("train/explained_variance", "", GREEN)]),
    ]  # fmt: skip
    return _lines("ppo", records, panels, "update")


def pretraining(experiment: ExperimentView) -> list[Markup]:
    """Bits per character and training loss."""
    view = experiment.stages.get("pretrain")
    panels = [
        ("bits a character", [("eval/bits_per_character", "held out", BLUE),
                              ("train/bits_per_character", "trained on", GREEN)]),
        ("training loss, nats a token", [("train/loss", "", GREEN)]),
    ]  # fmt: skip
    return _lines("pretrain", view.records if view else [], panels, "step")


def reward_training(experiment: ExperimentView) -> list[Markup]:
    """Loss and accuracy of the reward model's members, one after the other."""
    view = experiment.stages.get("reward")
    panels = [
        ("loss, one member after the other", [("train/loss", "", GREEN)]),
        ("accuracy on training pairs", [("train/accuracy", "", GREEN)]),
    ]
    return _lines("reward", view.records if view else [], panels, "step")


def _lines(
    prefix: str,
    records: list[Record],
    panels: Sequence[tuple[str, Sequence[tuple[str, str, str]]]],
    unit: str,
) -> list[Markup]:
    """A chart a panel, of its metrics that were logged; looks with dots, as they are few."""

    def draw(axes: Any, courses: Sequence[tuple[str, str, str]]) -> None:
        for metric, label, colour in courses:
            steps, values = numbers_of(records, metric)
            few = metric.startswith(("look/", "eval/"))
            axes.plot(steps, values, color=colour, label=inert(label) or None, linewidth=1.4,
                      marker="o" if few else None, markersize=4,
                      linestyle="--" if few else "-")  # fmt: skip
        axes.set_xlabel(unit)

    return [
        svg(f"{prefix}-{index}", title, partial(draw, courses=courses), SIZE)
        for index, (title, courses) in enumerate(panels)
        if any(numbers_of(records, metric)[1] for metric, _, _ in courses)
    ]


def accuracy_by_margin(table: Sequence[dict[str, Any]], name: str = "margin") -> Markup | None:
    """Reward model, baseline and people, by how clear people's preference is.

    Args:
        table: rows of bins as of `language_report.accuracy_table`.
        name: of the chart.
    """
    if not table:
        return None

    def draw(axes: Any) -> None:
        for key, label, colour, style in (
            ("full", "ceiling, all raters", GREY, "--"),
            ("half", "half of the raters", GREY, ":"),
            ("baseline", "baseline", ORANGE, "-"),
            ("model", "reward model", GREEN, "-"),
        ):
            known = [(place, row[key]) for place, row in enumerate(table) if row[key]]
            if known:
                axes.plot([place for place, _ in known], [found.mean for _, found in known],
                          color=colour, linestyle=style, marker="o", markersize=3,
                          label=label)  # fmt: skip
            if key == "model":
                for place, found in known:
                    if found.low is not None and found.high is not None:
                        axes.vlines(place, found.low, found.high, color=colour)
        axes.set_xticks(
            range(len(table)), [row["margin"] for row in table], fontsize=8, rotation=30
        )
        axes.set_xlabel("difference of mean ratings")

    return svg(name, "agreement with people", draw, SIZE)


def reliability(tables: Sequence[Any], name: str = "reliability") -> Markup | None:
    """What reward models say of a preference's chance, against how people voted.

    Args:
        tables: of each run, rows of `predicted` and `observed`; the file may be damaged.
        name: of the chart.
    """
    courses = []
    for table in tables:
        points = [
            (said, seen)
            for row in rows(table)
            if (said := number(row.get("predicted"))) is not None
            and (seen := number(row.get("observed"))) is not None
        ]
        courses += [points] if points else []
    if not courses:
        return None

    def draw(axes: Any) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linestyle=":", label="calibrated")
        several = len(courses) > 1
        label = "reward model of each seed" if several else "reward model"
        for index, points in enumerate(courses):
            axes.plot(*zip(*points, strict=True), color=GREEN, marker="o",
                      markersize=3 if several else 6, linewidth=0.8 if several else 1.5,
                      alpha=0.6 if several else 1,
                      label=None if index else label)  # fmt: skip
        axes.set_xlabel("predicted")
        axes.set_ylabel("observed")

    return svg(name, "calibration", draw, SIZE)
