"""Runs as tables: what they logged and what was measured of them, a row at a time.

    metrics       a row for each line of metrics.jsonl with numbers; a column a number
    events        a row for each event
    episodes      a row for each episode that `rl-lab evaluate` judged an agent on
    measurements  a row for each figure of an evaluation, with its interval where it has one
    samples       a row for each completion that a language experiment's evaluation kept

Each begins with the same columns, so that tables of many runs can be grouped and joined. Runs may
come from strangers: what is of the wrong type is left out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rl_lab import recipes
from rl_lab.errors import UserError
from rl_lab.experiment_view import STAGES
from rl_lab.language_evaluation import mapping, number, rows
from rl_lab.metrics import Record, stream_metrics
from rl_lab.run import Run

Row = dict[str, Any]
Kind = type[str] | type[int] | type[float] | type[bool]

IDENTITY: dict[str, Kind] = {
    "run": str, "recipe": str, "task": str, "algorithm": str, "seed": int,
}  # fmt: skip
"""What tells a row's run from others. The task is an agent's environment, or where the data of a
language experiment come from."""

MOST_NUMBERS = 2000
"""Different numbers that the metrics of all runs may hold: a column each."""


@dataclass(frozen=True)
class Table:
    """A table whose rows are made while they are read; a row may lack any column."""

    name: str
    columns: dict[str, Kind]
    rows: Callable[[], Iterator[Row]]


def tables(runs: Sequence[Run]) -> list[Table]:
    """Make the tables of some runs, of either kind.

    Raises:
        UserError: they log more than MOST_NUMBERS different numbers.
    """
    names = [run.name for run in runs]
    identities = [
        _identity(run, run.name if names.count(run.name) == 1 else str(run.path)) for run in runs
    ]
    known = list(zip(runs, identities, strict=True))

    def of_each(rows_of: Callable[[Run], Iterator[Row]]) -> Callable[[], Iterator[Row]]:
        return lambda: (row | identity for run, identity in known for row in rows_of(run))

    place: dict[str, Kind] = {"stage": str, "step": int, "wall": float}
    judges: dict[str, Kind] = {}
    for run in runs:
        for sample in _samples(run):
            judges |= {name: float for name in sample if name.startswith("gold/")}
    return [
        Table("metrics", IDENTITY | place | _numbers(runs), of_each(_metrics)),
        Table("events", IDENTITY | place | EVENT, of_each(_events)),
        Table("episodes", IDENTITY | EPISODE, of_each(_episodes)),
        Table("measurements", IDENTITY | MEASUREMENT, of_each(_measurements)),
        Table("samples", IDENTITY | SAMPLE | judges, of_each(_samples)),
    ]


def _identity(run: Run, label: str) -> Row:
    try:
        recipe = recipes.read(str(run.recipe_file))[2]
    except UserError:
        recipe = {}
    agent = "env" in recipe
    return {
        "run": label,
        "recipe": recipe.get("name"),
        "task": mapping(recipe.get("env")).get("id")
        if agent
        else mapping(recipe.get("data")).get("source"),
        "algorithm": mapping(recipe.get("algorithm")).get("name")
        if agent
        else ("ppo" if recipe.get("ppo") is not None else None),
        "seed": recipe.get("seed"),
    }


# --- metrics and events --------------------------------------------------------------------------

EVENT: dict[str, Kind] = {"event": str, "level": str, "message": str}


def _records(run: Run) -> Iterator[tuple[str | None, Record]]:
    """Each record of a run with its stage; None: of the agent, or of the experiment as a whole."""
    for record in stream_metrics(run.metrics_file):
        yield None, record
    for stage in STAGES:
        for record in stream_metrics(Run(run.path / stage).metrics_file):
            yield stage, record


def _numbers(runs: Sequence[Run]) -> dict[str, Kind]:
    """A column for each number that any run logged, in the order of their names."""
    found: set[str] = set()
    for run in runs:
        for _, record in _records(run):
            if "event" not in record:
                found.update(record)
            if len(found) > MOST_NUMBERS:
                raise UserError(
                    f"the runs up to {run.name!r} log more than {MOST_NUMBERS:,} different "
                    "numbers, too many for a table with a column each; export fewer runs"
                )
    # The lab logs no number by the name of a column that is there already.
    return dict.fromkeys(sorted(found - {*IDENTITY, "stage", "step", "wall"}), float)


def _metrics(run: Run) -> Iterator[Row]:
    return (row | {"stage": stage} for stage, row in _records(run) if "event" not in row)


def _events(run: Run) -> Iterator[Row]:
    return (row | {"stage": stage} for stage, row in _records(run) if "event" in row)


# --- evaluations ---------------------------------------------------------------------------------

EPISODE: dict[str, Kind] = {
    "model": str, "actions": str, "model_step": int, "episode": int, "episode_seed": int,
    "return": float, "length": int, "terminated": bool, "success": bool,
}  # fmt: skip
MEASUREMENT: dict[str, Kind] = {
    "measurement": str, "estimate": float, "low": float, "high": float, "n": int,
}  # fmt: skip
SAMPLE: dict[str, Kind] = {
    "sample": int, "prompt": str, "model": str, "completion": str, "proxy": float,
}  # fmt: skip


def _episodes(run: Run) -> Iterator[Row]:
    for result in map(mapping, run.evaluations.values()):
        for count, episode in enumerate(rows(result.get("episodes"))):
            yield {
                "model": result.get("model"),
                "actions": result.get("actions"),
                "model_step": result.get("step"),
                "episode": count,
                "episode_seed": episode.get("seed"),
                "return": episode.get("episode_return"),
                "length": episode.get("length"),
                "terminated": episode.get("terminated"),
                "success": episode.get("success"),
            }


def _evaluation(run: Run) -> dict[str, Any]:
    """What is in evaluation.json; of an experiment that is not finished, in its stage's."""
    return run.evaluations or Run(run.path / "evaluate").evaluations


def _measurements(run: Run) -> Iterator[Row]:
    return _figures(_evaluation(run), "")


def _figures(value: Any, name: str) -> Iterator[Row]:
    """Every number in an evaluation, named by the way to it; with an interval where it has one."""
    plain = number(value)
    if plain is not None:
        yield {"measurement": name, "estimate": plain}
    elif isinstance(value, dict):
        middle = number(value.get("mean", value.get("sd")))
        if middle is not None:
            interval = {key: value.get(key) for key in ("low", "high", "n")}
            yield {"measurement": name, "estimate": middle} | interval
            return
        for key, inner in value.items():
            yield from _figures(inner, f"{name}/{key}" if name else key)
    else:
        for row in rows(value):
            if "n" in row:  # best of n; episodes and samples have tables of their own
                rest = {key: inner for key, inner in row.items() if key != "n"}
                yield from _figures(rest, f"{name}/{row['n']}")


def _samples(run: Run) -> Iterator[Row]:
    for count, sample in enumerate(rows(_evaluation(run).get("samples"))):
        for side, model in enumerate(("reference", "policy")):
            gold = {
                f"gold/{judge}": _at(scores, side)
                for judge, scores in mapping(sample.get("gold")).items()
            }
            yield {
                "sample": count,
                "prompt": sample.get("prompt"),
                "model": model,
                "completion": sample.get(model),
                "proxy": _at(sample.get("proxy"), side),
            } | gold


def _at(values: Any, side: int) -> Any:
    return values[side] if isinstance(values, list) and len(values) == 2 else None
