"""`rl-lab train`: from a recipe, or a run to go on with, to a finished run directory."""

import contextlib
import json as json_module
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rl_lab import recipes, threads
from rl_lab.commands import kinds
from rl_lab.commands.kinds import Kind, Recipe
from rl_lab.commands.supervision import supervise
from rl_lab.engines.workers import LAB, Job, Workers, training
from rl_lab.errors import UserError
from rl_lab.experiment_view import ExperimentView, view_of
from rl_lab.files import writing
from rl_lab.metrics import last_wall
from rl_lab.rl.trust import grant, granted
from rl_lab.run import Run, check_name, fresh_names, runs_directory
from rl_lab.screens.follow import follow
from rl_lab.signals import StopRequest
from rl_lab.storage import check_writable
from rl_lab.text import inert, short

MOST_SEEDS = 1000


def train(
    recipe: str | None = None,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    seeds: str | None = None,
    jobs: int | None = None,
    name: str | None = None,
    resume: str | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    print_recipe: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    fresh: Annotated[bool, Parameter(negative=())] = False,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """Train an agent, or take a language model through RLHF, from a recipe.

    Examples: `rl-lab train cartpole`, `rl-lab train sac --env.id Pendulum-v1 --seeds 0-4`,
    `rl-lab train movie-reviews`, `rl-lab train --resume cartpole-seed0`.

    Parameters
    ----------
    recipe
        A built-in recipe (`rl-lab recipes` lists them) or a YAML file.
    overrides
        Recipe keys to change, as --section.field VALUE; `rl-lab recipes NAME --keys` explains them.
    seeds
        Seeds to run side by side, such as 0-4 or 0,3,7; one run directory each.
    jobs
        Runs at a time with --seeds; as many as there are cores if not given.
    name
        Name of the run directory; with --seeds, the part before -seedN.
    resume
        A run to go on with, from its newest checkpoint; takes no recipe and no overrides.
    dry_run
        Build everything, train nothing, write nothing.
    print_recipe
        Print the resolved recipe and stop.
    json
        Print the result as JSON, an object a run, and nothing else.
    quiet
        Show no progress.
    fresh
        Run every stage of a language experiment, also those another experiment has finished.
    trust
        A module that the environment's id may import (module:Id); importing it runs its code.
    """
    quiet = quiet or json
    grant(trust or [])
    if resume is not None:
        if recipe is not None or overrides or seeds or name:
            raise UserError(
                "--resume takes only the run: it goes on with the recipe it was started with"
            )
        run = Run.open(resume)
        kind, resolved = kinds.load(str(run.recipe_file))
        threads.pin(resolved.threads)
        return _train_here(run, kind, resolved, (), quiet, json, fresh)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: should be at least 1")
    if recipe is None:
        raise UserError("train needs a recipe; `rl-lab recipes` lists the built-in ones")

    if name is not None:
        check_name(name)
    changes = recipes.parse_overrides(overrides)
    kind, resolved = kinds.load(recipe, changes)
    chosen_seeds = [resolved.seed] if seeds is None else parse_seeds(seeds)
    threads.pin(resolved.threads)
    if not (dry_run or print_recipe):
        check_writable(runs_directory())
    notes = kind.check(resolved, recipe, dry_run)
    if print_recipe:
        print(recipes.dump(resolved), end="")
        return 0
    for note in notes:
        print(f"note: {inert(note)}", file=sys.stderr)
    if dry_run:
        print(f"dry run: {inert(resolved.name)} builds; nothing was trained or written")
        return 0

    names = fresh_names(name or resolved.name, chosen_seeds)
    if name is not None and seeds is None:
        names = [name]
    runs = [
        Run.create(run_name, recipes.for_run(resolved, seed), sys.argv, seed, resolved.threads)
        for run_name, seed in zip(names, chosen_seeds, strict=True)
    ]
    if len(runs) == 1:
        own = recipes.for_run(resolved, chosen_seeds[0])
        return _train_here(runs[0], kind, own, notes, quiet, json, fresh)
    cores = os.cpu_count() or 1
    jobs = jobs or max(1, cores // resolved.threads)
    return _train_side_by_side(runs, jobs, quiet, json, fresh)


def parse_seeds(text: str) -> list[int]:
    """Read `0-4`, `0,3,7` or a mixture.

    Raises:
        UserError: it is none of these, or names a seed twice.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            numbers = range(int(first), int(last if dash else first) + 1)
            seeds += numbers[: MOST_SEEDS + 1]
    except (ValueError, OverflowError):
        seeds = []
    unique = len(set(seeds)) == len(seeds)
    if not seeds or not unique or len(seeds) > MOST_SEEDS or max(seeds) >= 2**31:
        raise UserError(
            f"--seeds {text!r}: should be at most {MOST_SEEDS} different whole numbers below "
            "2**31, such as 0-4 or 0,3,7"
        )
    return seeds


def _train_here(
    run: Run,
    kind: Kind,
    recipe: Recipe,
    notes: tuple[str, ...],
    quiet: bool,
    json: bool,
    fresh: bool,
) -> int:
    """Train in this process, a second one showing the dashboard."""
    if run.state == "finished":
        _report_results([run], json)
        return 0
    with StopRequest() as stop:
        try:
            with contextlib.nullcontext() if quiet else _watcher(run):
                kind.train(run, recipe, stop, notes, fresh)
        except kinds.TrainingFailed as error:
            print(f"rl-lab: {inert(run.name)} failed: {inert(error)}", file=sys.stderr)
            if json:
                _report_results([run], json)
            return 1
        except KeyboardInterrupt:
            pass
        _report_results([run], json)
        return stop.exit_code if stop.signal is not None else 0


def _train_side_by_side(runs: list[Run], jobs: int, quiet: bool, json: bool, fresh: bool) -> int:
    """Train each run in a process of its own."""
    options = ["--fresh"] * fresh + [f"--trust={name}" for name in granted()]
    workers = Workers([Job(run, [training(run, options)]) for run in runs], jobs)
    with StopRequest() as stop:
        show = None if quiet else partial(follow, [view_of(run) for run in runs])
        supervise(workers, stop, workers.poll, show)
        _report_results(runs, json)
        if stop.signal is not None:
            return stop.exit_code
        return 1 if workers.failed else 0


@contextlib.contextmanager
def _watcher(run: Run) -> Iterator[None]:
    """Show the run while it trains here, from a process of its own: drawing costs training nothing.

    On a terminal, what this process prints meanwhile (an environment's messages, warnings) would
    tear the picture, so it goes to `console.log` in the run directory.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
    # A session of its own keeps the terminal's Ctrl-C from it: it shows the run to its end.
    command = [*LAB, "watch", str(run.path), f"--trainer={os.getpid()}"]
    watcher = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        console = run.path / "console.log"
        with writing(console):
            log = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in saved:
            os.dup2(log, number)
        os.close(log)
        yield
    finally:
        try:
            watcher.terminate()  # it draws once more and ends
            watcher.wait()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, duplicate in saved.items():
                os.dup2(duplicate, number)
                os.close(duplicate)


def _report_results(runs: list[Run], json: bool) -> None:
    """Say how runs ended, and what to type next; or a JSON object for each, a line each."""
    for run in runs:
        result = _result(run)
        print(json_module.dumps(result) if json else _said(run.name, result))
    if json:
        return
    finished = [_shortest(run.path) for run in runs if run.state == "finished"]
    if finished:
        view = view_of(runs[0])
        experiment = view if isinstance(view, ExperimentView) else None
        if experiment is None or "evaluate" in experiment.stages:
            print(f"  judge: rl-lab evaluate {' '.join(finished)}")
        print(f"  see:   rl-lab {'report' if experiment else 'play --video'} {finished[0]}")
    for run in runs:
        if run.state != "finished":
            print(f"  go on: rl-lab train --resume {_shortest(run.path)}")


def _result(run: Run) -> dict[str, Any]:
    status = run.status
    return {
        "run": str(run.path),
        "state": run.state,
        "reason": status.get("reason"),
        "steps": status["step"],
        "unit": status.get("unit", "steps"),
        "seconds": last_wall(run.metrics_file),
        "best": status.get("best"),
    }


def _said(name: str, result: dict[str, Any]) -> str:
    done = f"{result['steps']:,} {inert(result['unit'])} in {result['seconds']:.1f} s"
    head = f"{result['state']}: {inert(name)} · {done}"
    best, parts = result["best"], []
    if best:
        parts.append(f"best return {short(best['return'])} at step {best['step']:,}")
    if result["reason"]:
        parts.append(inert(result["reason"]))
    return f"{head}\n  {' · '.join(parts)}" if parts else head


def _shortest(path: Path) -> str:
    """The path as a user in this directory would type it."""
    return inert(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
