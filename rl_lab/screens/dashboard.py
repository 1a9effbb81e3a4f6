"""Drawing runs, agents' and language experiments: one in full, several as tables, or as lines."""

from collections.abc import Sequence

from rich.console import Group, RenderableType

from rl_lab.experiment_view import ExperimentView
from rl_lab.run_view import RunView
from rl_lab.screens import agent_panel, experiment_panel, group_panel

View = RunView | ExperimentView


def render(views: Sequence[View], width: int, height: int = 50) -> RenderableType:
    """Draw one run in full, or several as a table with their aggregate.

    Args:
        views: the runs, refreshed.
        width: columns of the terminal; 80 is enough, from `drawing.WIDE` on there are two halves.
        height: lines of the terminal; 24 is enough, and more show more events and completions.
    """
    if len(views) == 1:
        (view,) = views
        if isinstance(view, ExperimentView):
            return experiment_panel.render(view, width, height)
        return agent_panel.render(view, width, height)
    agents = [view for view in views if isinstance(view, RunView)]
    experiments = [view for view in views if isinstance(view, ExperimentView)]
    tables: list[RenderableType] = []
    if agents:
        tables.append(group_panel.agents(agents, width))
    if experiments:
        tables.append(group_panel.experiments(experiments, width))
    return Group(*tables)


def plain_line(view: View) -> str:
    """One run in one line, for logs and pipes."""
    if isinstance(view, ExperimentView):
        return experiment_panel.plain_line(view)
    return agent_panel.plain_line(view)
