"""`rl-lab watch`: the dashboard, for runs started anywhere."""

import os
from typing import Annotated

from cyclopts import Parameter

from rl_lab.errors import UserError
from rl_lab.experiment_view import view_of
from rl_lab.run import Run, all_runs, runs_directory
from rl_lab.screens.follow import follow
from rl_lab.signals import StopRequest


def watch(*runs: str, trainer: Annotated[int | None, Parameter(show=False)] = None) -> int:
    """Show runs live: progress, returns or rewards, vitals, where the time goes, events.

    Of a language experiment the stage at work is shown; name EXPERIMENT/ppo for a certain one.
    Ends when nothing more is to come, or at Ctrl-C, which does not disturb the runs.

    Parameters
    ----------
    runs
        Names or directories; if none is given, those that are running, or else the newest.
    trainer
        Number of the process that started this one to show what it trains. While it lives there is
        more to come, also where a run that it goes on with still says that it has stopped.
    """
    chosen = [Run.open(name) for name in runs]
    if not chosen:
        known = all_runs()
        if not known:
            raise UserError(
                f"there are no runs in {runs_directory()}; `rl-lab train cartpole` makes one"
            )
        chosen = [run for run in known if run.state == "running"] or known[-1:]
    with StopRequest() as stop:
        views = [view_of(run) for run in chosen]

        def more() -> bool:
            training = trainer is not None and os.getppid() == trainer
            return stop.signal is None and (training or any(view.live for view in views))

        follow(views, more)
    return 0
