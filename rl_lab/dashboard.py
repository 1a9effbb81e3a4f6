"""Drawing runs: one in full, several as a table, or each as a plain line.

Everything that comes from a run (names, events) is shown as inert text: see `rl_lab.text`.
"""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl_lab import vitals
from rl_lab.metrics import latest
from rl_lab.run_view import RunView
from rl_lab.text import inert, inert_text, short

WIDE = 110
"""Columns from which a run's panel has two halves."""

STATE_STYLES = {
    "running": "bold green", "finished": "bold cyan", "stopped": "bold yellow",
    "failed": "bold red", "died": "bold red",
}  # fmt: skip
LEVEL_STYLES = {"warning": "yellow", "error": "bold red"}
BLOCKS = "▁▂▃▄▅▆▇█"


def render(views: Sequence[RunView], width: int, height: int = 50) -> RenderableType:
    """Draw one run in full, or several as a table with their aggregate.

    Args:
        views: the runs, refreshed.
        width: columns of the terminal; 80 is enough, from WIDE on a run's panel has two halves.
        height: lines of the terminal; 24 is enough, and more show more events.
    """
    return _render_run(views[0], width, height) if len(views) == 1 else _render_group(views, width)


def _render_run(view: RunView, width: int, height: int) -> Panel:
    algorithm = view.recipe.get("algorithm", {}).get("name", "?")
    environment = view.recipe.get("env", {}).get("id", "?")
    head = Text(inert(f"{str(algorithm).upper()} on {environment}"), style="bold")
    head.append(inert(f" · seed {view.recipe.get('seed', '?')}"), style="dim")
    inner = width - 4
    left = Group(
        head, _progress(view), Text(), _returns(view, inner if width < WIDE else inner // 2)
    )
    right = Group(_vitals(view), Text(), _phases(view), _system(view))
    # Lines besides the events: borders, blanks, and the two parts below or beside each other.
    vital_lines = max(len(view.vitals), 1) + 3
    if width < WIDE:
        body: RenderableType = Group(left, Text(), right)
        lines = 12 + vital_lines
    else:
        lines = 4 + max(7, vital_lines + 1)
        body = Table.grid(expand=True, padding=(0, 2))
        body.add_column(ratio=1)
        body.add_column(ratio=1)
        body.add_row(left, right)
    return Panel(
        Group(body, Text(), _events(view, max(1, min(8, height - lines)))),
        title=inert_text(view.run.name),
        subtitle=_state(view),
        width=width,
    )


def _state(view: RunView) -> Text:
    text = Text(view.state, style=STATE_STYLES.get(view.state, ""))
    reason = view.status.get("reason")
    if reason:
        text.append(f": {inert(reason)}", style="default not bold")
    return text


def _progress(view: RunView) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    share = min(view.step / view.budget, 1.0) if view.budget else 0.0
    grid.add_row(
        ProgressBar(total=1.0, completed=share, width=20, complete_style="cyan"),
        f"{share:4.0%}",
        f"{view.step:,} of {view.budget:,} steps",
    )
    rate, left = view.steps_per_second, view.seconds_left
    parts = [f"{duration(view.elapsed)} so far"]
    if left is not None:
        parts.append(f"{duration(left)} left")
    if rate is not None:
        parts.append(f"{rate:,.0f} steps/s")
    return Group(grid, Text(" · ".join(parts), style="dim"))


def _returns(view: RunView, width: int) -> Table:
    """Training and evaluation return: the newest number, its course, what it is measured on."""
    table = Table.grid(padding=(0, 1))
    columns = max(8, min(40, width - 40))
    training, evaluation = view.training_returns, view.evaluation_returns
    table.add_row(
        "return", _newest(training), Text(sparkline(training, columns), style="green"),
        Text("last 100 episodes", style="dim"),
    )  # fmt: skip
    episodes = view.recipe.get("evaluation", {}).get("episodes", "?")
    table.add_row(
        "evaluation", _newest(evaluation), Text(sparkline(evaluation, columns), style="cyan"),
        Text(inert(f"{episodes} episodes each"), style="dim"),
    )  # fmt: skip
    best, target = view.status.get("best"), view.recipe.get("target_return")
    if best:
        goal = f"target {target:g}" if isinstance(target, int | float) else ""
        reached = bool(goal) and best["return"] >= target
        table.add_row(
            "best", short(best["return"]), Text(f"at step {best['step']:,}", style="dim"),
            Text(f"{goal} {'reached' if reached else ''}", style="green" if reached else "dim"),
        )  # fmt: skip
    return table


def _newest(values: list[float]) -> str:
    return short(values[-1]) if values else "–"


def _vitals(view: RunView) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for reading in view.vitals:
        warning = Text(f"← {reading.warning}", style="bold yellow") if reading.warning else Text()
        table.add_row(Text(reading.label), Text(f"{reading.value:.4g}", justify="right"), warning)
    return table if table.row_count else Text("no update yet", style="dim")


def _phases(view: RunView) -> Text:
    shares = vitals.phases(view.records)
    text = Text("time  ", style="dim")
    text.append(" · ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "–")
    return text


def _system(view: RunView) -> Text:
    processor = latest(view.records, "system/cpu_percent")
    memory = latest(view.records, "system/memory_mb")
    if processor is None or memory is None:
        return Text()
    threads = view.recipe.get("threads", "?")
    return Text(inert(f"CPU {processor:.0f} % · {memory:,.0f} MB · threads {threads}"), style="dim")


def _events(view: RunView, count: int) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", justify="right", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for event in view.events[-count:]:
        style = LEVEL_STYLES.get(event.get("level", ""), "")
        table.add_row(
            f"{event['step']:,}",
            inert_text(event["event"]),
            inert_text(event.get("message", ""), style),
        )
    return table


def _render_group(views: Sequence[RunView], width: int) -> Panel:
    """One row a run, then what they have in common."""
    table = Table(expand=True, box=None, padding=(0, 1), show_footer=len(views) > 1)
    names = [view.run.name for view in views]
    groups = {name.rpartition("-")[0] for name in names}
    shared = f"{groups.pop()}-" if len(groups) == 1 else ""  # `cartpole-` of its seeds
    columns = {
        "run": [inert_text(name.removeprefix(shared)) for name in names],
        "state": [Text(view.state, style=STATE_STYLES.get(view.state, "")) for view in views],
        "done": [_done(view) for view in views],
        "return": [Text(_newest(view.training_returns)) for view in views],
        "eval": [Text(_newest(view.evaluation_returns)) for view in views],
        "best": [Text(_best(view)) for view in views],
    }
    if width >= WIDE:
        columns["left"] = [
            Text(duration(view.seconds_left) if view.seconds_left is not None else "")
            for view in views
        ]
        columns["course"] = [
            Text(sparkline(view.evaluation_returns, max(8, width - 100)), style="cyan")
            for view in views
        ]
    columns["warnings"] = [Text(", ".join(_warnings(view)), style="yellow") for view in views]
    footers = {
        "run": "mean (n)",
        "return": _mean([view.training_returns for view in views]),
        "eval": _mean([view.evaluation_returns for view in views]),
        "best": _mean(
            [[view.status["best"]["return"]] for view in views if view.status.get("best")]
        ),
    }
    for name, cells in columns.items():
        numeric = name in ("done", "return", "eval", "best", "left")
        footer = footers.get(name, "")
        widest = max(len(text) for text in (name, footer, *map(str, cells)))
        table.add_column(
            name,
            footer=footer,
            justify="right" if numeric else "left",
            min_width=widest
            if numeric or (name == "run" and shared)
            else None,  # other words give way
            ratio=1 if name == "warnings" else None,
            no_wrap=True,
            overflow="ellipsis",
            header_style="dim",
            footer_style="bold",
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    title = inert_text(f"{len(views)} runs{' of ' if shared else ''}{shared.removesuffix('-')}")
    return Panel(table, title=title, subtitle=_group_state(views), width=width)


def _group_state(views: Sequence[RunView]) -> str:
    """How many run and are done, their speed together, and how long all of them still take."""
    running = [view for view in views if view.state == "running"]
    parts = [f"{len(running)} running", f"{sum(not view.live for view in views)} ended"]
    rates = [view.steps_per_second for view in running if view.steps_per_second]
    if rates:
        steps = sum(max(view.budget - view.step, 0) for view in views if view.live)
        parts.append(f"{sum(rates):,.0f} steps/s")
        parts.append(f"{duration(steps / sum(rates))} left")
    return " · ".join(parts)


def _warnings(view: RunView) -> list[str]:
    return [f"{reading.label} {reading.warning}" for reading in view.vitals if reading.warning]


def _done(view: RunView) -> Text:
    return Text(f"{min(view.step / view.budget, 1.0):.0%}" if view.budget else "–")


def _best(view: RunView) -> str:
    best = view.status.get("best")
    return short(best["return"]) if best else "–"


def _mean(courses: list[list[float]]) -> str:
    newest = [course[-1] for course in courses if course]
    return f"{short(sum(newest) / len(newest))} ({len(newest)})" if newest else "–"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw a course in at most `width` characters, from its lowest value to its highest."""
    if not values:
        return ""
    if len(values) > width:  # the mean of each stretch
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(values), max(values)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def duration(seconds: float) -> str:
    """Say seconds as `7 s`, `3:05` or `1:02:09`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plain_line(view: RunView) -> str:
    """One run in one line, for logs and pipes."""
    share = min(view.step / view.budget, 1.0) if view.budget else 0.0
    parts = [
        inert(view.run.name),
        view.state,
        f"{share:.0%}",
        f"{view.step:,}/{view.budget:,} steps",
    ]
    if view.steps_per_second is not None:
        parts.append(f"{view.steps_per_second:,.0f}/s")
    if view.seconds_left is not None:
        parts.append(f"{duration(view.seconds_left)} left")
    parts.append(f"return {_newest(view.training_returns)}")
    parts.append(f"evaluation {_newest(view.evaluation_returns)} (best {_best(view)})")
    parts += [f"{warning}!" for warning in _warnings(view)]
    return "  ".join(parts)
