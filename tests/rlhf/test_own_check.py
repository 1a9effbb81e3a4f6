"""`rl-lab data check`: what is in a file, and what the data stage would make of it."""

import json
from pathlib import Path

import pytest

from rl_lab.commands.data import check
from rl_lab.errors import UserError
from rl_lab.rlhf.data.own_check import check_file
from rl_lab.rlhf.jsonl import write_jsonl


def pairs_file(path: Path, rows: int) -> Path:
    """Pairs of which each four ask the same prompt."""
    write_jsonl(
        path,
        [
            {"prompt": f"Tell me about number {row // 4}.", "chosen": f" It is good {row}.",
             "rejected": f" It is rather bad {row}.", "margin": 1.5}
            for row in range(rows)
        ],
    )  # fmt: skip
    return path


def test_check_reports_what_the_stage_would_do(tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "pairs.jsonl", 20)
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
    path = pairs_file(tmp_path / "pairs.jsonl", 8)
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
