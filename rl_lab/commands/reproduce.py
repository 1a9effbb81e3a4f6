"""`rl-lab reproduce`: a run's recipe once more, and whether it came to the same."""

import json as json_module
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter

from rl_lab import recipes, threads
from rl_lab.checkpoint import CheckpointError
from rl_lab.commands import kinds
from rl_lab.commands.kinds import Recipe
from rl_lab.commands.supervision import supervise
from rl_lab.engines.workers import LAB, Job, Workers, end_leftovers, training
from rl_lab.errors import UserError
from rl_lab.experiment_view import view_of
from rl_lab.files import is_there, write_json
from rl_lab.language_evaluation import mapping, number
from rl_lab.plain_json import read_object
from rl_lab.results import JUDGED
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.trust import grant, granted
from rl_lab.run import Run, check_name, runs_directory
from rl_lab.screens.follow import follow
from rl_lab.signals import StopRequest
from rl_lab.storage import check_writable
from rl_lab.text import inert

EPISODES = 100
"""Fresh episodes that both are judged on, unless the original was judged on another number."""
MARK = "reproduction.json"
SHOWN = 6
"""Differences that are listed."""


def reproduce(
    run: str,
    /,
    *,
    name: str | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """Train a run's recipe again, same seed, and say whether it came to the same.

    Bit-equal: weights, logged numbers and evaluation are the same. Statistically equal: they are
    not, but on the same fresh episodes or prompts the difference's 95 % interval holds 0. Both end
    with exit code 0. Different: with exit code 1. What differs in versions, threads and machine is
    said, too. Of a language experiment every stage is run again.

    Parameters
    ----------
    run
        A finished run or experiment, by name or directory. Nothing is written into it.
    name
        Name of the repetition; one that was stopped or killed goes on.
    json
        Print the result as JSON, and nothing else.
    quiet
        Show no progress.
    trust
        A module that the environment's id may import (module:Id); importing it runs its code.
    """
    grant(trust or [])
    original = Run.open(run)
    kind, recipe = kinds.load(str(original.recipe_file))
    if original.state != "finished":
        raise UserError(
            f"run {original.name!r} is {original.state}, not finished; `rl-lab train --resume "
            f"{original.name}` goes on with it"
        )
    threads.pin(recipe.threads)
    check_writable(runs_directory())
    kind.check(recipe, str(original.recipe_file), False)
    again = _repetition(original, recipe, name)
    episodes = _episodes(original)
    commands = _commands(again, recipe, episodes)
    workers = Workers([Job(again, commands)] if commands else [], 1)
    with StopRequest() as stop:
        show = None if quiet or json else partial(follow, [view_of(again)])
        supervise(workers, stop, workers.poll, show)
        if stop.signal is not None:
            print(
                f"stopped; go on: rl-lab reproduce {inert(run)} --name {again.name}",
                file=sys.stderr,
            )
            return stop.exit_code
    if again.state != "finished":
        why = again.status.get("reason") or f"see {again.path / 'console.log'}"
        print(f"rl-lab: {again.name} {again.state}: {inert(why)}", file=sys.stderr)
        return 1
    return _tell(original, again, _evaluations(original, recipe, episodes), json)


def _repetition(original: Run, recipe: Recipe, name: str | None) -> Run:
    """Make the run that repeats another, or find the one that was begun under this name.

    Raises:
        UserError: the name is taken by something else.
    """
    if name is None:
        name, count = f"{original.path.resolve().name[:80]}-again", 1
        while is_there(runs_directory() / (name if count == 1 else f"{name}-{count}")):
            count += 1
        name = name if count == 1 else f"{name}-{count}"
    check_name(name)
    again = Run(runs_directory() / name)
    source = str(original.path.resolve())
    if is_there(again.path):
        if read_object(again.path / MARK).get("of") != source:
            raise UserError(
                f"{str(again.path)!r} exists and repeats no {original.name!r}; choose another "
                "--name"
            )
        end_leftovers([again])
        return again
    again = Run.create(name, recipes.for_run(recipe, recipe.seed), sys.argv, recipe.seed,
                       recipe.threads)  # fmt: skip
    write_json(again.path / MARK, {"of": source})
    return again


def _episodes(original: Run) -> int:
    """How many episodes an original was judged on; EPISODES, if it was not."""
    n = number(mapping(mapping(original.evaluations.get(JUDGED)).get("return")).get("n"))
    return int(n) if n is not None and 2 <= n <= 100_000 else EPISODES


def _commands(again: Run, recipe: Recipe, episodes: int) -> list[list[str]]:
    """What is left to be done for the repetition: training, and judging an agent."""
    options = [f"--trust={module}" for module in granted()]
    commands = []
    if again.state != "finished":
        # A stage from the cache would be the original's own.
        fresh = [] if isinstance(recipe, AgentRecipe) else ["--fresh"]
        commands.append(training(again, [*fresh, *options]))
    if isinstance(recipe, AgentRecipe) and (commands or not _judged(again, episodes)):
        judge = [*LAB, "evaluate", str(again.path), "--episodes", str(episodes), *options]
        commands.append(judge)
    return commands


def _judged(run: Run, episodes: int) -> bool:
    found = mapping(mapping(run.evaluations.get(JUDGED)).get("return"))
    return found.get("n") == episodes


def _evaluations(original: Run, recipe: Recipe, episodes: int) -> Mapping[str, Any]:
    """What the original's evaluation found; an agent that was not judged, is now."""
    if not isinstance(recipe, AgentRecipe) or _judged(original, episodes):
        return original.evaluations
    from rl_lab.commands.evaluate import judge

    return {JUDGED: judge(original, episodes, "best", deterministic=True)}


def _tell(original: Run, again: Run, then: Mapping[str, Any], json: bool) -> int:
    from rl_lab.reproduction import compare

    try:
        found = compare(original, again, then, again.evaluations)
    except CheckpointError as error:
        raise UserError(f"the runs cannot be compared: {error}") from None
    result = {"of": str(original.path.resolve()), "run": str(again.path)} | asdict(found)
    write_json(again.path / MARK, result)
    if json:
        print(json_module.dumps(result))
    else:
        print(f"{inert(again.name)} is {inert(found.sentence)}")
        for what, names in (("bits differ", found.bits), ("made with", found.circumstances)):
            if names:
                more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                print(f"  {what}: {inert(', '.join(names[:SHOWN]))}{more}")
    return 1 if found.word == "different" else 0
