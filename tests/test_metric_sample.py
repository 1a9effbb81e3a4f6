"""Long logs: some lines stand for all, in bounded memory, and short ones are kept whole."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rl_lab import metric_sample
from rl_lab.metric_sample import MetricSample
from rl_lab.metrics import MetricLog, last_wall, numbers_of, read_metrics
from rl_lab.run import Run
from rl_lab.run_view import RunView
from rl_lab.screens.dashboard import plain_line, render

KINDS = ("line", "line", "line", "evaluation", "note", "resumed", "restarted", "damaged")


def written(path: Path, kinds: list[tuple[str, int]]) -> list[int]:
    """Write lines of these kinds and steps; return where each ends, in bytes."""
    ends = []
    with MetricLog(path) as log:
        for kind, step in kinds:
            if kind == "line":
                log.log(step, {"a": float(step)})
            elif kind == "evaluation":
                log.log(step, {"eval/mean_reward": float(step)})
            elif kind == "damaged":
                with path.open("ab") as file:
                    file.write(b"{no line\n")
            else:
                log.event(step, kind, "said")
            ends.append(path.stat().st_size)
    return ends


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20)), max_size=40),
    st.lists(st.floats(0, 1), max_size=3),  # shares: its length follows from the clock
    st.sampled_from([7, 100, metric_sample.BLOCK]),
)
def test_a_short_log_is_kept_whole_however_it_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[tuple[str, int]],
    read_to: list[float],
    at_once: int,
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    written(path, kinds)
    content = path.read_bytes()
    cuts = sorted(round(share * len(content)) for share in read_to)
    block, metric_sample.BLOCK = metric_sample.BLOCK, at_once
    try:
        sample = MetricSample(path)
        for end in (*cuts, len(content)):
            path.write_bytes(content[:end])
            found = sample.read().records
    finally:
        metric_sample.BLOCK = block
    assert found == sample.recent == read_metrics(path)
    assert sample.one_in == 1


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MOST": 64, "RECENT": 20, "LAST": 3, "BLOCK": 500}.items():
        monkeypatch.setattr(metric_sample, name, value)


def long_log(path: Path, lines: int = 3000) -> None:
    kinds = {7: "evaluation", 8: "note"}
    written(path, [(kinds.get(step % 100, "line"), step) for step in range(lines)])


@pytest.mark.usefixtures("small_sample")
def test_of_a_long_log_even_lines_and_all_that_is_rare_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    long_log(path)
    sample = MetricSample(path).read()
    assert sample.one_in == 64
    steps, values = numbers_of(sample.records, "a")
    assert values == steps
    assert steps[:-3] == [step for step in range(0, 3000, 64) if step % 100 not in (7, 8)]
    assert steps[-3:] == [2997, 2998, 2999]
    assert numbers_of(sample.records, "eval/mean_reward")[0] == list(range(7, 3000, 100))
    assert sum("event" in record for record in sample.records) == 30
    assert numbers_of(sample.recent, "a")[0] == list(range(2980, 3000))


@pytest.mark.usefixtures("small_sample")
def test_memory_is_bounded_whatever_the_lines_are(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path, [("note", step) for step in range(3000)])
    records = MetricSample(path).read().records
    assert len(records) <= 2 * 64 + 3
    assert records[-1]["step"] == 2999
    halves = [sum(record["step"] < 1500 for record in records[:-3]), len(records[:-3])]
    assert halves[0] == pytest.approx(halves[1] / 2, abs=2)


@pytest.mark.usefixtures("small_sample")
def test_what_a_resume_wrote_again_is_dropped_from_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    long_log(path)
    written(path, [("resumed", 1000), ("line", 1001), ("line", 1002)])
    sample = MetricSample(path).read()
    steps = [record["step"] for record in sample.records]
    assert steps == sorted(steps)
    assert max(steps) == 1002
    assert [record["step"] for record in sample.recent] == [1000, 1001, 1002]


@pytest.mark.usefixtures("small_sample")
def test_the_screen_says_that_a_log_is_thinned_out(tmp_path: Path) -> None:
    run = Run(tmp_path / "long")
    run.path.mkdir()

    def screen() -> str:
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(render([RunView(run)], 100))
        return console.export_text()

    written(run.metrics_file, [("line", 1)])
    assert "line in" not in screen()
    long_log(run.metrics_file)
    assert "1 line in 64 of its log drawn" in screen()
    assert "2,999/" in plain_line(RunView(run))


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20)), max_size=20))
def test_the_last_wall_is_that_of_the_last_record(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    assert last_wall(path) == 0
    written(path, kinds)
    records = read_metrics(path)
    assert last_wall(path) == (records[-1]["wall"] if records else 0)
