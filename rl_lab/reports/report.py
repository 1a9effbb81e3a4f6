"""Reports: a self-contained HTML page, nothing fetched, and the same content as JSON beside it.

What is said is gathered as plain data first (`rl_lab.reports.group_report`); the page is a template
over it. Everything is escaped by the template engine; the one exception are the charts, our own
SVG.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from rl_lab import results
from rl_lab.cost import WATTS_PER_CORE
from rl_lab.errors import UserError
from rl_lab.experiment_view import ExperimentView, view_of
from rl_lab.files import write_atomically, write_json
from rl_lab.language_evaluation import mapping, number
from rl_lab.metrics import numbers_of
from rl_lab.plain_json import read_object
from rl_lab.reports import background, figures, group_charts, group_report, language_report
from rl_lab.reports.background import CompareWithDefault
from rl_lab.results import Group, Result
from rl_lab.run import Run
from rl_lab.run_view import RunView
from rl_lab.screens.drawing import duration
from rl_lab.suites import Suite
from rl_lab.text import inert, short

LARGEST_VIDEO = 8 * 2**20
"""Bytes of a video that is still put into the page."""


def write_report(run: Run, compare: CompareWithDefault, output: Path | None = None) -> Path:
    """Write the report of an agent's run or of an experiment.

    Args:
        run: of which.
        compare: tells in what its recipe differs from the default.
        output: the page; None: `report.html` in its directory. The JSON is written beside it.

    Returns:
        The page's path.

    Raises:
        UserError: the run is a stage of an experiment.
        StorageError: it cannot be written.
    """
    view = view_of(run)
    if isinstance(view, ExperimentView) and view.pinned:
        raise UserError(
            f"{str(run.path)!r} is a stage; its experiment has the report: "
            f"rl-lab report {run.path.parent}"
        )
    said = group_report.content([_group_of(run, view)], run.name, compare)
    shown: dict[str, Any] = {
        "state": run.state,
        "reason": str(run.status.get("reason") or ""),
        "recipe_file": str(run.recipe_file),
        "events": background.events(view),
    }
    if isinstance(view, ExperimentView):
        template, content = "language_report.html.j2", language_report.content(view)
        shown |= {key: content[key] for key in ("stages", "warnings", "card")}
        shown["evaluation"] = run.evaluations
        shown["judges"] = read_object(language_report.judges_report(run.path))
    else:
        template = "report.html.j2"
        shown |= _agent(view)
        content = {"curve": figures.svg("curve", "", lambda axes: _curve(view, axes), (8, 3.6))}
    return _write(output or run.report_file, template, said | {"run": shown}, shown | content)


def write_group_report(
    groups: Sequence[Group],
    title: str,
    compare: CompareWithDefault,
    output: Path,
    suite: Suite | None = None,
) -> Path:
    """Write the report of several groups of runs.

    Args:
        groups: at least one.
        title: of the report.
        compare: tells in what a recipe differs from the default.
        output: the page. The JSON is written beside it.
        suite: which they are of, if they are.

    Returns:
        The page's path.

    Raises:
        StorageError: it cannot be written.
    """
    said = group_report.content(groups, title, compare, suite)
    charts = [
        group_charts.of_group(group, f"g{number_}") for number_, group in enumerate(said["groups"])
    ]
    profile = group_charts.across(said["across"]) if said["across"] else None
    shown = {
        "charts": charts,
        "profile": profile,
        "measures": sorted({group["measure"] for group in said["groups"] if group["measure"]}),
        "watts": WATTS_PER_CORE,
    }
    return _write(output, "group_report.html.j2", said, shown)


def _write(output: Path, template: str, said: dict[str, Any], shown: dict[str, Any]) -> Path:
    """Write what is said as JSON, and with what else is `shown` as a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "inert": inert, "short": short, "duration": duration, "energy": _energy,
        "embedded": _embedded, "said": _said,
    }  # fmt: skip
    write_json(output.with_suffix(".json"), said)
    write_atomically(output, environment.get_template(template).render(said | shown))
    return output


def _group_of(run: Run, view: RunView | ExperimentView) -> Group:
    """A run as a group of its own; of one whose recipe cannot be read, what there is."""
    try:
        [group] = results.groups([run])
    except UserError:
        kind = "agent" if isinstance(view, RunView) else "language"
        group = Group(run.name, (Result(run, kind, {}, {}),))  # type: ignore[arg-type]
    return Group(run.name, group.results)


def _said(value: float, form: str | None) -> str:
    """Write a number as its measure has it (`results.Measure.form`)."""
    return short(value) if form is None else form.format(value)


def _energy(joules: float) -> str:
    """Say an energy: 3,600 J are a watt-hour."""
    hours = joules / 3600
    return f"{hours / 1000:.3g} kWh" if hours >= 1000 else f"{hours:.3g} Wh"


def _embedded(path: str) -> str | None:
    """A video as a data URL; None where it is too large for a page, empty, or gone."""
    file = Path(path)
    if not file.is_file() or not 0 < file.stat().st_size <= LARGEST_VIDEO:
        return None
    return f"data:video/mp4;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"


# --- one agent -----------------------------------------------------------------------------------


def _agent(view: RunView) -> dict[str, Any]:
    """What is said of one agent beside what is said of every group."""
    steps, returns = numbers_of(view.records, "rollout/ep_rew_mean")
    return {
        "steps": view.status["step"],
        "seconds": view.records[-1]["wall"] if view.records else 0.0,
        "best": view.best,
        "evaluations": _judged(view.run.evaluations),
        "training": {"steps": steps, "returns": returns},
        "videos": [
            str(path)
            for path in sorted(view.run.videos.glob("*.mp4"))
            if not path.name.startswith("judged-")  # those are among the clips
        ],
    }


def _judged(evaluations: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of `rl-lab evaluate` that are whole; the file may be damaged."""
    found = []
    for result in map(mapping, evaluations.values()):
        interval, length = mapping(result.get("return")), mapping(result.get("length"))
        numbers = {
            "step": number(result.get("step")),
            "mean": number(interval.get("mean")),
            "low": number(interval.get("low")),
            "high": number(interval.get("high")),
            "n": number(interval.get("n")),
            "length": number(length.get("mean")),
            "truncated": number(result.get("truncated")),
        }
        if None not in numbers.values():
            model = f"{result.get('model', '?')}, {result.get('actions', '?')}"
            found.append({"model": model, **numbers})
    return found


def _curve(view: RunView, axes: Any) -> None:
    """The learning curve."""
    steps, returns = numbers_of(view.records, "rollout/ep_rew_mean")
    axes.plot(steps, returns, color=figures.GREEN, label="training, last 100 episodes")
    # Where one of the two is no number, neither is drawn.
    spreads = dict(zip(*numbers_of(view.records, "eval/std_reward"), strict=True))
    means = zip(*numbers_of(view.records, "eval/mean_reward"), strict=True)
    known = [(step, mean, spreads[step]) for step, mean in means if step in spreads]
    looks = [step for step, _, _ in known]
    low, high = [mean - std for _, mean, std in known], [mean + std for _, mean, std in known]
    axes.fill_between(looks, low, high, color=figures.BLUE, alpha=0.2, linewidth=0)
    axes.plot(looks, [mean for _, mean, _ in known], color=figures.BLUE, marker="o", markersize=3,
              label="evaluation, mean and one standard deviation of its episodes")  # fmt: skip
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return")
