"""Runs as tables: every row and number of the logs, of many runs, in Parquet and CSV."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.cli import main
from rl_lab.metrics import read_metrics, stream_metrics
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from rl_lab.table_files import write_tables
from rl_lab.tables import IDENTITY, Table, tables
from tests import fake_experiment as fake

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]
EPISODES = [
    {"seed": 11, "episode_return": 9.5, "length": 10, "terminated": True, "success": None},
    {"seed": 12, "episode_return": -1.0, "length": 7, "terminated": False, "success": True},
]


def export(*tokens: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["export", *tokens])
    return int(end.value.code or 0)


@pytest.fixture
def agents(make_recipe: MakeRecipe, make_run: MakeRun) -> list[Run]:
    """Two agents' runs, the second of which was resumed, and judged."""
    runs = []
    for seed in (0, 1):
        run = make_run(make_recipe("cartpole", {"seed": seed}), f"pole-seed{seed}")
        lines: list[dict[str, Any]] = [
            {"step": 10, "wall": 0.5, "train/loss": 0.25, "rollout/ep_rew_mean": None},
            {"step": 20, "wall": 1.0, "train/loss": 0.125},
        ]
        if seed == 1:
            lines += [
                {"step": 10, "wall": 1.1, "event": "resumed", "message": "from 10"},
                {"step": 20, "wall": 1.5, "eval/mean_reward": 3},
            ]
        run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs.append(run)
    interval = {"mean": 4.25, "low": -1, "high": 9.5, "n": 2}
    result = {"model": "best", "actions": "greedy", "step": 20, "return": interval,
              "truncated": 1, "episodes": EPISODES}  # fmt: skip
    runs[1].evaluation_file.write_text(json.dumps({"best greedy": result}))
    return runs


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_agents_become_rows(
    form: str, agents: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export("pole-seed0", "pole-seed1", "--format", form, "--output", str(out)) == 0
    assert "metrics." in capsys.readouterr().out
    read = {path.stem: getattr(pd, f"read_{form}")(path) for path in out.iterdir()}
    assert set(read) == {"metrics", "events", "episodes", "measurements"}
    for frame in read.values():
        assert list(frame.columns[:5]) == list(IDENTITY)
        assert set(frame["task"]) == {"CartPole-v1"}
        assert set(frame["algorithm"]) == {"ppo"}
    metrics = read["metrics"]
    assert metrics[["run", "seed", "step", "wall"]].to_numpy().tolist() == [
        ["pole-seed0", 0, 10, 0.5], ["pole-seed0", 0, 20, 1.0],
        ["pole-seed1", 1, 10, 0.5], ["pole-seed1", 1, 20, 1.5],
    ]  # fmt: skip
    assert metrics["train/loss"].dropna().tolist() == [0.25, 0.125, 0.25]
    assert metrics["eval/mean_reward"].dropna().tolist() == [3.0]
    assert read["events"]["event"].tolist() == ["resumed"]
    episodes = read["episodes"]
    assert episodes["episode_seed"].tolist() == [11, 12]
    assert episodes["return"].tolist() == [9.5, -1.0]
    assert episodes["terminated"].tolist() == [True, False]
    assert episodes["success"].iloc[1] == True  # noqa: E712 -- of either reader's type
    assert episodes["success"].isna().tolist() == [True, False]
    assert episodes["model_step"].tolist() == [20, 20]
    measured = read["measurements"].set_index("measurement")
    assert measured.loc["best greedy/return", ["estimate", "low", "high", "n"]].tolist() == [
        4.25, -1, 9.5, 2,
    ]  # fmt: skip
    assert measured.loc["best greedy/truncated", "estimate"] == 1


def test_an_experiment_and_a_directory_of_runs(
    agents: list[Run], runs_directory: Path, tmp_path: Path
) -> None:
    suite, out = runs_directory / "suite", tmp_path / "o"
    suite.mkdir()
    agents[1].path.rename(suite / "pole-seed0")
    fake.build(suite, "movie")
    names = ("suite", "pole-seed0", "suite/pole-seed0")
    assert export(*names, "--format", "parquet", "--output", str(out)) == 0
    metrics = pd.read_parquet(tmp_path / "o" / "metrics.parquet")
    # Two of one name are told apart by their paths; stages are no runs of their own.
    paths = [str(place / "pole-seed0") for place in (suite, runs_directory)]
    assert set(metrics["run"]) == {"movie", *paths}
    assert set(metrics["stage"].dropna()) == {"pretrain", "reward", "ppo"}
    assert metrics["kl/exact"].notna().sum() == 60
    samples = pd.read_parquet(tmp_path / "o" / "samples.parquet")
    assert samples["model"].tolist()[:2] == ["reference", "policy"]
    assert samples.loc[0, ["proxy", "gold/stars"]].tolist() == [-0.4, 0.3]
    assert samples.loc[1, ["proxy", "gold/raters"]].tolist() == [2.1, 0.82]
    assert samples.loc[0, "task"] == "movie-reviews"
    measured = pd.read_parquet(tmp_path / "o" / "measurements.parquet")
    of_movie = measured[measured["run"] == "movie"].set_index("measurement")
    assert of_movie.loc["gain/stars", ["estimate", "low", "high"]].tolist() == [1.12, 1.01, 1.23]
    assert of_movie.loc["best_of/16/gain/stars", "estimate"] == 1.02
    assert of_movie.loc["policy/distinct_2", "estimate"] == 0.81


def test_what_is_there_is_not_overwritten_and_a_failure_leaves_nothing(
    agents: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert export("pole-seed0", "--format", "csv") == 0
    before = (tmp_path / "pole-seed0-csv" / "metrics.csv").read_bytes()
    assert export("pole-seed0", "--format", "csv") == 2
    assert "pole-seed0-csv exists" in capsys.readouterr().err
    assert (tmp_path / "pole-seed0-csv" / "metrics.csv").read_bytes() == before
    for wrong in ("missing/out", "pole-seed0-csv/metrics.csv/out"):
        assert export("pole-seed0", "--format", "csv", "--output", wrong) == 2
        assert "there is no directory" in capsys.readouterr().err

    def broken() -> Any:
        yield {"run": "x"}
        raise ZeroDivisionError

    listed = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        write_tables([Table("t", dict(IDENTITY), broken)], tmp_path / "new", "csv")
    assert sorted(tmp_path.iterdir()) == listed


def test_a_long_log_is_never_whole_in_memory(
    make_recipe: MakeRecipe, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl_lab.table_files.BATCH", 50)
    run = make_run(make_recipe("cartpole"))
    line = '{{"step": {0}, "wall": {0}.5, "a": 1.5, "b": 2.5, "c": 3.5, "d": 4.5}}\n'
    count = 4000
    with run.metrics_file.open("w") as file:
        file.writelines(line.format(step) for step in range(count))
    write_tables(tables([run]), tmp_path / "warm", "parquet")
    tracemalloc.start()
    written = write_tables(tables([run]), tmp_path / "out", "parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written == {"metrics.parquet": (count, 12)}
    assert peak < count * 100  # as a list of dicts they would take several times that


RECORD = st.one_of(
    st.builds(lambda step: {"step": step, "wall": 1.0, "a": 1}, st.integers(0, 9)),
    st.builds(lambda step: {"step": step, "wall": 1.0, "event": "resumed"}, st.integers(0, 9)),
    st.just({"step": 0, "wall": 1.0, "event": "restarted"}),
    st.sampled_from([{"step": -1}, [], "x", {"step": 1, "wall": 1, "event": 3}]),
)


@given(records=st.lists(RECORD, max_size=30), tail=st.booleans(), escaped=st.booleans())
def test_streamed_metrics_are_those_that_are_read(
    records: list[Any], tail: bool, escaped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    text = "".join(json.dumps(record) + "\n" for record in records)
    if escaped:
        text = text.replace("event", "\\u0065vent")
    path.write_text(text[:-1] if tail else text)
    assert list(stream_metrics(path)) == read_metrics(path)


def test_rows_of_csv_are_rows_to_any_reader(agents: list[Run], tmp_path: Path) -> None:
    agents[0].metrics_file.write_text(
        json.dumps({"step": 1, "wall": 1, "event": "note", "message": 'a,"b"\nc', "level": "info"})
        + "\n"
    )
    assert export("pole-seed0", "--format", "csv", "--output", str(tmp_path / "o")) == 0
    with (tmp_path / "o" / "events.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["message"] == 'a,"b"\\nc'
    assert not (tmp_path / "o" / "metrics.csv").exists()  # it would have no rows
