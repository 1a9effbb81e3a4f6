"""Tables of a stranger's runs: no spreadsheet and no terminal does anything but show them."""

import csv
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rl_lab import cli
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from rl_lab.table_files import write_tables
from rl_lab.tables import MOST_NUMBERS, Table
from tests.hostile.conftest import Refused

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n@x",
            "＝1+1", "=", "-", "+1e5x", "-1;=2", "\x1b[2J=1")  # fmt: skip
HARMLESS = ("-5", "+3.5", "-1e-3", "a=b", "", "plain", "3-4", "'x", ".5")


@pytest.fixture
def evil(make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]) -> Run:
    run = make_run(make_recipe("cartpole"))
    recipe = yaml.safe_load(run.recipe_file.read_text())
    recipe |= {"name": "=1+1", "seed": "=2"}
    recipe["env"] = {"id": ["=x"]}
    recipe["algorithm"] = {"name": "@SUM(A1)\x1b]0;owned\x07"}
    run.recipe_file.write_text(yaml.dump(recipe))
    lines: list[Any] = [
        {"step": 1, "wall": 1, "=HYPERLINK(1)": 2.0, "\x1b[2J": 3.0, "\\x1b[2J": 4.0, "run": 5.0,
         "big": 1e99, "text": "=1", "nan": float("nan")},
        *({"step": 1, "wall": 1, "event": text, "message": text} for text in FORMULAS),
    ]  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    episodes = [{"seed": 10**30, "episode_return": "=1", "length": True, "success": 1}, [], "=1"]
    run.evaluation_file.write_text(
        json.dumps({"=1": {"model": "=1", "episodes": episodes, "return": {"mean": 1, "n": 1e300}},
                    "samples": [{"prompt": "=1", "policy": "-x", "gold": {"=g": [1, 2]}}, "="]})
    )  # fmt: skip
    return run


def cells(directory: Path) -> list[str]:
    found = []
    for path in directory.iterdir():
        with path.open(newline="", encoding="utf-8") as file:
            found += [cell for row in csv.reader(file) for cell in row]
    return found


def is_inert(text: str) -> bool:
    return not any(unicodedata.category(mark) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for mark in text)


def is_formula(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lstrip()[:1] in tuple("=+-@\t\r＝＋－＠")
    return False


def test_no_cell_of_csv_is_a_formula(evil: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["export", "test", "--format", "csv", "--output", str(tmp_path / "out")])
    assert end.value.code == 0
    found = cells(tmp_path / "out")
    assert not [cell for cell in found if is_formula(cell)]
    assert all(map(is_inert, found))
    assert "'=cmd|' /C calc'!A0" in found  # and yet it can be read
    assert "'=HYPERLINK(1)" in found


def test_parquet_is_inert_and_of_sound_types(evil: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["export", "test", "--format", "parquet", "--output", str(tmp_path / "out")])
    assert end.value.code == 0
    for path in (tmp_path / "out").iterdir():
        frame = pd.read_parquet(path)
        texts = [text for name in frame for text in frame[name] if isinstance(text, str)]
        assert all(map(is_inert, [*texts, *frame.columns]))
        assert frame["task"].isna().all()
        assert frame["seed"].isna().all()
    metrics = pd.read_parquet(tmp_path / "out" / "metrics.parquet")
    assert metrics["run"].tolist() == ["test"]
    assert {metrics[name].iloc[0] for name in metrics if "[2J" in name} == {3.0, 4.0}
    episodes = pd.read_parquet(tmp_path / "out" / "episodes.parquet")
    unsound = ["episode_seed", "return", "length", "success"]
    assert episodes.loc[0, unsound].isna().all()


@given(texts=st.lists(st.text() | st.sampled_from(FORMULAS + HARMLESS), min_size=1))
def test_any_text_is_no_formula(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    table = Table("t", {"=text": str}, lambda: iter([{"=text": text} for text in texts]))
    out = tmp_path_factory.mktemp("csv") / "out"
    write_tables([table], out, "csv")
    assert not [cell for cell in cells(out) if is_formula(cell) or not is_inert(cell)]


def test_harmless_texts_stay_as_they_are(tmp_path: Path) -> None:
    table = Table("t", {"n": int, "text": str}, lambda: iter({"n": 1, "text": t} for t in HARMLESS))
    write_tables([table], tmp_path / "out", "csv")
    assert [cell for cell in cells(tmp_path / "out") if cell != "1"] == ["n", "text", *HARMLESS]


def test_endless_names_of_numbers_are_refused(evil: Run, refused: Refused) -> None:
    line = {"step": 1, "wall": 1} | {f"n{count}": 1 for count in range(MOST_NUMBERS + 1)}
    evil.metrics_file.write_text(json.dumps(line) + "\n")
    assert "more than 2,000 different numbers" in refused("export", "test", "--format", "csv")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ((), "needs a run"),
        (("nothing", "--format", "csv"), "no run 'nothing'"),
        (("x" * 5000, "--format", "csv"), "no run 'xxx"),
        (("\0[", "--format", "csv"), "no run '"),
        (("test", "--format", "xls"), "xls"),
        (("test", "test"), "takes one run, not 2"),
        (("test", "--format", "csv", "--output", "\x1b[2J/x"), "there is no directory"),
    ],
)  # fmt: skip
def test_mistakes_are_a_sentence(
    tokens: tuple[str, ...], words: str, evil: Run, refused: Refused
) -> None:
    assert words in refused("export", *tokens)
