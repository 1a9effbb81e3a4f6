"""JSON Lines: one JSON object a line, UTF-8."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rl_lab.files import write_atomically


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file that the lab wrote itself."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by the rows, atomically. Numbers must be finite."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomically(path, "".join(lines))
