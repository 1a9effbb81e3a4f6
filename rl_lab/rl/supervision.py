"""One copy of an environment that may raise or hang: what happened is told, not only suffered."""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import gymnasium

from rl_lab.seeding import stream

FAILED = "rl_lab_failed"
"""Key of an `info` whose step failed: its value is the traceback."""

MakeWithSeeds = Callable[[list[int]], gymnasium.Env]


class StepTimeoutError(Exception):
    """A step or a reset took longer than the recipe allows."""


class Supervised(gymnasium.Wrapper):
    """Outermost around a copy: an exception in it ends the episode, and a new copy takes its place.

    The episode is cut off (truncated) with the new copy's first observation, reward 0 and the
    traceback in `info[FAILED]`. Whether the run goes on is for `WatchedVecEnv` to say.
    """

    def __init__(self, make: MakeWithSeeds, seeds: list[int], timeout: float | None) -> None:
        """Make the copy.

        Args:
            make: makes it, given the seeds of its first resets.
            seeds: of its first resets.
            timeout: seconds that a step or reset may take; None: any. It needs SIGALRM and the main
                thread, and cannot end code that never comes back to Python.
        """
        super().__init__(make(list(seeds)))
        self._make, self._seed, self._timeout = make, seeds[0] if seeds else 0, timeout
        self.failures = 0
        """Times that it was replaced."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        try:
            with _limit(self._timeout):
                return self.env.reset(seed=seed, options=options)
        except Exception:
            observation, failed = self._start_anew()
            return observation, failed

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            with _limit(self._timeout):
                return self.env.step(action)
        except Exception:
            observation, failed = self._start_anew()
            return observation, 0.0, False, True, failed

    def count_failures(self, failures: int) -> None:
        """Go on counting from here: a resumed run must not replace a copy by the same one again."""
        self.failures = failures

    def _start_anew(self) -> tuple[Any, dict[str, Any]]:
        """Replace the copy; called while an exception is handled.

        A new copy that fails as well is no accident: its exception is raised.
        """
        told = traceback.format_exc()
        self.failures += 1
        with suppress(Exception):
            self.env.close()
        self.env = self._make(stream(self._seed, 0, 1, self.failures))
        observation, _ = self.env.reset()
        return observation, {FAILED: told}


@contextmanager
def _limit(seconds: float | None) -> Iterator[None]:
    """Raise StepTimeoutError in a block that takes longer."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise StepTimeoutError(f"it took longer than {seconds:g} s (env.timeout)")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
