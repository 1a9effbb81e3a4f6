"""`rl-lab evaluate`: trained agents on episodes they have never seen."""

import json as json_module
import sys
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab.commands.language_result import show_result
from rl_lab.errors import UserError
from rl_lab.experiment_view import ExperimentView, view_of
from rl_lab.files import write_json
from rl_lab.results import find
from rl_lab.rl.trust import grant
from rl_lab.run import Run
from rl_lab.statistics import Interval, few_runs, mean_interval, runs_interval, wilson_interval
from rl_lab.text import inert, inert_text, short


def evaluate(
    *runs: str,
    episodes: int = 100,
    model: str = "best",
    sampled: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """Judge trained runs on fresh seeds, never those of training or of its evaluations.

    Of a language experiment it shows what its `evaluate` stage measured on held-out prompts.

    Every run faces the same starts. Results go into each run's evaluation.json, with every
    episode; the table shows means with 95 % intervals, over episodes (bootstrap) and over runs
    (Student's t).

    Parameters
    ----------
    runs
        Names or directories; a name without -seed<k>, for all seeds; patterns; directories of runs.
    episodes
        Episodes each.
    model
        best (by evaluation return in training) or last (the newest checkpoint).
    sampled
        Sample actions as in training, instead of greedy ones.
    json
        Print the results as JSON, and nothing else.
    trust
        A module that the environment's id may import (module:Id); importing it runs its code.
    """
    grant(trust or [])
    if not runs:
        raise UserError("evaluate needs a run; `rl-lab runs` lists them")
    if not 1 <= episodes <= 100_000:
        raise UserError(f"--episodes {episodes}: should be from 1 to 100000")
    chosen = find(runs)  # a run named twice counts once
    experiments = [run for run in chosen if isinstance(view_of(run), ExperimentView)]
    for run in experiments:
        show_result(run, json)
    agents = [run for run in chosen if run not in experiments]
    if agents:
        _judge_agents(agents, episodes, model, sampled, json)
    warning = few_runs(len(chosen))
    if warning and not json:
        print(f"note: {warning}")
    return 0


def _judge_agents(runs: list[Run], episodes: int, model: str, sampled: bool, json: bool) -> None:
    """Judge agents one after the other, and show what came of it."""
    results = []
    for number, run in enumerate(runs, start=1):
        if not json and len(runs) > 1:
            print(f"judging {inert(run.name)} ({number} of {len(runs)})", file=sys.stderr)
        result = judge(run, episodes, model, deterministic=not sampled)
        write_json(run.evaluation_file, run.evaluations | {f"{model} {result['actions']}": result})
        results.append(result)
    if json:
        print(json_module.dumps(results, indent=2))
    else:
        Console().print(_table(results))
        print(
            f"{results[0]['actions']} actions, {episodes} fresh episodes each; cut off: "
            "by a time limit"
        )


def judge(run: Run, episodes: int, which: str, deterministic: bool) -> dict[str, Any]:
    """Judge an agent on fresh episodes, the same for every run; nothing is written.

    Args:
        run: of an agent.
        episodes: how many.
        which: `"best"` by evaluation return in training, or `"last"`.
        deterministic: greedy actions; else sampled ones.

    Returns:
        What evaluation.json has of it.

    Raises:
        UserError: nothing whole was saved, there is nothing to sample, or the environment gives
            what is no number, or fails.
    """
    from rl_lab.rl.evaluate import evaluate as evaluate_agent
    from rl_lab.rl.saved import load_agent, recipe_of
    from rl_lab.rl.seeding import FINAL_EVALUATION
    from rl_lab.rl.watched_vec_env import EnvironmentFailedError, NonFiniteError
    from rl_lab.seeding import stream

    recipe = recipe_of(run)
    agent, step = load_agent(run, recipe, which, sampled=not deterministic)
    # One stream for all runs, whatever their seed: the same starts, so differences can be paired.
    seeds = stream(0, FINAL_EVALUATION, episodes)
    try:
        played = evaluate_agent(agent, recipe.env, seeds, deterministic)
    except (NonFiniteError, EnvironmentFailedError) as error:
        raise UserError(f"run {run.name!r} cannot be judged: {error}") from None
    result: dict[str, Any] = {
        "run": run.name,
        "environment": recipe.env.id,
        "model": which,
        "step": step,
        "actions": "greedy" if deterministic else "sampled",
        "return": asdict(mean_interval([episode.episode_return for episode in played])),
        "length": asdict(mean_interval([float(episode.length) for episode in played])),
        "terminated": sum(episode.terminated for episode in played),
        "truncated": sum(not episode.terminated for episode in played),
        "episodes": [asdict(episode) for episode in played],
    }
    successes = [float(episode.success) for episode in played if episode.success is not None]
    if successes:
        result["success"] = asdict(wilson_interval(sum(successes), len(successes)))
    return result


def _table(results: list[dict[str, Any]]) -> Table:
    returns = [Interval(**result["return"]) for result in results]
    over_runs = runs_interval([interval.mean for interval in returns])
    # A mean over different tasks would say nothing.
    one_task = len({result["environment"] for result in results}) == 1
    table = Table(
        box=None, show_footer=len(results) > 1 and one_task, header_style="dim", pad_edge=False
    )
    table.add_column("run", footer=f"mean of {over_runs.n} runs", overflow="fold")
    table.add_column("model")
    table.add_column("step", justify="right")
    table.add_column(Text("return [95 %]"), justify="right", footer=_said(over_runs), no_wrap=True)
    table.add_column("length", justify="right")
    table.add_column("cut off", justify="right", no_wrap=True)
    for result, interval in zip(results, returns, strict=True):
        table.add_row(
            inert_text(result["run"]),
            result["model"],
            f"{result['step']:,}",
            _said(interval),
            f"{result['length']['mean']:.0f}",
            f"{result['truncated'] / interval.n:.0%}",
        )
    return table


def _said(interval: Interval) -> Text:
    return Text(f"{short(interval.mean)} [{short(interval.low)}, {short(interval.high)}]")
