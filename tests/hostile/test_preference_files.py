"""Preference files from a stranger: each bad row numbered and counted, dropped or the run refused.

What makes a single row unusable is tested in `tests/rlhf/test_data_preferences.py`.
"""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rl_lab.errors import UserError
from rl_lab.rlhf.data import own_files
from rl_lab.rlhf.data.cleaning import Tally
from rl_lab.rlhf.data.own_check import check_file
from rl_lab.rlhf.data.own_data import prepare_own_data
from rl_lab.rlhf.data.own_files import read_table
from rl_lab.rlhf.data.preferences import read_preferences
from tests.hostile.conftest import Refused

SOUND = [
    {"prompt": f"about number {n}", "chosen": f"it is {n} of them", "rejected": f"who knows {n}"}
    for n in range(20)
]
PAIR = b'{"chosen": "a", "rejected": "b"}'

BAD_LINES: dict[str, tuple[bytes, str]] = {
    "half an object": (b'{"chosen": "a", ', "no JSON object"),
    "null": (b"null", "no JSON object"),
    "a number": (b"3", "no JSON object"),
    "a list": (b'["a", "b"]', "no JSON object"),
    "5,000 deep": (b'{"chosen": ' + b"[" * 5000 + b"]" * 5000 + b"}", "no JSON object"),
    "500 deep": (b'{"chosen": ' + b"[" * 500 + b"]" * 500 + b"}", "no JSON object"),
    "bad UTF-8": (b'{"chosen": "\xff\xfe", "rejected": "b"}', "no UTF-8 text"),
    "a key twice": (b'{"chosen": "a", "chosen": "c", "rejected": "b"}', "a key is given twice"),
    "null for a text": (b'{"chosen": null, "rejected": "b"}', "no chosen"),
    "a column missing": (b'{"rejected": "b"}', "no chosen"),
    "a number for a text": (b'{"chosen": 1, "rejected": "b"}', "chosen is neither text nor"),
    "an object for a text": (b'{"chosen": {}, "rejected": "b"}', "chosen is neither text nor"),
    "both the same": (b'{"chosen": "a", "rejected": "a"}', "chosen and rejected are the same"),
    "NaN": (PAIR[:-1] + b', "margin": NaN}', "margin is no number"),
    "Infinity": (PAIR[:-1] + b', "margin": Infinity}', "margin is no number"),
    "1e999": (PAIR[:-1] + b', "share": 1e999}', "share is no number"),
    "a number in words": (PAIR[:-1] + b', "margin": "3"}', "margin is no number"),
    "half a character": (b'{"chosen": "\\ud800", "rejected": "b"}', "half a character"),
    "NUL": (b'{"chosen": "a\\u0000b", "rejected": "b"}', "chosen holds a NUL character"),
    "NUL in a message": (
        b'{"chosen": [{"role": "user", "content": "a\\u0000"}], "rejected": "b"}', "NUL character",
    ),
}  # fmt: skip


def prepare(path: Path, refuse: bool) -> Any:
    return prepare_own_data(path, None, None, 0.2, 0.1, 1.0, (1, 100), refuse, 0, lambda _: None)


def write(path: Path, *lines: bytes) -> Path:
    rows = [json.dumps(row).encode() for row in SOUND]
    path.write_bytes(b"\n".join([*rows, *lines]) + b"\n")
    return path


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_row_is_dropped_and_counted_or_the_run_refused(name: str, tmp_path: Path) -> None:
    line, reason = BAD_LINES[name]
    path = write(tmp_path / "pairs.jsonl", line)
    dropped = prepare(path, refuse=False).report["cleaned"]["preferences"]
    assert (dropped["read"], dropped["kept"]) == (21, 20)
    assert [why for why in dropped["dropped"] if reason in why]
    (examples,) = dropped["dropped"].values()
    assert examples["count"] == 1
    assert examples["examples"][0]["line"] == 21
    with pytest.raises(UserError, match=rf"line 21: .*{reason}.*1 of 21 rows cannot be used"):
        prepare(path, refuse=True)
    json.dumps(check_file(path, 0.8), ensure_ascii=False).encode()


def test_what_is_odd_but_sound_is_read(tmp_path: Path) -> None:
    """A byte order mark, CRLF, blank lines, extra columns, a row of 400 kB, words of any script."""
    long = "word " * 80_000
    rows = [
        b'\xef\xbb\xbf{"chosen": "a", "rejected": "b", "note": {"deep": [1]}, "x": NaN}',
        b"",
        json.dumps({"chosen": long, "rejected": "感動的な 🎬"}, ensure_ascii=False).encode(),
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\r\n".join(rows) + b"\r\n")
    tally = Tally()
    pairs, lines = read_preferences(read_table(path, "text", tally), tally)
    assert lines == [1, 3]
    assert pairs[1].chosen == long
    assert check_file(path, 0.8)["kept"] == 2


def test_pairs_that_contradict_each_other_are_both_dropped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs.jsonl", PAIR, b'{"chosen": "b", "rejected": "a"}', PAIR + b" "
    )  # fmt: skip
    dropped = prepare(path, refuse=False).report["cleaned"]["preferences"]
    assert dropped["dropped"]["contradicted by another row"]["count"] == 3
    with pytest.raises(UserError, match="line 21: contradicted by another row"):
        prepare(path, refuse=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n\n\r\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (PAIR, "one usable row is too few"),
        (b"null\n3\n", "not one line, from line 1 on, is a row of data"),
        (b"\xff\xfe{\x00}\x00\n\x00", "not one line"),
        (b'{"chosen": "a"}\n{"chosen": "b"}\n', "no column 'rejected'"),
        (b'{"prompt": 1, "chosen": 2, "rejected": 3}', r"no usable pair among 1 rows \(line 1"),
        (b"[" * 5000, "one JSON array"),
        (b"{}\n" * 3, "no column"),
    ],
)
def test_a_file_of_nothing_usable_is_one_sentence(
    content: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        prepare(path, refuse=False)


def test_check_shows_hostile_rows_inert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    from rl_lab import cli

    path = write(tmp_path / "pairs.jsonl", b'{"chosen": "\\u001b]0;owned\\u0007[/]\\u202e"}')
    with pytest.raises(SystemExit) as ending:
        cli.main(["data", "check", str(path)])
    output = capsys.readouterr().out
    assert ending.value.code == 0
    assert "line 21" in output
    assert not {"\x1b", "\x07", "\u202e"} & set(output)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "no regular file" in refused("data", "check", str(tmp_path / "pipe.jsonl"))
    assert "no regular file" in refused("data", "check", str(tmp_path))


# --- Parquet -------------------------------------------------------------------------------------


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_columns_of_wrong_types_are_dropped_rows(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "pairs.parquet",
        {
            "chosen": pyarrow.array([{"a": 1}, {"a": 2}]),
            "rejected": pyarrow.array([[1], [2]]),
            "margin": pyarrow.array([b"x", b"y"]),
        },
    )
    with pytest.raises(UserError, match=r"no usable pair .*row 1: chosen is neither text nor"):
        check_file(path, 0.8)
    numbers = parquet(tmp_path / "n.parquet", {"chosen": [1, 2], "rejected": ["a", "b"]})
    with pytest.raises(UserError, match="chosen is neither text nor"):
        check_file(numbers, 0.8)


def test_a_parquet_file_of_bad_text_or_damage_is_refused(tmp_path: Path) -> None:
    bytes_as_text = pyarrow.array([b"\xff\xfe", b"a"]).view(pyarrow.string())
    bad = parquet(tmp_path / "bad.parquet", {"chosen": bytes_as_text, "rejected": ["a", "b"]})
    with pytest.raises(UserError, match="no UTF-8"):
        check_file(bad, 0.8)
    sound = parquet(tmp_path / "sound.parquet", {"chosen": ["a"] * 99, "rejected": ["b"] * 99})
    content = sound.read_bytes()
    for place in range(4, len(content) - 4, 37):
        damaged = bytearray(content)
        damaged[place : place + 8] = b"\xff" * 8
        path = tmp_path / "damaged.parquet"
        path.write_bytes(damaged)
        try:
            check_file(path, 0.8)
        except UserError as error:
            assert str(path) in str(error)  # some damage is in what nobody reads
    (tmp_path / "half.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot read"):
        check_file(tmp_path / "half.parquet", 0.8)


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "LARGEST_TABLE", 10_000_000)
    long = "x" * 100_000
    path = parquet(tmp_path / "bomb.parquet", {"chosen": [long] * 3000, "rejected": [long] * 3000})
    assert path.stat().st_size < 1_000_000
    with pytest.raises(UserError, match="more than 10,000,000 bytes"):
        check_file(path, 0.8)
