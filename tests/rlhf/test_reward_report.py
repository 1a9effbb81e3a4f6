"""The report on a scorer: cases whose answers are known."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from rl_lab.reports import language_charts, language_report
from rl_lab.rlhf import reward_report


def pair(chosen: str, rejected: str, **votes: Any) -> dict[str, Any]:
    return {"prompt": "", "chosen": chosen, "rejected": rejected} | votes


def test_accuracy_by_margin_counts_ties_half() -> None:
    difference = np.array([1.0, -1.0, 0.0, 2.0, 3.0])
    said = reward_report.accuracy(difference, [0.05, 0.05, 0.6, 1.2, 5.0])
    assert said["all"]["mean"] == pytest.approx(0.7)
    assert said["all"]["low"] < 0.7 < said["all"]["high"]
    assert said["ties"] == 1
    assert said["margin >= 1"]["mean"] == 1.0
    by_margin = {row["from"]: row["accuracy"] for row in said["by_margin"]}
    assert by_margin[0.0]["mean"] == 0.5
    assert by_margin[0.5]["mean"] == 0.5
    assert by_margin[2.0]["n"] == 1
    assert by_margin[0.25] is None
    assert sum(row["n"] for row in by_margin.values() if row) == 5


def test_without_margins_there_is_only_the_whole() -> None:
    assert set(reward_report.accuracy(np.array([1.0]), [None])) == {"all", "ties"}


def test_calibration_of_votes() -> None:
    difference = np.random.default_rng(0).normal(0.5, 1.5, size=20_000)
    votes = expit(difference).tolist()
    honest = reward_report.calibration(difference, votes)
    assert honest["votes"]["ece"] < 1e-9
    assert honest["votes"]["brier"] < 1e-9
    boastful = reward_report.calibration(3 * difference, votes)["votes"]
    assert boastful["ece"] > 0.1
    assert all(row["predicted"] > row["observed"] for row in boastful["table"][2:])


def test_calibration_of_preferences() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(0.0, 2.0, size=40_000)
    # Sampled preferences: turned so that the preferred side comes first.
    preferred = np.where(rng.random(difference.size) < expit(difference), difference, -difference)
    said = reward_report.calibration(preferred, [None] * preferred.size)
    assert said["votes"] is None
    assert said["preference"]["ece"] < 0.02
    assert said["preference"]["brier"] == pytest.approx(
        np.mean((1 - expit(preferred)) ** 2), abs=1e-12
    )


def test_equal_scores_for_all_are_no_error() -> None:
    pairs = [pair("a b", "c"), pair("d", "e f")]
    said = reward_report.judge(np.zeros((2, 2)), pairs)
    assert said["accuracy"]["all"]["mean"] == 0.5
    assert said["calibration"]["preference"]["ece"] == 0
    assert said["length"]["score_correlation"] is None


def test_a_scorer_that_counts_words_is_found_out() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(["w"] * n) for n in rng.integers(1, 40, size=200)]
    pairs = [pair(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    scores = np.array([[len(row[side]) for row in pairs] for side in ("chosen", "rejected")], float)
    said = reward_report.length_bias(scores, pairs)
    assert said["score_correlation"] == pytest.approx(1.0)
    assert said["model_prefers_longer"]["mean"] == 1.0
    assert 0.3 < said["people_prefer_longer"]["mean"] < 0.7


def test_each_text_is_scored_once() -> None:
    asked: list[str] = []

    def scorer(prompts: Sequence[str], completions: Sequence[str]) -> torch.Tensor:
        asked.extend(completions)
        return torch.tensor([float(len(text)) for text in completions])

    scores = reward_report.pair_scores(scorer, [pair("aa", "b"), pair("ccc", "aa")])
    assert scores.tolist() == [[2.0, 3.0], [1.0, 2.0]]
    assert sorted(asked) == ["aa", "b", "ccc"]


def test_the_baseline_learns_which_words_are_liked() -> None:
    rng = np.random.default_rng(0)

    def text(word: str) -> str:
        return " ".join([word, *rng.choice(["film", "plot", "scene", "cast"], size=3)])

    pairs = [pair(text("superb"), text("dreadful"), share=0.9) for _ in range(60)]
    scores = reward_report.baseline_scores(pairs[:50], pairs[50:])
    assert (scores[0] > scores[1]).all()


def test_the_ceiling_comes_from_the_data_stage(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert reward_report.read_ceiling(path) is None
    path.write_text("{}")
    assert reward_report.read_ceiling(path) is None
    rows = [{"margin": [0.0, 8.0], "share": 1.0, "half": 0.91, "full": 0.96}]
    path.write_text(json.dumps({"ceiling": rows}))
    assert reward_report.read_ceiling(path) == rows


def test_the_report_is_read_as_it_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(1, 1, 200)
    margins = rng.uniform(0, 3, 200).tolist()
    rated = [{"margin": [0.0, 8.0], "share": 1.0, "half": 0.9, "full": 0.95}]
    (tmp_path / "report.json").write_text(json.dumps({"ceiling": rated}))
    ensemble = {
        "accuracy": reward_report.accuracy(difference, margins),
        "calibration": reward_report.calibration(difference, [0.7] * 200),
    }
    ceiling = reward_report.read_ceiling(tmp_path / "report.json")
    table = language_report.accuracy_table({"ensemble": ensemble, "ceiling": ceiling})
    assert (table[0]["margin"], table[0]["full"].mean) == ("all pairs", 0.95)
    assert len(table) > 5
    against, found = language_report.calibration_of(ensemble)
    assert against == "share of votes"
    assert 0 < found["ece"] < 1
    assert language_charts.reliability([found["table"]]) is not None
