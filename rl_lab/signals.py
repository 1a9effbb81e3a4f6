"""Ending early without losing anything: the first signal asks, a second Ctrl-C insists."""

import signal
from types import FrameType, TracebackType
from typing import Any


class Stopped(Exception):
    """Raised by `StopRequest.check`: what could be saved is saved by whoever catches it."""


class StopRequest:
    """While in this context, SIGINT, SIGTERM and SIGHUP do not end the process but set `signal`.

    Training looks at `signal` where it can stop cleanly. A second SIGINT raises KeyboardInterrupt
    at once. Signals can only be caught in the main thread; elsewhere the context does nothing.
    """

    CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process ended by the signal: for SIGINT 130."""
        return 128 + (self.signal or 0)

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.signal is not None:
            raise Stopped(f"asked to ({signal.Signals(self.signal).name})")

    def _catch(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __enter__(self) -> "StopRequest":
        try:
            for number in self.CAUGHT:
                self._before[number] = signal.signal(number, self._catch)
        except ValueError:  # not in the main thread
            pass
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
