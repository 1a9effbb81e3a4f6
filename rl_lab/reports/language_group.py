"""What language experiments of one recipe came to over their seeds, as plain data."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rl_lab import language_vitals
from rl_lab.experiment_view import ExperimentView
from rl_lab.language_evaluation import LanguageEvaluation, Row, number, rows
from rl_lab.plain_json import read_object
from rl_lab.reports import language_report
from rl_lab.statistics import runs_interval

Interval = dict[str, Any]
"""`mean`, `low`, `high`, `n`: over seeds."""


def content(views: Sequence[ExperimentView]) -> dict[str, Any]:
    """What the experiments measured, each figure as its mean over them with an interval.

    Returns:
        `measures` (policy beside reference), `judges`, `gains`, `win_rates`, `kl`,
        `distinct_2_kept`, `against_kl` (each run's looks), `reward` (reward models; None without),
        `samples` (of the run in the middle; None without).
    """
    known = [(view, view.evaluation) for view in views if view.evaluation is not None]
    evaluations = [evaluation for _, evaluation in known]
    judges = evaluations[0].judges if evaluations else []
    return {
        "measures": _measures(evaluations),
        "judges": judges,
        "gains": {judge: over_seeds(_mean(e.gains.get(judge)) for e in evaluations)
                  for judge in judges},
        "win_rates": {judge: over_seeds(_mean(e.win_rates.get(judge)) for e in evaluations)
                      for judge in judges},
        "kl": over_seeds(_mean(e.kl) for e in evaluations),
        "distinct_2_kept": over_seeds(e.distinct_2_kept for e in evaluations),
        "against_kl": _against_kl(views),
        "reward": _reward(views),
        "samples": _samples(known),
    }  # fmt: skip


def over_seeds(values: Iterable[float | None]) -> Interval | None:
    """The mean of what is known, with its interval; None where nothing is."""
    known = [value for value in values if value is not None]
    return asdict(runs_interval(known)) if known else None


def _mean(found: Any) -> float | None:
    return found.mean if found else None


def _measures(evaluations: Sequence[LanguageEvaluation]) -> list[dict[str, Any]]:
    """Policy beside reference, a row for each thing that was measured of any."""
    by_name: dict[str, list[Row]] = {}
    for evaluation in evaluations:
        for row in evaluation.table():
            by_name.setdefault(row.what, []).append(row)
    return [
        {
            "what": what,
            "note": same[0].note,
            "form": same[0].form,
            "policy": over_seeds(_mean(row.policy) for row in same),
            "reference": over_seeds(_mean(row.reference) for row in same),
        }
        for what, same in by_name.items()
    ]


def _against_kl(views: Sequence[ExperimentView]) -> list[dict[str, Any]]:
    """Each run's looks at held-out prompts: reward against exact KL, while PPO went on.

    Returns:
        Objects of `what` (`proxy reward`, or `gold <judge>`) and `runs`: `run`, `update`, `kl`,
        `reward`.
    """
    judges = next((named for view in views if (named := language_vitals.judges(view.ppo))), [])
    metrics = {"proxy reward": "look/proxy"} | {f"gold {j}": f"look/gold/{j}" for j in judges[:3]}
    found: list[dict[str, Any]] = []
    for what, metric in metrics.items():
        runs: list[dict[str, Any]] = []
        for view in views:
            looks = [
                (record["step"], record["look/kl"], record[metric])
                for record in view.ppo
                if number(record.get("look/kl")) is not None
                and number(record.get(metric)) is not None
            ]
            if looks:
                updates, kl, reward = (list(column) for column in zip(*looks, strict=True))
                runs.append({"run": view.run.name, "update": updates, "kl": kl, "reward": reward})
        if runs:
            found.append({"what": what, "runs": runs})
    return found


def _reward(views: Sequence[ExperimentView]) -> dict[str, Any] | None:
    """The reward models, each judged by its members together."""
    reports = []
    for view in views:
        report = read_object(view.run.path / "reward" / "report.json")
        table = language_report.accuracy_table(report)
        if table:
            reports.append((view.run.name, report, table))
    if not reports:
        return None
    margins = list(dict.fromkeys(row["margin"] for _, _, table in reports for row in table))
    calibrations = [
        (name, *language_report.calibration_of(report.get("ensemble")))
        for name, report, _ in reports
    ]  # fmt: skip
    return {
        "accuracy": [_accuracy([table for _, _, table in reports], margin) for margin in margins],
        "ece": over_seeds(number(found.get("ece")) for _, _, found in calibrations),
        "brier": over_seeds(number(found.get("brier")) for _, _, found in calibrations),
        "against": calibrations[0][1],
        "reliability": [
            {"run": name, "table": rows(found.get("table"))} for name, _, found in calibrations
        ],
    }


def _accuracy(tables: Sequence[list[dict[str, Any]]], margin: str) -> dict[str, Any]:
    """One row of agreement with people, over runs; ceilings are of the data, so of all of them."""
    same = [row for table in tables for row in table if row["margin"] == margin]
    sides = ("model", "baseline", "half", "full")
    return {"margin": margin, "bin": same[0]["bin"], "n": same[0]["n"]} | {
        side: over_seeds(_mean(row[side]) for row in same) for side in sides
    }


def _samples(
    known: Sequence[tuple[ExperimentView, LanguageEvaluation]],
) -> dict[str, Any] | None:
    """Completions before and after, of the run whose gain is in the middle."""
    gains = [(evaluation.gain.mean, view) for view, evaluation in known if evaluation.gain]
    gains.sort(key=lambda pair: pair[0])
    if not gains:
        return None
    gain, view = gains[(len(gains) - 1) // 2]
    return {"run": view.run.name, "gain": gain, "rows": language_report.samples(view)}
