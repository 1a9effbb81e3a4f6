"""Waiting for workers: showing their runs meanwhile, and passing on what asks them to end."""

import time
from collections.abc import Callable

from rl_lab.engines.workers import Workers
from rl_lab.signals import StopRequest


def supervise(
    workers: Workers,
    stop: StopRequest,
    more: Callable[[], bool],
    show: Callable[[Callable[[], bool]], None] | None,
) -> None:
    """Wait until workers are done; the first signal asks them to end, a second Ctrl-C ends them.

    Args:
        workers: at work; none is left behind, whatever goes wrong.
        stop: entered by the caller, who says how the command ends.
        more: asked again and again; polls the workers, and says whether there is more to come.
        show: shows how far they are for as long as what it is given, asked now and then, says so;
            None: show nothing.
    """

    def going_on() -> bool:
        if stop.signal is not None and not workers.stopping:
            workers.stop(stop.signal)
        return more()

    try:
        if show is not None:
            show(going_on)
        else:
            while going_on():
                time.sleep(0.2)
    except KeyboardInterrupt:
        workers.kill()
    finally:
        workers.stop()
