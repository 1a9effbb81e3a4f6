"""MetricLog: a run's numbers and events, one JSON object a line, append-only.

Two kinds of line, told apart by their keys:

    {"step": 2048, "wall": 3.1, "rollout/ep_rew_mean": 21.5, ...}
    {"step": 2048, "wall": 3.1, "event": "checkpoint", "message": "...", "level": "info"}

`step` is the run's own clock (environment steps for an agent), `wall` the seconds of training so
far, summed over resumes. A line is complete when its newline is there: a reader skips a tail
without one, and a writer that finds one (a killed process left it) cuts it off.

A resumed run continues from a checkpoint, so it writes again the lines after it. The event
`resumed` says from which step; readers drop the earlier lines beyond that step. The event
`restarted` says that there was no checkpoint yet; readers drop every earlier line.
"""

import contextlib
import itertools
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from rl_lab.files import cut_partial_line, finite, writing
from rl_lab.plain_json import parse
from rl_lab.text import inert

Record = dict[str, Any]
Sink = Callable[[int, Mapping[str, float]], None]
Level = Literal["info", "warning", "error"]
LEVELS = get_args(Level)


class MetricLog:
    """Appends to one metrics.jsonl, and hands each line's numbers to the sinks as well."""

    def __init__(self, path: Path, sinks: tuple[Sink, ...] = ()) -> None:
        self.path = path
        with writing(path):
            cut_partial_line(path)
            self._file = path.open("ab", buffering=0)
        self._wall_before = last_wall(path)
        self._started = time.perf_counter()
        self._sinks = sinks
        self._lock = threading.Lock()  # a watchdog writes too

    @property
    def wall(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._wall_before + time.perf_counter() - self._started

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append one line of named numbers; NaN and infinity are written as null."""
        self._append({"step": step, "wall": round(self.wall, 3), **numbers})
        for sink in self._sinks:
            sink(step, numbers)

    def event(self, step: int, kind: str, message: str, level: Level = "info") -> None:
        """Append something that happened: `kind` is one word, `message` a sentence."""
        self._append(
            {
                "step": step,
                "wall": round(self.wall, 3),
                "event": kind,
                "message": message,
                "level": level,
            }
        )

    def remark(self, step: int, message: str) -> None:
        """Append a warning, and say it on standard error too."""
        self.event(step, "note", message, "warning")
        print(f"note: {inert(message)}", file=sys.stderr, flush=True)

    def _append(self, record: Record) -> None:
        """Write a whole line, or none of it.

        Raises:
            StorageError: none could be written.
        """
        text = json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock, writing(self.path):
            line, end = text.encode(), self._file.tell()
            try:
                while line:  # a disk that is nearly full takes a part first
                    line = line[self._file.write(line) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)
                raise

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


class MetricReader:
    """Follows a metrics.jsonl that somebody else may be writing; `read` gives what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.records: list[Record] = []
        """Every valid line so far, those that a resume wrote again removed."""

    def read(self) -> list[Record]:
        """Read on from where the last call ended, and return all records so far."""
        if not self._path.is_file():  # nor is it a pipe, which would keep us waiting
            return self.records
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            self._add(line)
        return self.records

    def _add(self, line: bytes) -> None:
        record = record_of(line)
        if not record:
            return  # a damaged line costs that line only
        if record.get("event") == "resumed":
            step = record["step"]
            self.records = [old for old in self.records if old["step"] <= step]
        elif record.get("event") == "restarted":
            self.records = []
        self.records.append(record)


def _sound(record: Any) -> Record:
    """A line as `MetricLog` could have written it; what it could not have is left out.

    Raises:
        ValueError: it has no step, or no time, or its event is no text.
    """
    if not isinstance(record, dict):
        raise ValueError("no object")
    step, wall = record.get("step"), record.get("wall")
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**63:
        raise ValueError("no step")
    if isinstance(wall, bool) or not isinstance(wall, int | float) or wall < 0:
        raise ValueError("no time")
    if "event" not in record:
        return {
            name: value
            for name, value in record.items()
            if value is None or isinstance(value, int | float)
        }
    said = {"event": record["event"], "message": record.get("message", "")}
    if not all(isinstance(text, str) for text in said.values()):
        raise ValueError("an event of no words")
    level = record.get("level")
    return {"step": step, "wall": wall, **said, "level": level if level in LEVELS else "info"}


def stream_metrics(path: Path) -> Iterator[Record]:
    """Yield what `read_metrics` returns record by record, however many there are.

    The file is read twice: what a resume wrote again is known from lines further on.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        # The number of each line that takes earlier ones back, and the last step it leaves.
        kept: list[tuple[int, int]] = []
        lines = 0
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            lines = number + 1
            if b'"event"' in line or b"\\" in line:  # a key may be written in escapes
                record = record_of(line)
                if record.get("event") == "resumed":
                    kept.append((number, record["step"]))
                elif record.get("event") == "restarted":
                    kept.append((number, -1))
        limit, limits = math.inf, []
        for number, step in reversed(kept):
            limit = min(limit, step)
            limits.append((number, limit))
        file.seek(0)
        for number, line in enumerate(itertools.islice(file, lines)):
            while limits and limits[-1][0] <= number:
                limits.pop()
            record = record_of(line)
            if record and record["step"] <= (limits[-1][1] if limits else math.inf):
                yield record


def record_of(line: bytes) -> Record:
    """The record of a line; empty where it is damaged."""
    try:
        return _sound(parse(line))
    except ValueError:
        return {}


def read_metrics(path: Path) -> list[Record]:
    """Return every record of a metrics.jsonl; empty if there is no such file."""
    return MetricReader(path).read()


def last_wall(path: Path) -> float:
    """Return the seconds of training that the last whole line tells of; 0 if there is none."""
    if not path.is_file():
        return 0.0
    size = path.stat().st_size
    with path.open("rb") as file:
        length = 0
        while length < size:
            length = min(size, max(2 * length, 2**16))
            file.seek(size - length)
            *lines, _ = file.read(length).split(b"\n")
            # The first may have begun earlier.
            for line in reversed(lines if length == size else lines[1:]):
                if record := record_of(line):
                    return float(record["wall"])
    return 0.0


def numbers_of(records: list[Record], name: str) -> tuple[list[int], list[float]]:
    """Return the steps and values at which `name` was logged as a finite number."""
    found = [
        (record["step"], record[name])
        for record in records
        if isinstance(record.get(name), int | float) and not isinstance(record[name], bool)
    ]
    return [step for step, _ in found], [value for _, value in found]


def latest(records: list[Record], name: str) -> float | None:
    """Return the newest value of `name`, or None if it was never logged."""
    for record in reversed(records):
        value = record.get(name)
        if isinstance(value, int | float):
            return value
    return None
