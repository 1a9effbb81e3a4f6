"""The user's rows: used as they are, or dropped with a line number and a reason."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.errors import UserError
from rl_lab.rlhf.data.cleaning import Tally
from rl_lab.rlhf.data.own_files import read_table
from rl_lab.rlhf.data.pairs import Pair
from rl_lab.rlhf.data.preferences import Unusable, pair_of, read_preferences


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CHAT = [message("user", "hello"), message("assistant", "hi")]
OTHER_CHAT = [CHAT[0], message("assistant", "go away")]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_plain_rows_stay_as_they_are_written() -> None:
    row = {"prompt": "Q: x\n", "chosen": " yes ", "rejected": "no", "share": 0.75, "margin": 2}
    assert pair_of(row) == Pair("Q: x\n", " yes ", "no", share=0.75, margin=2.0)
    assert pair_of({"chosen": "a", "rejected": "b"}) == Pair("", "a", "b")


def test_what_two_conversations_begin_with_is_the_prompt() -> None:
    start = [message("system", "be brief"), message("user", "hello")]
    good, bad = message("assistant", "hi"), message("assistant", "go away")
    expected = Pair(start, [good], [bad])  # type: ignore[arg-type]
    assert pair_of({"chosen": [*start, good], "rejected": [*start, bad]}) == expected
    assert pair_of({"prompt": start, "chosen": [good], "rejected": [bad]}) == expected
    given_as_text = {"prompt": "hello", "chosen": [*start, good], "rejected": [*start, bad]}
    assert pair_of(given_as_text) == expected
    said_twice = {"prompt": start, "chosen": [*start, good], "rejected": [*start, bad]}
    assert pair_of(said_twice) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"rejected": "b"}, "no chosen"),
        ({"chosen": "a", "rejected": " "}, "rejected is empty"),
        ({"chosen": "a", "rejected": 3}, "rejected is neither text nor"),
        ({"chosen": "a", "rejected": "a"}, "the same"),
        ({"chosen": "a", "rejected": "b", "share": 0.4}, "share is not from 0.5 to 1"),
        ({"chosen": "a", "rejected": "b", "share": True}, "share is no number"),
        ({"chosen": "a", "rejected": "b", "margin": -1}, "margin is not at least 0"),
        ({"chosen": "a", "rejected": "b", "margin": float("nan")}, "margin is no number"),
        ({"chosen": "a", "rejected": "b", "margin": 10**400}, "margin is no number"),
        ({"chosen": "a", "rejected": "\ud83d"}, "half a character"),
        ({"chosen": "a", "rejected": [message("user", "b")]}, "one of chosen and rejected is text"),
        ({"chosen": [message("user", "a")], "rejected": [message("user", "b")]}, "continuations"),
        ({"chosen": [message("me", "a")], "rejected": [message("user", "b")]}, "role is none of"),
        ({"chosen": [{"role": "user"}], "rejected": [message("user", "b")]}, "without text"),
        ({"prompt": [message("user", "p")], "chosen": "a", "rejected": "b"}, "prompt is chat"),
        ({"prompt": "another", "chosen": CHAT, "rejected": OTHER_CHAT}, "prompt is text that no"),
        ({"prompt": CHAT[:1], "chosen": CHAT, "rejected": OTHER_CHAT[1:]}, "the other does not"),
        ({"prompt": CHAT[:1], "chosen": CHAT[:1], "rejected": CHAT}, "the prompt and no more"),
    ],
)
def test_unusable_rows_say_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        pair_of(row)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
sides = json_values | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}),
    max_size=3,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt": sides, "chosen": sides, "rejected": sides,
            "share": json_values, "margin": json_values,
        },
    )
)  # fmt: skip
def test_any_row_is_a_pair_or_unusable(row: dict[str, Any]) -> None:
    try:
        pair = pair_of(row)
    except Unusable:
        return
    json.dumps(pair.row(), ensure_ascii=False, allow_nan=False).encode()
    assert pair.chosen != pair.rejected


def test_repeated_and_contradicted_pairs_are_dropped_with_their_lines(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "pairs.jsonl",
        [
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            {"prompt": "q", "chosen": "a", "rejected": "b"},
            {"prompt": "q", "chosen": "b", "rejected": "a"},
            {"prompt": "q", "chosen": "a", "rejected": "c"},
            {"chosen": "a"},
            [1],
        ],
    )
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"chosen": \n')
    tally = Tally()
    pairs, lines = read_preferences(read_table(path, "text", tally), tally)
    assert [(pair.prompt, pair.rejected) for pair in pairs] == [("p", "b"), ("q", "c")]
    assert lines == [1, 5]
    assert {reason: [line for line, _ in rows] for reason, rows in tally.dropped.items()} == {
        "no JSON object": [7, 9],
        "no rejected": [6],
        "said before": [2],
        "contradicted by another row": [3, 4],
    }
    assert tally.read == 8


def test_parquet_and_text_files_are_read_as_well(tmp_path: Path) -> None:
    table = pyarrow.table({"chosen": ["a", None], "rejected": ["b", "c"], "margin": [None, 1.0]})
    pyarrow.parquet.write_table(table, tmp_path / "pairs.parquet")
    tally = Tally()
    pairs, lines = read_preferences(read_table(tmp_path / "pairs.parquet", "text", tally), tally)
    assert (pairs, lines) == ([Pair("", "a", "b")], [1])
    assert tally.dropped["no chosen"][0][0] == 2
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n two \n")
    rows = read_table(tmp_path / "texts.txt", "text", Tally()).rows
    assert [(row.line, row.values) for row in rows] == [(1, {"text": "one"}), (3, {"text": "two"})]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b'[{"chosen": "a"}]', "one JSON array"),
        ("a.jsonl", b'\n \n[\n{"chosen": "a"}\n]\n', "one JSON array"),
        ("a.jsonl", b"\n\n", "the file is empty"),
        ("a.parquet", b"PAR1", "cannot read"),
        ("a.csv", b"chosen,rejected", r"end in .jsonl, .parquet or .txt"),
    ],
)
def test_unreadable_files_are_user_errors(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_table(tmp_path / name, "text", Tally())


def test_a_column_without_a_value_is_called_empty(tmp_path: Path) -> None:
    nothing = pyarrow.array([None, None], pyarrow.string())
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"chosen": nothing, "rejected": ["a", "b"]}), path)
    tally = Tally()
    with pytest.raises(UserError, match="the column 'chosen' is empty in every row"):
        read_preferences(read_table(path, "text", tally), tally)


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_table(tmp_path / "none.jsonl", "text", Tally())
    with pytest.raises(UserError, match="No such file"):
        read_table(tmp_path / "none.parquet", "text", Tally())
    path = write_lines(tmp_path / "a.jsonl", [{"chosen": "a", "reject": "b"}])
    tally = Tally()
    with pytest.raises(UserError, match=r"no column 'rejected' .*did you mean 'reject'"):
        read_preferences(read_table(path, "text", tally), tally)
