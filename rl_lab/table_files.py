"""Tables as files, Parquet or CSV, written batch by batch: a long log is never whole in memory.

Texts are made inert in both (`rl_lab.text`), names of columns too. In CSV, what a spreadsheet would
take for a formula gets an apostrophe before it.
"""

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from rl_lab.files import new_directory
from rl_lab.tables import Kind, Row, Table
from rl_lab.text import inert

Format = Literal["parquet", "csv"]

BATCH = 2000
"""Rows that are in memory at a time."""

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_FORMULA = "=+-@\t\r\n＝＋－＠"
"""What may begin a formula (OWASP, "CSV Injection"), the full-width forms too."""


def write_tables(
    tables: Sequence[Table], directory: Path, form: Format
) -> dict[str, tuple[int, int]]:
    """Write each table that has rows as `directory/<name>.<form>`.

    Args:
        tables: what to write.
        directory: is made; it must not exist.
        form: of the files.

    Returns:
        Rows and columns of each file, by its name.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    written = {}
    write = _write_parquet if form == "parquet" else _write_csv
    with new_directory(directory) as temporary:
        for table in tables:
            file = temporary / f"{table.name}.{form}"
            count = write(table, file)
            if count:
                written[file.name] = (count, len(table.columns))
            else:
                file.unlink()
    return written


def _batches(table: Table) -> Iterator[list[Row]]:
    """Rows whose values are of their columns' types, or None."""
    rows = table.rows()
    while batch := list(itertools.islice(rows, BATCH)):
        yield [
            {name: _sound(row.get(name), kind) for name, kind in table.columns.items()}
            for row in batch
        ]


def _sound(value: Any, kind: Kind) -> Any:
    """`value` as `kind`; None if it is of another, or too large."""
    if kind is str:
        return inert(value) if isinstance(value, str) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind is float:
        return float(value)
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _headings(table: Table) -> list[str]:
    """The names of the columns, inert and each its own."""
    headings: list[str] = []
    for column in table.columns:
        heading = inert(column)
        while heading in headings:
            heading += "_"
        headings.append(heading)
    return headings


def _write_parquet(table: Table, file: Path) -> int:
    headings = _headings(table)
    schema = pa.schema(
        [(name, _ARROW[kind]) for name, kind in zip(headings, table.columns.values(), strict=True)]
    )
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(table):
            columns = [
                pa.array([row[name] for row in batch], field.type)
                for name, field in zip(table.columns, schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(batch)
    return count


def _write_csv(table: Table, file: Path) -> int:
    count = 0
    with file.open("w", encoding="utf-8", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow([_not_a_formula(name) for name in _headings(table)])
        for batch in _batches(table):
            for row in batch:
                writer.writerow(
                    [
                        _not_a_formula(cell) if isinstance(cell, str) else cell
                        for cell in row.values()
                    ]
                )
            count += len(batch)
    return count


def _not_a_formula(text: str) -> str:
    """The text, with an apostrophe before what is no number and could be taken for a formula."""
    risky = text.lstrip()[:1] in _FORMULA and not _NUMBER.fullmatch(text)
    return f"'{text}" if risky and text.strip() else text
