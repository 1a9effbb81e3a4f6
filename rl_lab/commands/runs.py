"""`rl-lab runs`: what there is."""

import json as json_module
import time
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab.experiment_view import ExperimentView, is_experiment
from rl_lab.language_vitals import judges
from rl_lab.metrics import latest
from rl_lab.run import Run, all_runs, runs_directory
from rl_lab.screens.drawing import STATE_STYLES, duration
from rl_lab.text import inert_text, short


def runs(*, json: Annotated[bool, Parameter(negative=())] = False) -> int:
    """List the runs and experiments: state, step, best result, age; the newest last.

    The result of an agent is its best evaluation return; of an experiment the gold judge's gain
    over the reference, or, before it is evaluated, the gold score at the newest look.

    Parameters
    ----------
    json
        Print them as JSON.
    """
    listed = [_described(run) for run in all_runs()]
    if json:
        print(json_module.dumps(listed, indent=2))
        return 0
    if not listed:
        print(f"no runs in {runs_directory()}; `rl-lab train cartpole` makes one")
        return 0
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("step", "budget", "best", "age"):
        table.add_column(name, justify="right")
    for row in listed:
        stage = row.get("stage") if row["state"] != "finished" else None
        step, budget = (stage["step"], stage["budget"]) if stage else (row["step"], row["budget"])
        table.add_row(
            inert_text(row["run"]),
            Text(row["state"], style=STATE_STYLES.get(row["state"], "")),
            inert_text(f"{stage['name']} {step:,}" if stage else f"{step:,}"),
            f"{budget:,}" if budget else "–",
            _result(row),
            _age(row["age_seconds"]),
        )
    Console().print(table)
    return 0


def _described(run: Run) -> dict[str, Any]:
    """A run as JSON has it; an experiment has its stage, its newest look and its result, too."""
    status = run.status
    age = round(time.time() - status["created"]) if status["created"] else None
    common = {
        "run": run.name,
        "state": run.state,
        "step": status.get("step", 0),
        "budget": status.get("budget"),
    }
    if not is_experiment(run):
        return common | {"best": status.get("best"), "age_seconds": age, "kind": "agent"}
    view = ExperimentView(run)
    stage, result = view.stage, view.evaluation
    judge = next(iter(judges(view.ppo)), None)
    return common | {
        "best": None,
        "age_seconds": age,
        "kind": "experiment",
        "stage": {"name": view.current, "step": stage.step, "budget": stage.budget}
        if stage
        else None,
        "look": {
            "judge": judge,
            "gold": latest(view.ppo, f"look/gold/{judge}"),
            "proxy": latest(view.ppo, "look/proxy"),
            "kl": latest(view.ppo, "look/kl"),
        },
        "gain_sd": result.gain.mean if result and result.gain else None,
        "win_rate": result.win_rate.mean if result and result.win_rate else None,
        "kl": result.kl.mean if result and result.kl else None,
    }


def _result(row: dict[str, Any]) -> str:
    if row["kind"] == "agent":
        best = row["best"]
        return short(best["return"]) if best and "return" in best else "–"
    if row["gain_sd"] is not None:
        return f"gold {row['gain_sd']:+.2f} SD"
    gold = row["look"]["gold"]
    return f"gold {short(gold)}" if gold is not None else "–"


def _age(seconds: int | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 3600:
        return duration(seconds)
    return f"{seconds // 3600} h" if seconds < 48 * 3600 else f"{seconds // 86400} days"
