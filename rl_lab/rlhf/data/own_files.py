"""Rows of the user's own files: JSONL, Parquet or plain text, each with its line number.

Nothing is guessed. A file that cannot be read at all is an error that names the place; a row that
cannot be used is dropped and counted, by `preferences.py` and its neighbours.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rl_lab.errors import UserError, nearest
from rl_lab.files import is_file, is_there
from rl_lab.plain_json import is_shallow
from rl_lab.rlhf.data.cleaning import Tally

LARGEST_TABLE = 4 * 2**30
"""Bytes of a Parquet file's rows, unpacked."""
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
    """Every column that any row has, or that a Parquet file tells of."""

    @cached_property
    def filled(self) -> set[str]:
        """The columns that any row has a value in."""
        return {
            name for row in self.rows for name, value in row.values.items() if value is not None
        }

    def require_rows(self) -> None:
        """Refuse a file whose lines are no rows, such as one of another format.

        Raises:
            UserError: there is not one row.
        """
        if not self.rows:
            raise UserError(f"{self.path}: not one line, from line 1 on, is a row of data")

    def require(self, *names: str) -> None:
        """Refuse the file if it has not these columns.

        Raises:
            UserError: the first column that is missing, and which there are; or that is empty.
        """
        self.require_rows()
        for name in names:
            if name in self.columns and name not in self.filled:
                raise UserError(f"{self.path}: the column {name!r} is empty in every row")
            if name not in self.columns:
                there = ", ".join(sorted(self.columns)[:12]) or "none"
                hint = nearest(name, self.columns)
                raise UserError(f"{self.path}: no column {name!r} (there are: {there}){hint}")


def read_table(path: Path, text_column: str, tally: Tally) -> Table:
    """Read a file by its ending: .jsonl, .ndjson, .json, .parquet, .txt.

    Args:
        path: the file.
        text_column: what the lines of a plain text file are called.
        tally: counts every row, and those that are no UTF-8 or no JSON object.

    Raises:
        UserError: there is no such file, it is no Parquet, or of another ending.
    """
    if is_there(path) and not is_file(path):  # a directory, or a pipe that would hang
        raise UserError(f"cannot read {path}: it is no regular file")
    ending = path.suffix.lower()
    columns: set[str] = set()
    if ending == ".parquet":
        tally.unit = "row"
        rows, columns = _parquet(path)
    elif ending == ".txt":
        rows = [FileRow(number, {text_column: line}) for number, line in _lines(path, tally)]
    elif ending in JSON_LINES:
        rows = list(_json_lines(path, tally))
    else:
        raise UserError(
            f"{path}: files end in .jsonl, .parquet or .txt, so that it is clear how to read them"
        )
    tally.read += len(rows)
    if not tally.read:
        raise UserError(f"{path}: the file is empty")
    return Table(path, rows, columns.union(*(row.values for row in rows)))


def _lines(path: Path, tally: Tally) -> Iterator[tuple[int, str]]:
    """Lines that hold anything, with their numbers."""
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # its name holds a NUL
        raise UserError(f"cannot read {path}: No such file or directory") from None
    # Not splitlines: a JSON string may hold U+2028, which is no end of a line.
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            tally.read += 1
            tally.drop("no UTF-8 text", line.decode("utf-8", "backslashreplace"), number)
            continue
        if text:
            yield number, text


def _json_lines(path: Path, tally: Tally) -> Iterator[FileRow]:
    first = True
    for number, line in _lines(path, tally):
        if first and line.startswith("["):
            raise UserError(f"{path}: one JSON array; write one object a line (JSON Lines)")
        first, reason = False, "no JSON object"
        try:
            values = json.loads(line, object_pairs_hook=_once)
        except _GivenTwiceError as fault:
            values, reason = None, str(fault)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict) and is_shallow(values):
            yield FileRow(number, values)
        else:
            tally.read += 1
            tally.drop(reason, line, number)


class _GivenTwiceError(ValueError):
    """A row says a thing twice: nobody can tell which was meant."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these keys and values, each key once."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _GivenTwiceError("a key is given twice")
    return values


def _parquet(path: Path) -> tuple[list[FileRow], set[str]]:
    """The rows, and the names of the columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        values: list[dict[str, Any]] = []
        unpacked = 0
        # A few kilobytes can stand for any number of equal rows.
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(batch_size=1000):
            unpacked += batch.nbytes
            if unpacked > LARGEST_TABLE:
                raise UserError(f"{path}: its rows are more than {LARGEST_TABLE:,} bytes")
            values += batch.to_pylist()
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: a text is no UTF-8 ({error.reason})") from None
    except OSError as error:
        reason = error.strerror or "no Parquet file"
        raise UserError(f"cannot read {path}: {reason}") from None
    except pyarrow.ArrowException as error:
        first = str(error).splitlines()[0]
        raise UserError(f"cannot read {path}: {first}") from None
    # A column that only some rows have is null in the others.
    given = [{name: value for name, value in row.items() if value is not None} for row in values]
    rows = [FileRow(number, row) for number, row in enumerate(given, start=1)]
    return rows, set(file.schema_arrow.names)
