"""A metrics.jsonl of any length, in bounded memory and time: what a screen or a report needs of it.

A run of a million lines would take minutes to parse. Here only some of its lines are, chosen
evenly, so that curves keep their shape; beside them every event and evaluation, which are rare, and
the newest lines. Short logs are kept whole. Whoever needs every line reads
`rl_lab.metrics.stream_metrics`.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rl_lab.metrics import Record, record_of

MOST = 5000
"""Lines kept of those chosen evenly, and again of events and evaluations."""
RECENT = 1000
"""Newest lines, kept besides."""
LAST = 10
"""Of these, so many are among `records`: its newest numbers; more would bend the curves."""
BLOCK = 2**22
"""Bytes read at once."""
HEAD = 80
"""Bytes of a line in which `MetricLog` says whether it is an event or an evaluation."""


class MetricSample:
    """Follows a metrics.jsonl that somebody else may be writing; `read` takes up what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lines = 0
        self.one_in = 1
        """Of so many lines one is kept, besides events, evaluations and the newest."""
        # By number of line; parsed when they are asked for.
        self._even: dict[int, bytes | Record] = {}
        self._rare: dict[int, bytes | Record] = {}
        self._rare_lines, self._rare_one_in = 0, 1
        self._newest: deque[tuple[int, bytes | Record]] = deque(maxlen=RECENT)
        self._records: list[Record] | None = []

    def read(self) -> "MetricSample":
        """Read on from where the last call ended."""
        for lines in self._new_lines():
            self._take(lines)
            self._records = None
        return self

    @property
    def records(self) -> list[Record]:
        """What is kept, in order, without what a resume wrote again."""
        if self._records is None:
            kept = self._even | self._rare | dict(list(self._newest)[-LAST:])
            found = (_parsed(kept[number]) for number in sorted(kept))
            self._records = [record for record in found if record]
        return self._records

    @property
    def recent(self) -> list[Record]:
        """The newest RECENT lines."""
        self._newest = deque(((n, _parsed(line)) for n, line in self._newest), maxlen=RECENT)
        return [record for _, record in self._newest if record]  # type: ignore[misc]

    def _new_lines(self) -> Iterator[list[bytes]]:
        """Whole lines, a block at a time."""
        if not self._path.is_file():  # nor is it a pipe, which would keep us waiting
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            begun = b""
            while block := file.read(BLOCK):
                *lines, begun = (begun + block).split(b"\n")
                if lines:
                    self._offset = file.tell() - len(begun)
                    yield lines

    def _take(self, lines: list[bytes]) -> None:
        first = self._lines
        self._lines += len(lines)
        start = -first % self.one_in
        numbers = range(first + start, self._lines, self.one_in)
        self._even |= zip(numbers, lines[start :: self.one_in], strict=True)
        while len(self._even) > MOST:
            self.one_in *= 2
            self._even = {n: line for n, line in self._even.items() if n % self.one_in == 0}
        newest = lines[-RECENT:]
        self._newest.extend(enumerate(newest, self._lines - len(newest)))
        # A key in escapes is not found; `MetricLog` writes none.
        rare = [(number, line) for number, line in enumerate(lines, first) if b'"ev' in line[:HEAD]]
        for number, line in rare:
            self._take_rare(number, record_of(line))

    def _take_rare(self, number: int, record: Record) -> None:
        kind = record.get("event")
        if kind in ("resumed", "restarted"):
            self._forget(number, record["step"] if kind == "resumed" else -1)
        if self._rare_lines % self._rare_one_in == 0:
            self._rare[number] = record
        self._rare_lines += 1
        if len(self._rare) > MOST:  # it has events without end: they are thinned out as well
            self._rare_one_in *= 2
            self._rare = dict(list(self._rare.items())[::2])

    def _forget(self, number: int, step: int) -> None:
        """Drop what was written before a line, and beyond a step: it was written again."""

        def kept(items: Iterator[tuple[int, bytes | Record]]) -> list[tuple[int, bytes | Record]]:
            parsed = ((n, _parsed(line) if n < number else line) for n, line in items)
            return [(n, line) for n, line in parsed if n >= number or _step(line) <= step]

        self._even = dict(kept(iter(self._even.items())))
        self._rare = dict(kept(iter(self._rare.items())))
        self._newest = deque(kept(iter(self._newest)), maxlen=RECENT)


def _parsed(line: bytes | Record) -> Record:
    return line if isinstance(line, dict) else record_of(line)


def _step(record: bytes | Record) -> float:
    """Its step; that of a damaged line is beyond all."""
    return record.get("step", float("inf")) if isinstance(record, dict) else float("inf")
