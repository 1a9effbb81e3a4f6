"""`rl-lab data check`: what is in a file, and what the data stage would make of it."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rl_lab.commands.data import check
from rl_lab.errors import UserError
from rl_lab.rlhf.data.own_check import check_file
from rl_lab.rlhf.jsonl import write_jsonl
from tests.rlhf.data_stage import own_pairs


def test_check_reports_what_the_stage_would_do(tmp_path: Path) -> None:
    path = own_pairs(tmp_path / "pairs.jsonl", 20)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"chosen": "only this"}\n')
    report = check_file(path, 0.8)
    assert (report["kind"], report["read"], report["kept"]) == ("preferences", 21, 20)
    assert (report["groups"], report["with margin"], report["with share"]) == (5, 20, 0)
    assert report["dropped"]["no rejected"]["examples"][0]["line"] == 21
    assert report["no space after prompt"] == 0
    (tmp_path / "texts.txt").write_text("a b c\na b c\n", encoding="utf-8")
    report = check_file(tmp_path / "texts.txt", 0.8)
    assert (report["kind"], report["kept"], report["words"]["text"]["max"]) == ("texts", 1, 3)
    write_jsonl(tmp_path / "other.jsonl", [{"question": "a"}])
    with pytest.raises(UserError, match="there are: question"):
        check_file(tmp_path / "other.jsonl", 0.8)


def test_check_command_prints_lines_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_pairs(tmp_path / "pairs.jsonl", 8)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"chosen": "\\u001b[31mred [/bold]"}\n')
    assert check(path) == 0
    printed = capsys.readouterr().out
    assert "8 usable" in printed
    assert "dropped 1: no rejected" in printed
    assert "line 9" in printed
    assert "\x1b[31mred" not in printed
    assert check(path, json=True) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 8


def test_a_file_that_cannot_be_split_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [{"chosen": "a", "rejected": "b"}])
    assert check(path) == 0
    assert "training would stop: one usable row is too few" in capsys.readouterr().out
    write_jsonl(path, [{"chosen": f"a {n}", "rejected": f"a {n + 1}"} for n in range(30)])
    assert "30 of 30 usable rows share texts" in check_file(path, 0.8)["cannot be split"]
    assert check_file(own_pairs(path, 20), 0.8)["cannot be split"] is None


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "told"),
    [
        ("Tell me", "good", " bad", 1),
        ("Tell me", " good", "bad", 1),
        ("Tell me ", "good", "bad", 0),
        ("Tell me:", "good", "bad", 0),
        ("日本語の文", "これは良い", "これは悪い", 0),
        ("这部电影", "很好", "不好", 0),
        ("หนังเรื่องนี้", "ดี", "แย่", 0),
        ("이 영화는", "좋다", " 나쁘다", 1),
    ],
)
def test_words_that_run_together_are_counted_where_scripts_use_spaces(
    tmp_path: Path, prompt: str, chosen: str, rejected: str, told: int
) -> None:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [{"prompt": prompt, "chosen": chosen, "rejected": rejected}])
    assert check_file(path, 0.8)["no space after prompt"] == told


def test_lines_that_are_no_rows_are_not_a_file_without_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("prompt,chosen,rejected\na,b,c\n")
    with pytest.raises(UserError, match="not one line, from line 1 on, is a row of data"):
        check_file(tmp_path / "a.jsonl", 0.8)


def test_what_is_dropped_of_a_parquet_file_are_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.parquet"
    nothing = pyarrow.array([None] * 3, pyarrow.string())
    table = pyarrow.table({"prompt": ["a b", None, "c d"], "chosen": nothing})
    pyarrow.parquet.write_table(table, path)
    report = check_file(path, 0.8)
    assert report["kind"] == "prompts"  # a column without a value does not make it pairs
    assert report["dropped"]["no prompt"]["examples"][0]["row"] == 2
    assert check(path) == 0
    assert "  row 2: " in capsys.readouterr().out
