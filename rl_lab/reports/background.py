"""How runs came about, as plain data: recipe, command, versions, machine, cost, what went wrong."""

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rl_lab import cost, recipes
from rl_lab.cost import Cost
from rl_lab.errors import UserError
from rl_lab.experiment_view import ExperimentView
from rl_lab.language_evaluation import mapping
from rl_lab.metrics import Record
from rl_lab.recipe_differences import Flat
from rl_lab.run import Run
from rl_lab.run_view import RunView

View = RunView | ExperimentView

CompareWithDefault = Callable[[Mapping[str, Any]], tuple[str, list[Flat]]]
"""From a run's recipe to the name of what it is held against, and the differences."""

SERIOUS = ("warning", "error")


def background(views: Sequence[View], compare: CompareWithDefault) -> dict[str, Any]:
    """What is to be known of runs of one recipe.

    Args:
        views: of the runs, at least one.
        compare: tells in what their recipe differs from the default.

    Returns:
        `recipe` (text of the first run's), `default` (what it was held against), `differences`,
        `commands` (those that started the runs, each once), `made_with` (by what: the values that
        the runs have, each once), `troubles`.
    """
    runs = [view.run for view in views]
    recipe_text, recipe = _recipe(runs[0])
    default, differences = compare(recipe) if recipe else ("", [])
    found = [run.provenance for run in runs]
    return {
        "recipe": recipe_text,
        "default": default,
        "differences": differences,
        "commands": _each_once(_command(provenance) for provenance in found),
        "made_with": _made_with(found),
        "troubles": troubles(views),
    }


def _recipe(run: Run) -> tuple[str, dict[str, Any]]:
    try:
        _, text, data = recipes.read(str(run.recipe_file))
    except UserError as error:
        return f"({error})", {}
    return text, data


def _command(provenance: dict[str, Any]) -> str | None:
    """The command line; how Python found the lab's own program is nobody's concern."""
    words = provenance.get("command")
    if not isinstance(words, list) or not words:
        return None
    return shlex.join(["rl-lab", *(str(word) for word in words[1:])])


def _made_with(found: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    by_what: dict[str, list[str]] = {}
    for provenance in found:
        git = mapping(provenance.get("git"))
        commit = str(git.get("commit") or "unknown")
        shown = (
            mapping(provenance.get("versions"))
            | mapping(provenance.get("hardware"))
            | {
                "threads": provenance.get("threads"),
                "commit": f"{commit} with local changes" if git.get("diff") else commit,
            }
        )
        for name, value in shown.items():
            values = by_what.setdefault(str(name), [])
            if value is not None and str(value) not in values:
                values.append(str(value))
    return {name: values for name, values in by_what.items() if values}


def _each_once(found: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in found if text))


# --- time and cost -------------------------------------------------------------------------------


def cost_of(view: View) -> Cost:
    """What a run took; an experiment, what its stages took, also those it did not run itself."""
    if isinstance(view, RunView):
        return cost.of_status(view.status, view.elapsed or None)
    return cost.total(
        cost.of_status(stage.status, view.stage_seconds(name))
        for name, stage in view.stages.items()
        if stage is not None
    )


def cost_of_all(views: Sequence[View]) -> dict[str, Any]:
    """The sum over the runs that have begun, as plain data."""
    begun = [found for view in views if (found := cost_of(view)).wall_seconds is not None]
    return dataclasses.asdict(cost.total(begun))


# --- what went wrong -----------------------------------------------------------------------------


def events(view: View) -> list[Record]:
    """A run's events; of an experiment, its stages' as well where somebody should know them."""
    if isinstance(view, RunView):
        return view.events
    found = list(view.whole.events)
    for name, stage in view.stages.items():
        for event in stage.events if stage else ():
            if event["level"] in SERIOUS:
                found.append(event | {"event": f"{name}: {event['event']}"})
    return found


def troubles(views: Sequence[View]) -> list[dict[str, Any]]:
    """Warnings and errors, those that differ in their numbers alone taken together.

    Returns:
        Objects of `level`, `event`, `message` (the first of its kind), `count`, and `runs`: how
        many runs had it; the errors first, then what most runs had.
    """
    kinds: dict[tuple[str, str, str], dict[str, Any]] = {}
    for number, view in enumerate(views):
        for event in events(view):
            if event["level"] not in SERIOUS:
                continue
            key = (event["level"], event["event"], re.sub(r"\d+", "0", event["message"]))
            kind = kinds.setdefault(key, {"message": event["message"], "count": 0, "in": set()})
            kind["count"] += 1
            kind["in"].add(number)
    found = [
        {"level": level, "event": event, "message": kind["message"], "count": kind["count"],
         "runs": len(kind["in"])}
        for (level, event, _), kind in kinds.items()
    ]  # fmt: skip
    return sorted(found, key=lambda row: (row["level"] != "error", -row["runs"], -row["count"]))
