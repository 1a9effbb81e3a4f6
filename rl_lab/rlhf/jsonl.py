"""JSON Lines: one JSON object a line, UTF-8."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rl_lab.errors import UserError
from rl_lab.files import write_atomically


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read every line.

    Raises:
        UserError: a line that is no JSON object, or no UTF-8.
    """
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path.name}, line {number}: should be a JSON object")
            rows.append(row)
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by the rows, atomically. Numbers must be finite."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomically(path, "".join(lines))
