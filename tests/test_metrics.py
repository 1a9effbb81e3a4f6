"""metrics.jsonl: appended, followed, cut short by a kill, written again by a resume."""

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rl_lab.metrics import MetricLog, MetricReader, latest, numbers_of, read_metrics


def test_what_is_logged_is_read_and_given_to_the_sinks(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    given_to_sink = []
    with MetricLog(
        path, (lambda step, numbers: given_to_sink.append((step, dict(numbers))),)
    ) as log:
        log.log(10, {"a": 1.5})
        log.event(10, "note", "something")
        log.log(20, {"a": 2.5, "b": math.nan})
    records = read_metrics(path)
    assert numbers_of(records, "a") == ([10, 20], [1.5, 2.5])
    assert numbers_of(records, "b") == ([], [])
    assert latest(records, "a") == 2.5
    assert [record["message"] for record in records if "event" in record] == ["something"]
    assert [step for step, _ in given_to_sink] == [10, 20]


def test_every_line_is_json_without_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path) as log:
        log.log(1, {"a": math.nan, "b": math.inf})
    record = json.loads(path.read_text(), parse_constant=lambda name: 1 / 0)
    assert record["a"] is None
    assert record["b"] is None


def test_a_line_cut_short_is_skipped_and_then_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path) as log:
        log.log(1, {"a": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 2, "wall": 1, "a": 2')
    assert numbers_of(read_metrics(path), "a") == ([1], [1.0])
    with MetricLog(path) as log:
        log.log(2, {"a": 3.0})
    assert path.read_bytes().startswith(whole)
    assert numbers_of(read_metrics(path), "a") == ([1, 2], [1.0, 3.0])


def test_a_reader_follows_a_file_that_grows_even_by_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = MetricReader(path)
    assert reader.read() == []
    line = b'{"step": 1, "wall": 0.5, "a": 1}\n'
    path.write_bytes(line[:10])
    assert reader.read() == []
    path.write_bytes(line)
    assert len(reader.read()) == 1
    path.write_bytes(line * 3)
    assert len(reader.read()) == 3


def test_what_a_resume_writes_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path) as log:
        for step in (10, 20, 30):
            log.log(step, {"a": float(step)})
    with MetricLog(path) as log:
        log.event(20, "resumed", "from step 20")
        log.log(30, {"a": -30.0})
    assert numbers_of(read_metrics(path), "a") == ([10, 20, 30], [10.0, 20.0, -30.0])


def test_wall_time_goes_on_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "wall": 100.0}\n')
    with MetricLog(path) as log:
        log.log(2, {})
    assert read_metrics(path)[-1]["wall"] >= 100.0


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(b'{"step": 1, "wall": 1, "a": 1}'))))
def test_damaged_lines_cost_only_themselves(tmp_path_factory: object, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"  # type: ignore[attr-defined]
    lines = [line.replace(b"\n", b"").replace(b"\r", b"") for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    records = read_metrics(path)
    whole = [record for record in records if record.get("a") == 1]
    assert len(whole) >= lines.count(b'{"step": 1, "wall": 1, "a": 1}')
