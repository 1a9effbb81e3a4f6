"""What looks wrong is told when it begins, and again only after it has passed."""

from pathlib import Path

import pytest

from rl_lab import vitals
from rl_lab.health import Alerts
from rl_lab.metrics import MetricLog, Record, read_metrics


def test_an_alert_is_written_once_until_it_has_passed(tmp_path: Path) -> None:
    def judge(records: list[Record]) -> dict[str, str]:
        newest = [record["x"] for record in records if "x" in record][-1]
        return {"x": f"x is {newest:g}"} if newest > 1 else {}

    with MetricLog(tmp_path / "metrics.jsonl") as log:
        alerts = Alerts(log, judge)
        for step, x in enumerate((0.0, 2.0, 3.0, 0.5, 4.0)):
            log.log(step, {"x": x})
            alerts.look(step)
    found = [record for record in read_metrics(log.path) if "event" in record]
    assert [(record["step"], record["message"]) for record in found] == [
        (1, "x is 2"),
        (4, "x is 4"),
    ]
    assert {record["event"] for record in found} == {"alert"}
    assert {record["level"] for record in found} == {"warning"}


@pytest.mark.parametrize(
    ("course", "word"),
    [
        ([1.0] * 25, None),
        ([1.0] * 25 + [40.0], "spike"),
        ([1.0] * 25 + [-40.0], "spike"),
        ([1.0] * 25 + [5000.0], "exploding"),
        ([1.0] * 10 + [40.0], None),  # too early to know what is usual
        ([0.0] * 25 + [40.0], None),  # nothing to compare with
        ([1.1**i for i in range(40)], None),  # steady growth is no spike
    ],
)
def test_a_loss_far_beyond_what_it_was_is_named(course: list[float], word: str | None) -> None:
    records = [{"step": i, "wall": 0.0, "train/loss": loss} for i, loss in enumerate(course)]
    ((reading),) = vitals.readings(records)
    assert reading.warning == word
