"""Noticing from outside that an environment does not come back, and where it is meanwhile."""

import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType

from rl_lab.metrics import MetricLog
from rl_lab.phases import PhaseClock

PATIENCE = 60.0
"""Seconds that a step of all copies may take before somebody is told."""


class Watchdog:
    """While in this context, a second thread tells of an environment that is stalled.

    It ends nothing: `env.timeout` does. Where the main thread is goes to stderr as a traceback.
    """

    def __init__(self, clock: PhaseClock, log: MetricLog, step: Callable[[], int]) -> None:
        """Keep what to watch.

        Args:
            clock: tells what the run is at.
            log: told of what is noticed.
            step: tells the run's step.
        """
        self._clock, self._log, self._step = clock, log, step
        self._over = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        told = False
        while not self._over.wait(min(1.0, PATIENCE)):
            phase, seconds = self._clock.stay()
            stalled = phase == "environment" and seconds > PATIENCE
            if stalled and not told:
                sentence = f"no answer from the environment for {seconds:.0f} s"
                self._log.event(self._step(), "stalled", sentence, "warning")
                frame = sys._current_frames()[self._watched]
                where = "".join(traceback.format_stack(frame))
                print(f"{sentence}; the run is at:\n{where}", file=sys.stderr)
            told = stalled

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
