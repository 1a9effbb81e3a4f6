"""The panel of a language experiment: its stages in a strip, and the one at work in full."""

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rl_lab.experiment_view import ExperimentView
from rl_lab.run_view import RunView
from rl_lab.screens import drawing, ppo_panel, stage_panels
from rl_lab.screens.drawing import STATE_STYLES, duration
from rl_lab.text import inert, inert_text

STAGE_PANELS: dict[str, Callable[[ExperimentView, RunView, int, int], RenderableType]] = {
    "pretrain": stage_panels.pretrain,
    "reward": stage_panels.reward,
    "ppo": ppo_panel.render,
}
STRIP = 3
"""Lines of the strip of stages, the blank below included."""


def render(view: ExperimentView, width: int, height: int) -> Panel:
    """Draw an experiment in full, in at most `height` lines where that is possible."""
    strip = _strip(view)
    current, stage = view.current, view.stage
    inner, room = width - 4, height - 2 - STRIP
    body: RenderableType
    if current is None or stage is None:
        events = view.whole.events
        body = drawing.events(events, 5) if events else Text("nothing has begun", style="dim")
    else:
        body = STAGE_PANELS.get(current, stage_panels.events_only)(view, stage, inner, room)
    shown = stage if view.pinned and stage else view.whole
    return Panel(
        Group(strip, Text(), body),
        title=inert_text(view.name),
        subtitle=drawing.state(shown),
        width=width,
    )


def _strip(view: ExperimentView) -> Table:
    """The stages in order, each with its state and time below; the one shown is underlined."""
    table = Table.grid(padding=(0, 2))
    names, states = [], []
    for name in view.stages:
        table.add_column(no_wrap=True)
        state = view.stage_state(name)
        shown = name == view.current
        style = STATE_STYLES.get(state, "dim" if state == "to come" else "cyan")
        # Appended: a text's own style would underline its whole column.
        names.append(Text().append(name, f"{style} underline" if shown else style))
        word = {"finished": "done", "created": "starting"}.get(state, state)
        seconds = view.stage_seconds(name)
        known = state not in ("to come", "reused", "created") and seconds > 0
        states.append(Text(f"{word} {duration(seconds)}" if known else word, style="dim"))
    table.add_row(*names)
    table.add_row(*states)
    return table


def plain_line(view: ExperimentView) -> str:
    """An experiment in one line: its stage and that stage's numbers."""
    parts = [inert(view.name), view.state]
    stage, current = view.stage, view.current
    if stage is None or current is None:
        return "  ".join([*parts, "no stage has begun"])
    if stage.budget:
        parts.append(f"{current} {drawing.share_done(stage):.0%}")
        parts.append(inert(f"{stage.step:,}/{stage.budget:,} {stage.unit}"))
    else:
        parts.append(f"{current}: {view.stage_state(current)}")
    if stage.seconds_left is not None:
        parts.append(f"{duration(stage.seconds_left)} left")
    if current == "ppo":
        parts += ppo_panel.plain(stage)
    elif current == "pretrain":
        parts += stage_panels.plain_pretrain(stage)
    elif current == "reward":
        parts += stage_panels.plain_reward(stage)
    else:
        parts += stage_panels.plain_events(stage)
    reason = view.whole.status.get("reason")
    if reason and not view.live:
        parts.append(inert(reason))
    if view.evaluation and view.evaluation.verdict:
        parts.append(f"result: {inert(view.evaluation.verdict)}")
    return "  ".join([*parts, *(f"{inert(warning)}!" for warning in view.warnings)])
