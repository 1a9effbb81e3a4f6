"""Waiting for workers: showing their runs meanwhile, and passing on what asks them to end."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console

from rl_lab.dashboard import View
from rl_lab.signals import StopRequest
from rl_lab.workers import Workers


def supervise(
    workers: Workers,
    stop: StopRequest,
    more: Callable[[], bool],
    views: Sequence[View] | None,
    console: Console | None = None,
    heading: Callable[[], str] | None = None,
) -> None:
    """Wait until workers are done; the first signal asks them to end, a second Ctrl-C ends them.

    Args:
        workers: at work; none is left behind, whatever goes wrong.
        stop: entered by the caller, who says how the command ends.
        more: asked again and again; polls the workers, and says whether there is more to come.
        views: of the runs, which `more` may change; None: show nothing.
        console: where; standard output if not given.
        heading: a line above the runs, on a terminal.
    """

    def going_on() -> bool:
        if stop.signal is not None and not workers.stopping:
            workers.stop(stop.signal)
        return more()

    try:
        if views is None:
            while going_on():
                time.sleep(0.2)
        else:
            from rl_lab.follow import follow

            follow(views, going_on, console, heading)
    except KeyboardInterrupt:
        workers.kill()
    finally:
        workers.stop()
