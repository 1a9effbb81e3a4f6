"""One run's report: a self-contained HTML page made from its directory, nothing fetched.

Everything is escaped by the template engine; the one exception are the charts, our own SVG.
"""

import base64
import time
from pathlib import Path
from typing import Any

import jinja2

from rl_lab import figures, language_report, recipes
from rl_lab.errors import UserError
from rl_lab.experiment_view import ExperimentView, view_of
from rl_lab.files import write_atomically
from rl_lab.language_evaluation import mapping, number
from rl_lab.metrics import numbers_of
from rl_lab.run import Run
from rl_lab.run_view import RunView
from rl_lab.text import inert, short

LARGEST_VIDEO = 8 * 2**20
"""Bytes of a video that is still put into the page."""


def write_report(run: Run) -> Path:
    """Write `report.html` into the directory of an agent's run or of an experiment.

    Returns:
        Its path.

    Raises:
        UserError: the run is a stage of an experiment.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"inert": inert, "short": short}
    view = view_of(run)
    if isinstance(view, ExperimentView):
        if view.pinned:
            raise UserError(
                f"{str(run.path)!r} is a stage; its experiment has the report: "
                f"rl-lab report {run.path.parent}"
            )
        template, content = "language_report.html.j2", language_report.content(view)
    else:
        template, content = "report.html.j2", _content(view)
    page = environment.get_template(template).render(_whence(run) | content)
    write_atomically(run.report_file, page)
    return run.report_file


def _whence(run: Run) -> dict[str, Any]:
    """What every page says: the name, how it ended, how to repeat it."""
    return {
        "name": run.name,
        "state": run.state,
        "reason": run.status.get("reason") or "",
        "recipe": _recipe_text(run),
        "recipe_file": str(run.recipe_file),
        "provenance": _provenance(run.provenance),
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }


def _recipe_text(run: Run) -> str:
    try:
        return recipes.read(str(run.recipe_file))[1]
    except UserError as error:
        return f"({error})"


def _provenance(found: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of what made the run; the file may be damaged."""
    git = mapping(found.get("git"))
    commit = f"{git.get('commit') or 'unknown'}{' with local changes' if git.get('diff') else ''}"
    shown = {name: version for name, version in mapping(found.get("versions")).items() if version}
    return shown | mapping(found.get("hardware")) | {
        "threads": found.get("threads"), "commit": commit
    }  # fmt: skip


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


def _content(view: RunView) -> dict[str, Any]:
    return {
        "steps": view.status["step"],
        "seconds": view.records[-1]["wall"] if view.records else 0.0,
        "best": view.best,
        "evaluations": _judged(view.run.evaluations),
        "curve": figures.svg("curve", "", lambda axes: _curve(view, axes), (8, 3.6)),
        "events": view.events,
        "videos": [_video(path) for path in sorted(view.run.videos.glob("*.mp4"))],
    }


def _curve(view: RunView, axes: Any) -> None:
    """The learning curve."""
    steps, returns = numbers_of(view.records, "rollout/ep_rew_mean")
    axes.plot(steps, returns, color=figures.GREEN, label="training, last 100 episodes")
    steps, returns = numbers_of(view.records, "eval/mean_reward")
    _, spread = numbers_of(view.records, "eval/std_reward")
    low = [mean - std for mean, std in zip(returns, spread, strict=True)]
    high = [mean + std for mean, std in zip(returns, spread, strict=True)]
    axes.fill_between(steps, low, high, color=figures.BLUE, alpha=0.2, linewidth=0)
    axes.plot(steps, returns, color=figures.BLUE, marker="o", markersize=3,
              label="evaluation, mean and one standard deviation of its episodes")  # fmt: skip
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return")


def _video(path: Path) -> dict[str, str | None]:
    """A video as a data URL, or by its name alone where it is too large for a page."""
    small = path.stat().st_size <= LARGEST_VIDEO
    data = base64.b64encode(path.read_bytes()).decode("ascii") if small else None
    return {"name": path.name, "url": f"data:video/mp4;base64,{data}" if data else None}
