"""Ways in which training is cut short, for tests that it goes on to the same bits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from rl_lab.metrics import Record
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.signals import StopRequest

CLOCKS = ("wall", "phase/", "time/", "rollout/tokens_per")


class Killed(BaseException):
    """As sudden as SIGKILL: nothing catches it."""


@contextmanager
def at_step(number: int, do: Callable[[], None]) -> Iterator[None]:
    """Do something right after the AdamW step of that number, counted from 1."""
    steps = 0

    def count(optimizer: Any, *_: Any) -> None:
        nonlocal steps
        steps += isinstance(optimizer, torch.optim.AdamW)
        if steps == number and isinstance(optimizer, torch.optim.AdamW):
            do()

    handle = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        handle.remove()


def kill() -> None:
    raise Killed


def ask(stop: StopRequest) -> Callable[[], None]:
    """What asks to stop, as Ctrl-C does."""

    def do() -> None:
        stop.signal = 2

    return do


def kill_after_snapshot(number: int, patch: pytest.MonkeyPatch) -> None:
    """Kill once the snapshot of that number, counted from 1, is on the disk."""
    write, written = Snapshots.write, 0

    def then_die(*arguments: Any) -> None:
        nonlocal written
        write(*arguments)
        written += 1
        if written == number:
            raise Killed

    patch.setattr(Snapshots, "write", then_die)


def damage(snapshot: Path) -> None:
    """Change a byte of a snapshot's weights."""
    file = next(snapshot.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def timeless(records: list[Record]) -> list[Record]:
    """The numbers logged, without clocks and events."""
    return [
        {name: value for name, value in record.items() if not name.startswith(CLOCKS)}
        for record in records
        if "event" not in record
    ]


def events(records: list[Record], kind: str) -> list[str]:
    """Messages of the events of a kind."""
    return [record["message"] for record in records if record.get("event") == kind]


def without_seconds(report: dict[str, Any]) -> dict[str, Any]:
    """A stage's report but for its clocks."""
    return {name: value for name, value in report.items() if name not in ("seconds", "phases")}
