"""JSON that somebody else may have written, as data that no code of ours stumbles over.

Run directories, preference files and models come from strangers as well. What is no number that a
float can calculate with becomes null; half a character (a lone surrogate) becomes a question mark.
"""

import json
from pathlib import Path
from typing import Any

DEEPEST = 100
"""Lists and objects within one another."""
LARGEST_NUMBER = 1e100
"""Beyond it squares would overflow."""
LARGEST_FILE = 64 * 2**20
"""Bytes of a file that is read whole."""


def parse(text: str | bytes) -> Any:
    """Parse JSON into plain data.

    Raises:
        ValueError: it is no JSON, no UTF-8, or nested deeper than DEEPEST.
    """
    try:
        return _plain(json.loads(text), DEEPEST)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_shallow(value: Any, levels: int = DEEPEST) -> bool:
    """Whether lists and objects are within one another no deeper than `levels`."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(is_shallow(item, levels - 1) for item in inner)


def _plain(value: Any, levels: int) -> Any:
    if levels < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {_encodable(key): _plain(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, levels - 1) for item in value]
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:  # not: NaN
        return None
    return value


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none, or no whole one.

    Never waits: a pipe in the place of a file is no file.
    """
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_FILE:
            return {}
        content = parse(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
