"""Rows of the user's own files: JSONL, Parquet or plain text, each with its line number.

Nothing is guessed. A file that cannot be read at all is an error that names the place; a row that
cannot be used is dropped and counted, by `preferences.py` and its neighbours.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_lab.errors import UserError, nearest
from rl_lab.rlhf.data.cleaning import Tally

JSON_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class FileRow:
    """One row of a file."""

    line: int
    """From 1; in a Parquet file, which has no lines, the number of the row."""
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of one file that are rows at all."""

    path: Path
    rows: list[FileRow]
    columns: set[str]
    """Every column that any row has."""

    def require(self, *names: str) -> None:
        """Refuse the file if it has not these columns.

        Raises:
            UserError: the first column that is missing, and which there are.
        """
        for name in names:
            if name not in self.columns:
                if not self.rows:
                    raise UserError(f"{self.path}: not one line, from line 1 on, is a row of data")
                there = ", ".join(sorted(self.columns)[:12]) or "none"
                hint = nearest(name, self.columns)
                raise UserError(f"{self.path}: no column {name!r} (there are: {there}){hint}")


def read_table(path: Path, text_column: str, tally: Tally) -> Table:
    """Read a file by its ending: .jsonl, .ndjson, .json, .parquet, .txt.

    Args:
        path: the file.
        text_column: what the lines of a plain text file are called.
        tally: counts every row, and those that are no JSON object.

    Raises:
        UserError: there is no such file, it is no UTF-8, no Parquet, or of another ending.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        rows = list(_parquet(path))
    elif ending == ".txt":
        rows = [FileRow(number, {text_column: line}) for number, line in _lines(path)]
    elif ending in JSON_LINES:
        rows = list(_json_lines(path, tally))
    else:
        raise UserError(
            f"{path}: files end in .jsonl, .parquet or .txt, so that it is clear how to read them"
        )
    tally.read += len(rows)
    if not tally.read:
        raise UserError(f"{path}: the file is empty")
    return Table(path, rows, {name for row in rows for name in row.values})


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold anything, with their numbers."""
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    # Not splitlines: a JSON string may hold U+2028, which is no end of a line.
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: no UTF-8 text ({error.reason})") from None
        if text:
            yield number, text


def _json_lines(path: Path, tally: Tally) -> Iterator[FileRow]:
    for number, line in _lines(path):
        if number == 1 and line.startswith("["):
            raise UserError(f"{path}: one JSON array; write one object a line (JSON Lines)")
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            yield FileRow(number, values)
        else:
            tally.read += 1
            tally.drop("no JSON object", line, number)


def _parquet(path: Path) -> Iterator[FileRow]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        values = [row for batch in batches for row in batch.to_pylist()]
    except OSError as error:
        reason = error.strerror or "no Parquet file"
        raise UserError(f"cannot read {path}: {reason}") from None
    except pyarrow.ArrowException as error:
        first = str(error).splitlines()[0]
        raise UserError(f"cannot read {path}: {first}") from None
    for number, row in enumerate(values, start=1):
        # A column that only some rows have is null in the others.
        yield FileRow(number, {name: value for name, value in row.items() if value is not None})
