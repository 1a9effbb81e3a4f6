"""Gold judges: measured on pairs that they were not fitted on, beside what people agree on."""

import json
from pathlib import Path
from typing import Any

import pytest

from rl_lab.files import write_json
from rl_lab.metrics import MetricLog, read_metrics
from rl_lab.rlhf.jsonl import write_jsonl
from rl_lab.rlhf.judges import fit_judges
from rl_lab.rlhf.recipe import Judge
from rl_lab.run import Run
from rl_lab.signals import StopRequest

CEILING = [
    {"margin": [0.0, 8.0], "share": 1.0, "half": 0.9, "full": 0.95},
    {"margin": [1.0, 8.0], "share": 0.5, "half": 0.98, "full": 0.999},
    {"margin": [0.0, 0.1], "share": 0.1, "half": 0.5, "full": 0.6},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Scored texts, and pairs of other texts; the last pair is of texts the judge has seen."""
    path = tmp_path / "data"
    path.mkdir()
    scores = [
        {"text": f"a {word} film {n}", "score": score}
        for word, score in (("good", 1), ("bad", -1))
        for n in range(20)
    ]
    write_jsonl(path / "scores-stars.jsonl", scores)
    pairs = [
        {"prompt": "the film ", "chosen": f"is good {n}", "rejected": f"is bad {n}", "margin": n}
        for n in range(4)
    ]
    seen = {"prompt": "", "chosen": "a bad film 1", "rejected": "a good film 1", "margin": 3}
    write_jsonl(path / "pairs-heldout.jsonl", [*pairs, seen])
    return path


def fitted(data: Path, path: Path) -> tuple[dict[str, Any], str]:
    """The judge's part of the report, and the last event."""
    path.mkdir()
    run = Run(path)
    with MetricLog(run.metrics_file) as log:
        fit_judges({"stars": Judge()}, data, run, log, StopRequest())
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))["stars"]
    return report, str(read_metrics(run.metrics_file)[-1]["message"])


def test_accuracy_stands_beside_the_human_ceiling(data: Path, tmp_path: Path) -> None:
    write_json(data / "report.json", {"ceiling": CEILING})
    report, said = fitted(data, tmp_path / "judges")
    assert (report["accuracy"]["mean"], report["accuracy"]["n"]) == (1.0, 4)
    assert report["accuracy_margin_1"]["n"] == 3
    assert report["ceiling"] == {"half": 0.9, "full": 0.95}
    assert report["ceiling_margin_1"] == {"half": 0.98, "full": 0.999}
    assert said.endswith("on 100.0% of 4 pairs it never saw (human ceiling: 95.0%)")


def test_where_raters_are_unknown_no_ceiling_is_told(data: Path, tmp_path: Path) -> None:
    report, said = fitted(data, tmp_path / "judges")
    assert set(report) == {"texts", "split", "accuracy", "accuracy_margin_1"}
    assert said.endswith("on 100.0% of 4 pairs it never saw")
