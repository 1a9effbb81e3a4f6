"""Where the time goes: a clock that is always in exactly one phase."""

import contextlib
import time
from collections.abc import Iterator


class PhaseClock:
    """Sums wall-clock seconds by phase (`environment`, `policy`, `update`, ...)."""

    def __init__(self, phase: str) -> None:
        self.seconds: dict[str, float] = {}
        self._phase = phase
        self._since = time.perf_counter()

    def enter(self, phase: str) -> str:
        """Switch to `phase` and return the one that was left."""
        now = time.perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        left, self._phase, self._since = self._phase, phase, now
        return left

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Spend a block in `phase`, then go back to the phase before it."""
        before = self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def stay(self) -> tuple[str, float]:
        """Return the phase it is in, and for how many seconds; may be asked from any thread."""
        return self._phase, time.perf_counter() - self._since

    def totals(self) -> dict[str, float]:
        """Return the seconds of each phase so far, the current one included."""
        self.enter(self._phase)
        return dict(self.seconds)
