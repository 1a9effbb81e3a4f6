"""`rl-lab runs`: what there is."""

import json as json_module
import time
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab.dashboard import STATE_STYLES, duration
from rl_lab.run import all_runs, runs_directory
from rl_lab.text import inert_text, short


def runs(*, json: Annotated[bool, Parameter(negative=())] = False) -> int:
    """List the runs: state, step, best return, age; the newest last.

    Parameters
    ----------
    json
        Print them as JSON.
    """
    now = time.time()
    listed = []
    for run in all_runs():
        status = run.status
        listed.append(
            {
                "run": run.name,
                "state": run.state,
                "step": status.get("step", 0),
                "budget": status.get("budget"),
                "best": status.get("best"),
                "age_seconds": round(now - status["created"]) if status["created"] else None,
            }
        )
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
        best = row["best"]
        table.add_row(
            inert_text(row["run"]),
            Text(row["state"], style=STATE_STYLES.get(row["state"], "")),
            f"{row['step']:,}",
            f"{row['budget']:,}" if row["budget"] else "–",
            short(best["return"]) if best else "–",
            _age(row["age_seconds"]),
        )
    Console().print(table)
    return 0


def _age(seconds: int | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 3600:
        return duration(seconds)
    return f"{seconds // 3600} h" if seconds < 48 * 3600 else f"{seconds // 86400} days"
