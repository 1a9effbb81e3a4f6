"""`rl-lab sweep`: better values for some keys of a recipe, and whether they really are better."""

import json as json_module
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from rl_lab import recipes, threads
from rl_lab.commands import kinds
from rl_lab.commands.kinds import Kind, Recipe
from rl_lab.commands.supervision import supervise
from rl_lab.commands.sweep_tables import show
from rl_lab.errors import UserError, nearest
from rl_lab.files import is_file, write_atomically
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.trust import grant, granted
from rl_lab.run import Run, check_name, runs_directory
from rl_lab.screens.follow import follow
from rl_lab.signals import StopRequest
from rl_lab.storage import check_writable
from rl_lab.sweep import space
from rl_lab.sweep.measure import AgentMeasure, LanguageMeasure, Measure
from rl_lab.sweep_recipe import Sweep
from rl_lab.text import inert

RECIPE_FILE = "sweep.yaml"


def sweep(
    recipe: str | None = None,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    trials: int | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    name: str | None = None,
    resume: str | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """Search the space in a recipe's `sweep` section for values that learn better.

    Trials that do worse than the median are ended early. The best, and the recipe as it is, are
    trained again on seeds that no trial used; only that decides whether one is called better. The
    result is a recipe, winner.yaml. Examples: `rl-lab sweep cartpole`,
    `rl-lab sweep pendulum --trials 30 --name mine`, `rl-lab sweep --resume mine`.

    Parameters
    ----------
    recipe
        A built-in recipe with a `sweep` section (`rl-lab recipes` lists them), or a YAML file.
    overrides
        Recipe keys to change, as --section.field VALUE.
    trials
        Trials, pruned and failed ones included; as the recipe says if not given.
    seeds
        Runs that a trial's value is the mean of; as the recipe says if not given.
    jobs
        Runs at a time; as many as there are cores if not given. With 1, a sweep repeats itself.
    name
        Name of its directory. One that is there already and was stopped goes on.
    resume
        A sweep to go on with, after a stop or a kill; takes no recipe and no overrides.
    json
        Print the result as JSON, and nothing else.
    quiet
        Show no progress.
    trust
        A module that the environment's id may import (module:Id); importing it runs its code.
    """
    grant(trust or [])
    for option, value in (("trials", trials), ("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise UserError(f"--{option} {value}: should be at least 1")
    if resume is not None:
        if recipe is not None or overrides or name or trials or seeds:
            raise UserError(
                "--resume takes only the sweep: it goes on with the recipe it was started with"
            )
        directory = _find(resume)
        kind, resolved = kinds.load(str(directory / RECIPE_FILE))
    else:
        if recipe is None:
            raise UserError("sweep needs a recipe; `rl-lab recipes` lists the built-in ones")
        kind, resolved = _load(recipe, recipes.parse_overrides(overrides), trials, seeds)
        name = name or _fresh_name(resolved.name)
        check_name(name)
        directory = runs_directory() / name
    source = recipe or str(directory / RECIPE_FILE)
    section = _section(resolved, source)
    wanted = section.seeds_a_trial + section.fresh_seeds
    if resolved.seed + wanted > 2**31:
        raise UserError(f"seed = {resolved.seed}: {wanted} seeds from there on go beyond 2**31")
    measure = _measure(resolved)
    threads.pin(resolved.threads)
    check_writable(runs_directory())
    for note in kind.check(resolved, source, False):
        print(f"note: {inert(note)}", file=sys.stderr)
    space.check(
        section.parameters,
        lambda values: kind.check(_changed(kind, resolved, values), source, False),
    )
    if resume is None:
        _begin(directory, resolved)
    jobs = jobs or max(1, (os.cpu_count() or 1) // resolved.threads)
    return _run(directory, kind, resolved, section, measure, jobs, quiet or json, json)


# --- what is searched ----------------------------------------------------------------------------


def _load(
    recipe: str, changes: dict[str, Any], trials: int | None, seeds: int | None
) -> tuple[Kind, Recipe]:
    """Load a recipe; numbers from the command line go into its `sweep` section."""
    _section(kinds.load(recipe, changes)[1], recipe)
    given = {"sweep.trials": trials, "sweep.seeds_a_trial": seeds}
    return kinds.load(recipe, changes | {k: value for k, value in given.items() if value})


def _section(recipe: Recipe, name: str) -> Sweep:
    if recipe.sweep is None:
        raise UserError(
            f"recipe {name!r} has no `sweep` section; it says which keys to search, as in "
            "sweep: {parameters: {algorithm.gamma: {low: 0.9, high: 0.999}}}"
        )
    return recipe.sweep


def _measure(recipe: Recipe) -> Measure:
    if isinstance(recipe, AgentRecipe):
        return AgentMeasure(recipe.evaluation.every, recipe.budget.steps)
    if recipe.ppo is None or recipe.evaluate is None or not recipe.judges:
        raise UserError(
            f"recipe {recipe.name!r} cannot be searched: a trial's value is the gain by the first "
            "gold judge, which takes judges, ppo and evaluate sections"
        )
    return LanguageMeasure(next(iter(recipe.judges)), recipe.ppo.looks.every, recipe.ppo.updates)


def _changed(kind: Kind, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at some keys.

    Raises:
        UserError: they cannot be used.
    """
    data = recipes.override(recipe.model_dump(mode="json"), values)
    changed: Any = recipes.check(kind.recipe, data, {}, path=Path(recipe.name), lines={})
    return changed


def _whole(kind: Kind, recipe: Recipe) -> Recipe:
    """The recipe, trained to the end of its budget: then all trials have had the same."""
    if isinstance(recipe, AgentRecipe) and recipe.evaluation.stop_after_solved is not None:
        return _changed(kind, recipe, {"evaluation.stop_after_solved": None})
    return recipe


# --- where it is ---------------------------------------------------------------------------------


def _find(name: str) -> Path:
    """The directory of a sweep, by path, or by name in the runs directory.

    Raises:
        UserError: there is none.
    """
    for path in (Path(name), runs_directory() / name):
        if is_file(path / RECIPE_FILE):
            return path
    known = [path.parent.name for path in runs_directory().glob(f"*/{RECIPE_FILE}")]
    hint = nearest(Path(name).name, known) or (f"; there are {', '.join(known)}" if known else "")
    raise UserError(f"no sweep {name!r} here or in {runs_directory()}{hint}")


def _fresh_name(recipe: str) -> str:
    """`cartpole-sweep`, or the first of `cartpole-sweep-2`, ... that is free."""
    stem = f"{recipe[:80]}-sweep"
    count, name = 1, stem
    while (runs_directory() / name).exists():
        count += 1
        name = f"{stem}-{count}"
    return name


def _begin(directory: Path, recipe: Recipe) -> None:
    """Make the sweep's directory; one of the same recipe that is there goes on.

    Raises:
        UserError: it is something else's.
        StorageError: it cannot be made.
    """
    file = directory / RECIPE_FILE
    if is_file(file):
        if kinds.load(str(file))[1] != recipe:
            raise UserError(
                f"sweep {str(directory)!r} was made from another recipe; choose another --name, or "
                "go on with it by --resume"
            )
        return
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"{str(directory)!r} exists and is no sweep; choose another --name")
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(file, recipes.dump(recipe))


# --- running it ----------------------------------------------------------------------------------


def _run(
    directory: Path,
    kind: Kind,
    recipe: Recipe,
    section: Sweep,
    measure: Measure,
    jobs: int,
    quiet: bool,
    json: bool,
) -> int:
    from rl_lab.sweep.course import Course

    whole = _whole(kind, recipe)
    options = [f"--trust={module}" for module in granted()]
    console = Console()

    def say(sentence: str) -> None:
        if not quiet:
            console.print(inert(sentence), markup=False, highlight=False, soft_wrap=True)

    with Run(directory).lock(), StopRequest() as stop:
        course = Course(
            directory, section, measure, recipe.seed,
            lambda values: _changed(kind, whole, values), jobs, options, say,
        )  # fmt: skip
        live = partial(follow, course.views, console=console, heading=course.heading)
        supervise(course.workers, stop, course.more, None if quiet else live)
        if stop.signal is not None:
            print(f"stopped; go on: rl-lab sweep --resume {inert(directory)}", file=sys.stderr)
            return stop.exit_code
        result = course.result()
    _write_winner(directory, kind, recipe, result)
    if json:
        print(json_module.dumps(result))
    else:
        show(result, section, console)
        console.print(f"  train: rl-lab train {inert(directory / 'winner.yaml')}", markup=False)
    return 0


def _write_winner(directory: Path, kind: Kind, recipe: Recipe, result: Mapping[str, Any]) -> None:
    """Write the recipe that did best on fresh seeds, and above it what may be said of it."""
    (chosen,) = (one for one in result["contenders"] if one["label"] == result["chosen"])
    winner = recipes.for_run(_changed(kind, recipe, chosen["parameters"]), recipe.seed)
    winner = winner.model_copy(update={"name": directory.name})
    which = "the recipe as it is" if chosen["trial"] is None else f"trial {chosen['trial']}"
    head = f"# {which} of sweep {inert(directory.name)}, on {len(result['seeds'])} fresh seeds:\n"
    text = f"{head}# {result['verdict']}\n{recipes.dump(winner)}"
    write_atomically(directory / "winner.yaml", text)
