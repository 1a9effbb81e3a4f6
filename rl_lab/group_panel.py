"""Several runs as tables: one of agents, one of language experiments."""

from collections.abc import Mapping, Sequence

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rl_lab import drawing, language_vitals
from rl_lab.drawing import STATE_STYLES, WIDE, duration, newest, sparkline
from rl_lab.experiment_view import ExperimentView
from rl_lab.metrics import numbers_of
from rl_lab.run_view import RunView
from rl_lab.text import inert_text, short


def agents(views: Sequence[RunView], width: int) -> Panel:
    """One row a run, then what they have in common."""
    columns = {
        "state": [Text(view.state, style=STATE_STYLES.get(view.state, "")) for view in views],
        "done": [Text(f"{drawing.share_done(view):.0%}" if view.budget else "–") for view in views],
        "return": [Text(newest(view.training_returns)) for view in views],
        "eval": [Text(newest(view.evaluation_returns)) for view in views],
        "best": [Text(short(view.best["return"]) if view.best else "–") for view in views],
    }
    if width >= WIDE:
        columns["left"] = [_left(view) for view in views]
        columns["course"] = [
            Text(sparkline(view.evaluation_returns, max(8, width - 100)), style="cyan")
            for view in views
        ]
    columns["warnings"] = [Text(", ".join(view.warnings), style="yellow") for view in views]
    footers = {
        "return": _mean([view.training_returns for view in views], width >= WIDE),
        "eval": _mean([view.evaluation_returns for view in views], width >= WIDE),
        "best": _mean([[view.best["return"]] for view in views if view.best], width >= WIDE),
    }
    names = [view.run.name for view in views]
    return _panel(names, "runs", columns, footers, _agents_state(views), width)


def experiments(views: Sequence[ExperimentView], width: int) -> Panel:
    """One row an experiment; its numbers are those of the newest look at held-out prompts."""
    wide = width >= WIDE
    gold = [_gold(view) for view in views]
    courses = {"gold": gold, "KL": [numbers_of(view.ppo, "look/kl")[1] for view in views]}
    if wide:
        courses = {"proxy": [numbers_of(view.ppo, "look/proxy")[1] for view in views]} | courses
    columns = {
        "state": [Text(view.state, style=STATE_STYLES.get(view.state, "")) for view in views],
        "stage": [_stage(view) for view in views],
        **{name: [Text(newest(of)) for of in found] for name, found in courses.items()},
    }
    footers = {name: _mean(found, wide) for name, found in courses.items()}
    gains = [view.evaluation.gain if view.evaluation else None for view in views]
    if any(gains):
        columns["gain"] = [Text(f"{gain.mean:+.2f} SD" if gain else "–") for gain in gains]
        known = [gain.mean for gain in gains if gain]
        footers["gain"] = _mean([[gain] for gain in known], wide)
    warnings = [view.warnings for view in views]
    if wide:
        columns["left"] = [_left(view.stage) if view.stage else Text() for view in views]
        columns["gold's course"] = [
            Text(sparkline(course, max(8, width - 100)), style="cyan") for course in gold
        ]
        columns["warnings"] = [
            inert_text(", ".join(warning.partition(":")[0] for warning in found), "yellow")
            for found in warnings
        ]
    else:
        columns["!"] = [Text(str(len(found) or ""), style="yellow") for found in warnings]
    running = sum(view.live for view in views)
    state = f"{running} running · {len(views) - running} ended"
    names = [view.name for view in views]
    return _panel(names, "experiments", columns, footers, state, width)


def _panel(
    names: Sequence[str],
    what: str,
    columns: Mapping[str, Sequence[Text]],
    footers: Mapping[str, str],
    subtitle: str,
    width: int,
) -> Panel:
    """A table with the runs' names first, shortened by what all begin with."""
    groups = {name.rpartition("-")[0] for name in names}
    shared = f"{groups.pop()}-" if len(groups) == 1 else ""  # `cartpole-` of its seeds
    table = Table(expand=True, box=None, padding=(0, 1), show_footer=len(names) > 1)
    cells = {"run": [inert_text(name.removeprefix(shared)) for name in names], **columns}
    footers = {"run": "mean ± 95 % (n)" if width >= WIDE else "mean (n)", **footers}
    for name, column in cells.items():
        wordy = name in ("run", "state", "stage", "gold's course", "warnings")
        footer = footers.get(name, "")
        widest = max(len(text) for text in (name, footer, *map(str, column)))
        keeps_width = not wordy or (name == "run" and bool(shared))  # other words give way
        table.add_column(
            name,
            footer=footer,
            justify="left" if wordy else "right",
            min_width=widest if keeps_width else None,
            ratio=1 if name == "warnings" else None,
            no_wrap=True,
            overflow="ellipsis",
            header_style="dim",
            footer_style="bold",
        )
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    title = f"{len(names)} {what}{' of ' if shared else ''}{shared.removesuffix('-')}"
    return Panel(table, title=inert_text(title), subtitle=subtitle, width=width)


def _agents_state(views: Sequence[RunView]) -> str:
    """How many run and are done, their speed together, and how long all of them still take."""
    running = [view for view in views if view.state == "running"]
    parts = [f"{len(running)} running", f"{sum(not view.live for view in views)} ended"]
    rates = [view.steps_per_second for view in running if view.steps_per_second]
    if rates:
        steps = sum(max(view.budget - view.step, 0) for view in views if view.live)
        parts.append(f"{sum(rates):,.0f} steps/s")
        parts.append(f"{duration(steps / sum(rates))} left")
    return " · ".join(parts)


def _left(view: RunView) -> Text:
    return Text(duration(view.seconds_left) if view.seconds_left is not None else "")


def _stage(view: ExperimentView) -> Text:
    """The stage at work and how far it is; `all` where every one is done."""
    stage = view.stage
    if view.state == "finished" and not view.pinned:
        return Text("all")
    done = f" {drawing.share_done(stage):.0%}" if stage and stage.budget else ""
    return Text(f"{view.current or '–'}{done}")


def _gold(view: ExperimentView) -> list[float]:
    judges = language_vitals.judges(view.ppo)
    return numbers_of(view.ppo, f"look/gold/{judges[0]}")[1] if judges else []


def _mean(courses: Sequence[Sequence[float]], wide: bool) -> str:
    """Mean over the runs that have one, and their n; with room, half its 95 % interval's width."""
    last = [course[-1] for course in courses if course]
    if not last:
        return "–"
    half = ""
    if wide and len(last) > 1:
        from rl_lab.statistics import runs_interval  # scipy: slow to import, and not always needed

        interval = runs_interval(last)
        half = f"±{short(interval.high - interval.mean)}"
    return f"{short(sum(last) / len(last))}{half} ({len(last)})"
