"""Following runs: redrawn in place on a terminal, else a plain line now and then."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rl_lab.screens.dashboard import View, plain_line, render
from rl_lab.text import inert_text

LOOKS_PER_SECOND = 2
SHARE = 0.01
"""Of a processor that redrawing may take: it must not slow down the runs it shows."""
SECONDS_BETWEEN_LINES = 5.0
ROOM_FOR_ECHO = 2
"""Columns left free on a terminal: where it echoes ^C, which would otherwise wrap."""


def follow(
    views: Sequence[View],
    more: Callable[[], bool],
    console: Console | None = None,
    heading: Callable[[], str] | None = None,
) -> None:
    """Show runs for as long as `more`, asked twice a second, says so; then once more.

    A screen is redrawn as often, or as seldom as its drawing takes SHARE of a processor.

    Args:
        views: what to show; `more` may change them.
        more: whether to go on.
        console: where; standard output if not given.
        heading: a line above the runs, on a terminal.
    """
    console = console or Console()
    if console.is_terminal and not console.is_dumb_terminal:
        _follow_live(views, more, console, heading)
    else:
        _follow_plainly(views, more, console)


def _follow_live(
    views: Sequence[View],
    more: Callable[[], bool],
    console: Console,
    heading: Callable[[], str] | None,
) -> None:
    next_drawing = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            going_on = more()
            if not going_on or time.monotonic() >= next_drawing:
                began = time.process_time()
                for view in views:
                    view.refresh()
                # A line stays free, too: after the end the cursor stands there.
                width, height = console.width - ROOM_FOR_ECHO, console.height - 1
                drawn = render(views, width, height - (heading is not None))
                if heading is not None:
                    drawn = Group(inert_text(heading(), "bold"), drawn)
                live.update(drawn, refresh=True)
                next_drawing = time.monotonic() + (time.process_time() - began) / SHARE
            if not going_on:
                return
            time.sleep(1 / LOOKS_PER_SECOND)


def _follow_plainly(views: Sequence[View], more: Callable[[], bool], console: Console) -> None:
    printed: dict[Path, str] = {}
    at_first = {view.run.path: view.run.status for view in views}
    next_lines = time.monotonic() + SECONDS_BETWEEN_LINES
    while True:
        going_on = more()
        if not going_on or time.monotonic() >= next_lines:
            next_lines = time.monotonic() + SECONDS_BETWEEN_LINES
            for view in views:
                view.refresh()
                # What had ended when this began may be about to go on.
                same = not view.live and view.run.status == at_first.get(view.run.path)
                waiting = going_on and (view.state == "created" or same)
                line = plain_line(view)
                if printed.get(view.run.path) != line and not waiting:
                    printed[view.run.path] = line
                    console.print(Text(line), soft_wrap=True)
        if not going_on:
            return
        time.sleep(1 / LOOKS_PER_SECOND)
