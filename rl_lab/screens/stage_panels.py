"""The panels of a language experiment's other stages: pretrain, reward, those of events only."""

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rl_lab.experiment_view import ExperimentView
from rl_lab.metrics import Record, latest, numbers_of
from rl_lab.run_view import RunView
from rl_lab.screens import drawing
from rl_lab.screens.drawing import figure, sparkline
from rl_lab.text import inert

Course = tuple[str, Sequence[float], str]
"""Label, values, style."""


def pretrain(experiment: ExperimentView, view: RunView, width: int, height: int) -> RenderableType:
    """Bits per character held out and trained on, the gap, the speed; samples as they come."""
    records = view.records
    speed = latest(records, "time/tokens_per_second")
    courses = [
        ("held-out bits/char", numbers_of(records, "eval/bits_per_character")[1], "cyan"),
        ("train bits/char", numbers_of(records, "train/bits_per_character")[1], "green"),
        ("gap", numbers_of(records, "eval/gap")[1], "yellow"),
        ("training loss", numbers_of(records, "train/loss")[1], "green"),
        ("learning rate", numbers_of(records, "train/learning_rate")[1], "dim"),
    ]
    parts = [
        drawing.progress(view, [] if speed is None else [f"{speed:,.0f} tokens/s"]),
        drawing.phases(records),
        Text(),
        _courses(courses, width),
        *_warnings(experiment),
    ]
    return _with_events(parts, 9 + len(_warnings(experiment)), view.events, height)


def reward(experiment: ExperimentView, view: RunView, width: int, height: int) -> RenderableType:
    """Loss and accuracy of each member on training pairs; on held-out pairs once judged.

    Beside these the human ceiling: how often anybody could agree with people.
    """
    records = view.records
    members = _members(records)
    name, of = _ensemble(experiment, view)
    head = f"member {max(members, default=0) + 1} of {of}" if members else "reading pairs"
    table = Table.grid(padding=(0, 1))
    table.add_row(
        *(Text(word, style="dim") for word in ("", "loss", "", "accuracy", "", "held-out"))
    )
    columns = max(6, min(40, (width - 51) // 2))
    room = max(1, height - 11)
    for member in list(members)[-room:]:
        loss, accuracy, heldout = members[member]
        table.add_row(
            name(member),
            _newest(loss), Text(sparkline(loss, columns).ljust(columns), style="green"),
            _newest(accuracy), Text(sparkline(accuracy, columns).ljust(columns), style="green"),
            Text(_newest(heldout), style="cyan"),
        )  # fmt: skip
    together = latest(records, "eval/ensemble_accuracy")
    if together is not None:
        table.add_row("together", "", "", "", "", Text(_newest([together]), style="bold cyan"))
    if members and experiment.ceiling is not None:
        table.add_row("human ceiling", "", "", "", "", _newest([experiment.ceiling]))
    parts = [
        Text(inert(head), style="bold"),
        drawing.progress(view),
        drawing.phases(records),
        Text(),
        table,
        *_warnings(experiment),
    ]
    lines = 5 + table.row_count + len(_warnings(experiment))
    return _with_events(parts, lines, view.events, height)


def events_only(
    experiment: ExperimentView, view: RunView, width: int, height: int
) -> RenderableType:
    """What happened, for stages that log no numbers; of the evaluation also its result."""
    parts: list[RenderableType] = []
    if view.budget:
        parts.append(drawing.progress(view))
    if experiment.current == "evaluate" and experiment.evaluation:
        parts.append(drawing.line(f"result: {experiment.evaluation.verdict}", "bold cyan"))
    warnings = _warnings(experiment)
    parts += warnings
    lines = (2 if view.budget else 0) + len(parts)
    if not view.events:
        return Group(*parts, Text("nothing to tell yet", style="dim"))
    return _with_events(parts, lines, view.events, height)


def _members(records: list[Record]) -> dict[int, tuple[list[float], list[float], list[float]]]:
    """Loss, accuracy and held-out accuracy by number of the member."""
    names = ("train/loss", "train/accuracy", "eval/accuracy")
    found: dict[int, tuple[list[float], list[float], list[float]]] = {}
    for record in records:
        member = record.get("reward/member")
        if not isinstance(member, int | float):
            continue
        courses = found.setdefault(int(member), ([], [], []))
        for name, course in zip(names, courses, strict=True):
            if isinstance(record.get(name), int | float):
                course.append(record[name])
    return found


def _ensemble(experiment: ExperimentView, view: RunView) -> tuple[Callable[[int], str], int | str]:
    """What each member is called, transformers by number and linear ones by kind; how many."""
    settings = view.recipe if "members" in view.recipe else _section(experiment, "reward")
    count, linear = settings.get("members"), settings.get("linear")
    kinds = linear if isinstance(linear, list) else []
    first = count if isinstance(count, int) else 0

    def name(member: int) -> str:
        is_linear = 0 < first <= member < first + len(kinds)
        return inert(str(kinds[member - first])) if is_linear else f"member {member + 1}"

    return name, first + len(kinds) if first else "?"


def _section(experiment: ExperimentView, name: str) -> dict[str, object]:
    section = experiment.whole.recipe.get(name)
    return section if isinstance(section, dict) else {}


def _courses(courses: Sequence[Course], width: int) -> Table:
    table = Table.grid(padding=(0, 1))
    columns = max(8, min(80, width - 30))
    for label, values, style in courses:
        table.add_row(label, _newest(values), Text(sparkline(values, columns), style=style))
    return table


def _warnings(experiment: ExperimentView) -> list[RenderableType]:
    return [drawing.line(f"! {warning}", "bold yellow") for warning in experiment.warnings[:3]]


def _with_events(
    parts: Sequence[RenderableType], lines: int, events: list[Record], height: int
) -> Group:
    room = height - lines - 1
    if not events or room < 1:
        return Group(*parts)
    blank = [Text()] if parts else []
    return Group(*parts, *blank, drawing.events(events, min(room, 30)))


def plain_pretrain(view: RunView) -> list[str]:
    """The stage's numbers, for a plain line."""
    speed = latest(view.records, "time/tokens_per_second")
    bits = [
        _newest(numbers_of(view.records, f"{side}/bits_per_character")[1])
        for side in ("eval", "train")
    ]
    said = [f"{speed:,.0f} tokens/s"] if speed is not None else []
    return [*said, f"held-out {bits[0]} bits/char (train {bits[1]})"]


def plain_reward(view: RunView) -> list[str]:
    """The stage's numbers, for a plain line."""
    trained = {number: of for number, of in _members(view.records).items() if of[0]}
    if not trained:
        return []
    number = max(trained)
    loss, accuracy, _ = trained[number]
    return [f"member {number + 1}", f"loss {_newest(loss)}", f"accuracy {_newest(accuracy)}"]


def plain_events(view: RunView) -> list[str]:
    """The newest event, for a plain line."""
    return [inert(view.events[-1].get("message", ""))] if view.events else []


def _newest(values: Sequence[float]) -> str:
    return figure(values[-1] if values else None)
