"""What the report of a language experiment says, read from its directory.

Files may be missing (a stage not begun) or damaged: whatever cannot be read is left out.
"""

from pathlib import Path
from typing import Any

from rl_lab import language_vitals
from rl_lab.experiment_view import ExperimentView
from rl_lab.language_evaluation import Estimate, estimate, mapping, number, rows
from rl_lab.plain_json import read_object
from rl_lab.reports import language_charts
from rl_lab.screens.drawing import duration

LONGEST_CARD = 100_000
"""Characters of a data card that are shown."""


def content(experiment: ExperimentView) -> dict[str, Any]:
    """Everything `language_report.html.j2` shows beside what every report shows."""
    return {
        "stages": [
            {
                "name": name,
                "state": experiment.stage_state(name),
                "time": duration(experiment.stage_seconds(name)) if view else "",
                "result": _result(experiment, name),
            }
            for name, view in experiment.stages.items()
        ],
        "evaluation": experiment.evaluation,
        "warnings": language_vitals.warnings(experiment.ppo, experiment.kl_section),
        "samples": samples(experiment),
        "judges": _judges(read_object(judges_report(experiment.run.path))),
        "reward": _reward(experiment.run.path / "reward" / "report.json"),
        "card": _text(experiment.run.path / "data" / "card.md"),
        "against_kl": language_charts.against_kl(experiment),
        "course": language_charts.course(experiment),
        "pretraining": language_charts.pretraining(experiment),
        "reward_training": language_charts.reward_training(experiment),
    }


def _result(experiment: ExperimentView, name: str) -> str:
    """What a stage came to, in a few words."""
    view = experiment.stages.get(name)
    if view is None:
        return ""
    if name == "pretrain":
        report = read_object(view.run.path / "report.json")
        bits = number(report.get("heldout_bits_per_character"))
        ngram = number(report.get("ngram_bits_per_character"))
        if bits is None:
            return ""
        beside = f", an n-gram model {ngram:.3f}" if ngram is not None else ""
        return f"{bits:.3f} bits a character held out{beside}"
    if name == "ppo" and view.budget:
        return f"{view.step:,} of {view.budget:,} updates"
    return ""


def samples(experiment: ExperimentView) -> list[dict[str, Any]]:
    """Prompts with both completions, each with what it earned; empty where not evaluated."""
    if experiment.evaluation is None:
        return []
    found = []
    for sample in experiment.evaluation.samples:
        gold = mapping(sample.get("gold"))
        sides = []
        for index, side in enumerate(("reference", "policy")):
            earned = [("proxy", sample.get("proxy")), *gold.items()]
            scores = [(str(name), _at(pair, index)) for name, pair in earned]
            sides.append(
                {
                    "who": side,
                    "text": sample.get(side, ""),
                    "scores": [(name, f"{one:.2f}") for name, one in scores if one is not None],
                }
            )
        found.append({"prompt": _prompt(sample.get("prompt", "")), "sides": sides})
    return found


def _prompt(prompt: Any) -> str:
    """A prompt as one text; a conversation as its turns."""
    if isinstance(prompt, list):
        turns = [mapping(turn) for turn in prompt]
        return " ".join(f"{turn.get('role', '?')}: {turn.get('content', '')}" for turn in turns)
    return str(prompt)


def _at(pair: Any, index: int) -> float | None:
    return number(pair[index]) if isinstance(pair, list) and index < len(pair) else None


# --- gold judges ---------------------------------------------------------------------------------


def judges_report(experiment: Path) -> Path:
    """What the judges' stage found."""
    return experiment / "judges" / "report.json"


def _judges(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each judge and range of margins that its accuracy is known of."""
    found = []
    for name, judge in report.items():
        known = mapping(judge)
        for margin, end in (("all", ""), ("from 1 on", "_margin_1")):
            accuracy = known.get(f"accuracy{end}")
            if estimate(accuracy):
                ceiling = mapping(known.get(f"ceiling{end}"))
                found.append(
                    {
                        "judge": name,
                        "pairs": "held out" if known.get("split") == "heldout" else "training",
                        "margin": margin,
                        "n": number(mapping(accuracy).get("n")),
                        "accuracy": estimate(accuracy),
                        "half": estimate(ceiling.get("half")),
                        "full": estimate(ceiling.get("full")),
                    }
                )
    return found


# --- reward model --------------------------------------------------------------------------------


def _reward(path: Path) -> dict[str, Any] | None:
    """The reward model's report, of its members together."""
    report = read_object(path)
    ensemble = mapping(report.get("ensemble"))
    accuracy = mapping(ensemble.get("accuracy"))
    if not accuracy:
        return None
    against, calibration = calibration_of(ensemble)
    length = mapping(ensemble.get("length"))
    table = accuracy_table(report)
    return {
        "members": len(rows(report.get("members"))),
        "baseline": str(mapping(report.get("baseline")).get("what", "")),
        "note": str(report.get("intervals", "")),
        "table": table,
        "ece": number(calibration.get("ece")),
        "brier": number(calibration.get("brier")),
        "against": against,
        "length_correlation": number(length.get("score_correlation")),
        "length_matched": estimate(length.get("matched")),
        "charts": [
            chart
            for chart in (
                language_charts.accuracy_by_margin([row for row in table if row["bin"]]),
                language_charts.reliability([calibration.get("table")]),
            )
            if chart is not None
        ],
    }


def calibration_of(ensemble: Any) -> tuple[str, dict[str, Any]]:
    """How a reward model's chances fit: to votes, or where these are unknown, to sides.

    Returns:
        What it is held against, in words; and `ece`, `brier`, `table` as they were written.
    """
    found = mapping(mapping(ensemble).get("calibration"))
    votes = mapping(found.get("votes"))
    if votes:
        return "share of votes", votes
    return "side that people prefer", mapping(found.get("preference"))


def accuracy_table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Agreement with people by margin, beside the baseline's and the human ceilings.

    Returns:
        Rows of `margin` (words), `bin` (whether it is one of the bins), `n`, and `model`,
        `baseline`, `half`, `full`: an Estimate, or None.
    """
    found = [mapping(mapping(report.get(who)).get("accuracy")) for who in ("ensemble", "baseline")]
    ceilings: dict[tuple[float, float | None], dict[str, Any]] = {}
    for row in rows(report.get("ceiling")):
        low, high = (_at(row.get("margin"), index) for index in (0, 1))
        if low is not None:
            ceilings[low, _open(high)] = row
    lines: list[tuple[str, tuple[float, float | None], bool, list[Any]]] = [
        ("all pairs", (0.0, None), False, [side.get("all") for side in found]),
        ("from 1 on", (1.0, None), False, [side.get("margin >= 1") for side in found]),
    ]
    bins = [rows(side.get("by_margin")) for side in found]
    for index, row in enumerate(bins[0]):
        low, high = number(row.get("from")), _open(number(row.get("to")))
        if low is None:
            continue
        words = f"{low:g} – {high:g}" if high is not None else f"from {low:g} on"
        other = bins[1][index].get("accuracy") if index < len(bins[1]) else None
        lines.append((words, (low, high), True, [row.get("accuracy"), other]))
    table = []
    for words, key, is_bin, (model, baseline) in lines:
        ceiling = ceilings.get(key, {})
        measured: dict[str, Estimate | None] = {
            "model": estimate(model),
            "baseline": estimate(baseline),
            "half": estimate(ceiling.get("half")),
            "full": estimate(ceiling.get("full")),
        }
        if measured["model"]:
            n = number(mapping(model).get("n"))
            table.append({"margin": words, "bin": is_bin, "n": n, **measured})
    return table


def _open(high: float | None) -> float | None:
    """The last bin has no end; ratings from -4 to 4 cannot differ by more than 8."""
    return None if high is None or high >= 8 else high


# --- files ---------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST_CARD)
    except OSError:
        return ""
