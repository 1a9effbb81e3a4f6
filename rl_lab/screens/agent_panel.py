"""The panel of an agent's run, and its plain line."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rl_lab.language_evaluation import mapping
from rl_lab.run_view import RunView
from rl_lab.screens import drawing
from rl_lab.screens.drawing import WIDE, duration, newest, sparkline
from rl_lab.text import inert, inert_text, short


def render(view: RunView, width: int, height: int) -> Panel:
    """Draw an agent's run in full."""
    algorithm = mapping(view.recipe.get("algorithm")).get("name", "?")
    environment = mapping(view.recipe.get("env")).get("id", "?")
    head = Text(inert(f"{str(algorithm).upper()} on {environment}"), style="bold")
    head.append(inert(f" · seed {view.recipe.get('seed', '?')}"), style="dim")
    inner = width - 4
    rate = view.steps_per_second
    left = Group(
        head,
        drawing.progress(view, [] if rate is None else [f"{rate:,.0f} steps/s"]),
        Text(),
        _returns(view, inner if width < WIDE else inner // 2),
    )
    right = Group(_vitals(view), Text(), drawing.phases(view.records), drawing.system(view))
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
    events = drawing.events(view.events, max(1, min(8, height - lines)))
    return Panel(
        Group(body, Text(), events),
        title=inert_text(view.run.name),
        subtitle=drawing.state(view),
        width=width,
    )


def _returns(view: RunView, width: int) -> Table:
    """Training and evaluation return: the newest number, its course, what it is measured on."""
    table = Table.grid(padding=(0, 1))
    columns = max(8, min(40, width - 40))
    training, evaluation = view.training_returns, view.evaluation_returns
    table.add_row(
        "return", newest(training), Text(sparkline(training, columns), style="green"),
        Text("last 100 episodes", style="dim"),
    )  # fmt: skip
    episodes = mapping(view.recipe.get("evaluation")).get("episodes", "?")
    table.add_row(
        "evaluation", newest(evaluation), Text(sparkline(evaluation, columns), style="cyan"),
        Text(inert(f"{episodes} episodes each"), style="dim"),
    )  # fmt: skip
    best, target = view.best, view.recipe.get("target_return")
    if best:
        goal = f"target {target:g}" if isinstance(target, int | float) else ""
        reached = bool(goal) and best["return"] >= target
        table.add_row(
            "best", short(best["return"]), Text(f"at step {best['step']:,}", style="dim"),
            Text(f"{goal} {'reached' if reached else ''}", style="green" if reached else "dim"),
        )  # fmt: skip
    return table


def _vitals(view: RunView) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for reading in view.vitals:
        warning = Text(f"← {reading.warning}", style="bold yellow") if reading.warning else Text()
        table.add_row(Text(reading.label), Text(f"{reading.value:.4g}", justify="right"), warning)
    return table if table.row_count else Text("no update yet", style="dim")


def plain_line(view: RunView) -> str:
    """An agent's run in one line."""
    parts = [
        inert(view.run.name),
        view.state,
        f"{drawing.share_done(view):.0%}",
        f"{view.step:,}/{view.budget:,} steps",
    ]
    if view.steps_per_second is not None:
        parts.append(f"{view.steps_per_second:,.0f}/s")
    if view.seconds_left is not None:
        parts.append(f"{duration(view.seconds_left)} left")
    best = short(view.best["return"]) if view.best else "–"
    parts.append(f"return {newest(view.training_returns)}")
    parts.append(f"evaluation {newest(view.evaluation_returns)} (best {best})")
    parts += [f"{warning}!" for warning in view.warnings]
    return "  ".join(parts)
