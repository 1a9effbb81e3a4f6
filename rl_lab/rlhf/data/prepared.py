"""What every source of data hands over, whatever it began with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Say = Callable[[str], None]
"""Called with a sentence before each part of the work."""


@dataclass
class Prepared:
    """Rows by file name (without `.jsonl`), and the report of what went where and why."""

    files: dict[str, list[Row]]
    report: dict[str, Any]
