"""One run's report: a self-contained HTML page made from its directory, nothing fetched.

Everything is escaped by the template engine; the one exception is the curve, which is our own SVG.
"""

import base64
import io
import time
from pathlib import Path
from typing import Any

import jinja2

from rl_lab.files import write_atomically
from rl_lab.metrics import Record, numbers_of, read_metrics
from rl_lab.run import Run
from rl_lab.text import inert, short

LARGEST_VIDEO = 8 * 2**20
"""Bytes of a video that is still put into the page."""


def write_report(run: Run) -> Path:
    """Write `report.html` into a run's directory and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"inert": inert, "short": short}
    page = environment.get_template("report.html.j2").render(_content(run))
    write_atomically(run.report_file, page)
    return run.report_file


def _content(run: Run) -> dict[str, Any]:
    records = read_metrics(run.metrics_file)
    status = run.status
    recipe_text = run.recipe_file.read_text(encoding="utf-8")
    return {
        "name": run.name,
        "state": run.state,
        "reason": status.get("reason") or "",
        "steps": status.get("step", 0),
        "seconds": records[-1]["wall"] if records else 0.0,
        "best": status.get("best"),
        "evaluations": run.evaluations,
        "curve": jinja2.filters.Markup(_curve(records)),  # our own SVG
        "events": [record for record in records if "event" in record],
        "videos": [_video(path) for path in sorted(run.videos.glob("*.mp4"))],
        "recipe": recipe_text,
        "recipe_file": str(run.recipe_file),
        "provenance": run.provenance,
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }


def _curve(records: list[Record]) -> str:
    """The learning curve as SVG whose text and axes take the page's colour."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "rl-lab", "font.size": 11}
    with mpl.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
        steps, returns = numbers_of(records, "rollout/ep_rew_mean")
        axes.plot(steps, returns, color="#4c9a5f", label="training, last 100 episodes")
        steps, returns = numbers_of(records, "eval/mean_reward")
        _, spread = numbers_of(records, "eval/std_reward")
        low = [mean - std for mean, std in zip(returns, spread, strict=True)]
        high = [mean + std for mean, std in zip(returns, spread, strict=True)]
        axes.fill_between(steps, low, high, color="#3b82c4", alpha=0.2, linewidth=0)
        axes.plot(steps, returns, color="#3b82c4", marker="o", markersize=3,
                  label="evaluation, mean and one standard deviation of its episodes")  # fmt: skip
        axes.set_xlabel("environment steps")
        axes.set_ylabel("return")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="best", fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace("#000000", "currentColor").replace(
        "<text ", '<text fill="currentColor" '
    )  # fmt: skip


def _video(path: Path) -> dict[str, str | None]:
    """A video as a data URL, or by its name alone where it is too large for a page."""
    small = path.stat().st_size <= LARGEST_VIDEO
    data = base64.b64encode(path.read_bytes()).decode("ascii") if small else None
    return {"name": path.name, "url": f"data:video/mp4;base64,{data}" if data else None}
