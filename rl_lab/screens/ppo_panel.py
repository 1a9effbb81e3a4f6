"""The panel of a language experiment's ppo stage."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rl_lab import language_vitals
from rl_lab.experiment_view import ExperimentView
from rl_lab.language_evaluation import mapping, number
from rl_lab.metrics import Record, latest, numbers_of
from rl_lab.run_view import RunView
from rl_lab.screens import drawing
from rl_lab.screens.drawing import WIDE, figure, sparkline
from rl_lab.text import inert, inert_text

VITALS = (
    ("train/entropy", "entropy"),
    ("train/clip_fraction", "clip share"),
    ("train/explained_variance", "expl. variance"),
    ("rollout/response_length", "length"),
    ("rollout/end_share", "end share"),
    ("kl/coefficient", "KL coefficient"),
    ("look/distinct_2", "distinct-2"),
    ("look/fluency", "fluency"),
    ("train/grad_norm", "gradient"),
)
MOST_JUDGES = 3
TALL = 30
"""Lines from which there is room for every warning."""


def render(experiment: ExperimentView, view: RunView, width: int, height: int) -> RenderableType:
    """Draw the stage in at most `height` lines of `width` columns.

    What there is room for beyond the numbers goes to completions, then to events.
    """
    records = view.records
    judges = language_vitals.judges(records)[:MOST_JUDGES]
    wide = width >= WIDE - 4
    half = width // 2 - 1 if wide else width
    speed = latest(records, "rollout/tokens_per_second")
    progress = Group(
        drawing.progress(view, [] if speed is None else [f"{speed:,.0f} tokens/s"]),
        drawing.phases(records),
    )
    courses = _courses(records, judges, half)
    if wide:
        body = Table.grid(expand=True, padding=(0, 2))
        body.add_column(ratio=1)
        body.add_column(ratio=1)
        body.add_row(Group(progress, Text(), courses), _vitals_list(records, half))
        parts: list[RenderableType] = [body]
        lines = max(6 + len(judges) + 1, len(VITALS))
    else:
        parts = [progress, Text(), courses, _vitals_grid(records)]
        lines = 3 + 1 + 3 + len(judges) + -(-len(VITALS) // 3)
    if experiment.evaluation and experiment.evaluation.verdict:
        parts.append(drawing.line(f"result: {experiment.evaluation.verdict}", "bold cyan"))
        lines += 1
    for warning in experiment.warnings[: 3 if height < TALL else None]:
        parts.append(drawing.line(f"! {warning}", "bold yellow"))
        lines += 1

    rest = height - lines
    shown = max(0, min(len(experiment.samples), rest - 2 if rest < 12 else rest * 2 // 3))
    if shown and rest > 2:
        parts += [Text(), completions(experiment.samples[:shown], judges, width)]
        rest -= shown + 2
    if view.events and rest > 1:
        parts += [Text(), drawing.events(view.events, rest - 1)]
    return Group(*parts)


def _courses(records: list[Record], judges: Sequence[str], width: int) -> Table:
    """Reward, gold and KL: in training and at the looks at held-out prompts."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=16)
    columns = max(6, min(40, (width - 16 - 2 * 7 - 4) // 2))
    table.add_row(
        "", Text("now", style="dim", justify="right"), Text("training", style="dim"),
        Text("now", style="dim", justify="right"), Text("held-out looks", style="dim"),
    )  # fmt: skip
    lines = [
        ("proxy reward", "reward/proxy", "look/proxy"),
        *((f"gold {judge}", f"gold/{judge}", f"look/gold/{judge}") for judge in judges),
        ("KL, exact", "kl/exact", "look/kl"),
    ]
    for label, training, look in lines:
        cells: list[RenderableType] = [inert_text(label)]
        for name, style in ((training, "green"), (look, "cyan")):
            values = numbers_of(records, name)[1]
            cells.append(Text(figure(latest(records, name)), justify="right"))
            cells.append(Text(sparkline(values, columns).ljust(columns), style=style))
        table.add_row(*cells)
    return table


def _vitals_grid(records: list[Record]) -> Table:
    """Labels and newest values, three pairs a line."""
    table = Table.grid(padding=(0, 1), expand=True)
    for _ in range(3):
        table.add_column(style="dim", no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(width=2)
    cells = [(label, figure(latest(records, name)), "") for name, label in VITALS]
    for start in range(0, len(cells), 3):
        table.add_row(*(part for cell in cells[start : start + 3] for part in cell))
    return table


def _vitals_list(records: list[Record], width: int) -> Table:
    """Label, newest value and course, a line each."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    columns = max(8, min(60, width - 28))
    for name, label in VITALS:
        values = numbers_of(records, name)[1]
        course = Text(sparkline(values, columns), style="magenta")
        table.add_row(label, figure(latest(records, name)), course)
    return table


def completions(samples: Sequence[dict[str, Any]], judges: Sequence[str], width: int) -> Table:
    """A line a completion: its rewards, then the prompt, dimmed, and what the policy wrote."""
    table = Table.grid(padding=(0, 1), expand=True)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True, min_width=5)  # proxy, gold, KL
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    judge = judges[0] if judges else ""
    step = samples[0]["step"]
    heads = ("proxy", "gold", "KL", f"completions to held-out prompts, update {step:,}")
    table.add_row(*(Text(head, style="dim") for head in heads))
    for row in samples:
        gold = mapping(row.get("gold"))
        numbers = (row.get("proxy"), gold.get(judge), row.get("kl"))
        text = Text(_tail(inert(row.get("prompt", "")), width // 3), style="dim")
        text.append(inert(row.get("completion", "")), style="default not dim")
        found = [number(value) for value in numbers]
        table.add_row(*("–" if one is None else f"{one:.2f}" for one in found), text)
    return table


def _tail(text: str, width: int) -> str:
    """The end of a text: what a completion goes on from."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def plain(view: RunView) -> list[str]:
    """The stage's numbers, for a plain line."""
    records = view.records
    parts = []
    speed = latest(records, "rollout/tokens_per_second")
    if speed is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    names = [("proxy", "reward/proxy", "look/proxy")]
    names += [
        (f"gold {judge}", f"gold/{judge}", f"look/gold/{judge}")
        for judge in language_vitals.judges(records)[:1]
    ]
    names.append(("KL", "kl/exact", "look/kl"))
    for label, training, look in names:
        value, looked = latest(records, training), latest(records, look)
        parts.append(f"{inert(label)} {figure(value)} (look {figure(looked)})")
    return parts
