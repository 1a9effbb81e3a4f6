"""What every panel is drawn with: courses, bars, states, durations, events.

Everything that comes from a run (names, events) is shown as inert text: see `rl_lab.text`.
"""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl_lab import vitals
from rl_lab.metrics import Record, latest
from rl_lab.run_view import RunView
from rl_lab.text import inert, inert_text, short

WIDE = 110
"""Columns from which a panel has two halves."""

STATE_STYLES = {
    "running": "bold green", "finished": "bold cyan", "stopped": "bold yellow",
    "failed": "bold red", "died": "bold red",
}  # fmt: skip
LEVEL_STYLES = {"warning": "yellow", "error": "bold red"}
BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw a course in at most `width` characters, from its lowest value to its highest."""
    if not values:
        return ""
    if len(values) > width:  # the mean of each stretch
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(values), max(values)
    flat = high - low <= 1e-9 * max(abs(low), abs(high))  # but for rounding
    scale = 0.0 if flat else (len(BLOCKS) - 1) / (high - low)
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def duration(seconds: float) -> str:
    """Say seconds as `7 s`, `3:05` or `1:02:09`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def newest(values: Sequence[float]) -> str:
    """Say the last of a course."""
    return short(values[-1]) if values else "–"


def line(text: str, style: str = "") -> Text:
    """`text`, made inert, in one line whatever the width."""
    return Text(inert(text), style, no_wrap=True, overflow="ellipsis")


def figure(value: float | None) -> str:
    """Say a number in at most seven characters, the same for all of a column of its size."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.1e}"
    decimals = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 or size == 0 else 3
    return f"{value:.{decimals}f}"


def share_done(view: RunView) -> float:
    """Progress, in [0, 1]; 0 where the end is not known."""
    return min(view.step / view.budget, 1.0) if view.budget else 0.0


def state(view: RunView) -> Text:
    """A run's state, and why it ended, where that was said."""
    text = Text(view.state, style=STATE_STYLES.get(view.state, ""))
    reason = view.status.get("reason")
    if reason:
        text.append(f": {inert(reason)}", style="default not bold")
    return text


def progress(view: RunView, rates: Sequence[str] = ()) -> RenderableType:
    """Two lines: a bar with the steps, then the times and the rates."""
    grid = Table.grid(padding=(0, 1))
    share = share_done(view)
    of = f"{view.step:,} of {view.budget:,}" if view.budget else f"{view.step:,}"
    grid.add_row(
        ProgressBar(total=1.0, completed=share, width=20, complete_style="cyan"),
        f"{share:4.0%}",
        inert_text(f"{of} {view.unit}"),
    )
    parts = [f"{duration(view.elapsed)} so far"]
    if view.seconds_left is not None:
        parts.append(f"{duration(view.seconds_left)} left")
    parts += rates
    if view.one_in > 1:
        parts.append(f"1 line in {view.one_in:,} of its log drawn")
    return Group(grid, Text(" · ".join(parts), style="dim", no_wrap=True))


def phases(records: list[Record]) -> Text:
    """Where the time goes, in one line."""
    shares = vitals.phases(records)
    text = Text("time  ", style="dim", no_wrap=True, overflow="ellipsis")
    text.append(" · ".join(f"{inert(name)} {share:.0%}" for name, share in shares.items()) or "–")
    return text


def system(view: RunView) -> Text:
    """What the training process takes of the machine; empty where it was not logged."""
    processor = latest(view.records, "system/cpu_percent")
    memory = latest(view.records, "system/memory_mb")
    if processor is None or memory is None:
        return Text()
    threads = view.recipe.get("threads", "?")
    return Text(inert(f"CPU {processor:.0f} % · {memory:,.0f} MB · threads {threads}"), style="dim")


def events(found: Sequence[Record], count: int) -> Table:
    """The newest events, a line each."""
    shown = found[-count:] if count > 0 else []
    kinds = max((len(inert(event["event"])) for event in shown), default=0)
    steps = max((len(f"{event['step']:,}") for event in shown), default=0)
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", justify="right", no_wrap=True, min_width=steps)
    table.add_column(style="dim", no_wrap=True, overflow="ellipsis", min_width=min(kinds, 12))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for event in shown:
        style = LEVEL_STYLES.get(event.get("level", ""), "")
        table.add_row(
            f"{event['step']:,}",
            inert_text(event["event"]),
            inert_text(event.get("message", ""), style),
        )
    return table
