"""`rl-lab benchmark`: a suite of recipes, several seeds each."""

import os
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from rl_lab import benchmark as runner
from rl_lab import recipes, suites, threads
from rl_lab.benchmark import Planned
from rl_lab.commands import kinds
from rl_lab.commands.report import report as write_report
from rl_lab.commands.supervision import supervise
from rl_lab.engines.choice import EngineName, open_engine
from rl_lab.engines.workers import Workers, end_leftovers
from rl_lab.errors import UserError
from rl_lab.files import is_file, write_atomically
from rl_lab.rl.trust import grant, granted
from rl_lab.run import Run, check_name, runs_directory
from rl_lab.screens.suite_progress import PlainProgress, SuiteProgress
from rl_lab.signals import StopRequest
from rl_lab.storage import check_writable
from rl_lab.suites import Suite
from rl_lab.text import inert

SECONDS_BETWEEN_LOOKS = 0.5
MOST = 1000
"""Seeds of a recipe, and runs at a time."""


def benchmark(
    suite: str,
    /,
    *,
    seeds: int | None = None,
    jobs: int | None = None,
    name: str | None = None,
    engine: EngineName = "local",
    engine_option: list[str] | None = None,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """Train every recipe of a suite on several seeds, judge what came of it, and write a report.

    Stopped or killed, the same command goes on: what is finished is kept. A run that fails does not
    stop the others; the same command tries it again.

    Parameters
    ----------
    suite
        A built-in suite or a YAML file.
    seeds
        Seeds of each recipe, from 0 on; as many as the suite says if not given.
    jobs
        Runs at a time; if not given as many as there are cores, or with a cluster all of them.
    name
        Name of its directory; the suite's if not given.
    engine
        Where runs are trained: local, ray (the cluster of RAY_ADDRESS, or one begun here) or slurm.
    engine_option
        Of ray: cpus, gpus; of slurm: partition, time (minutes), memory (GB), account, qos,
        constraint, gpus; each as KEY=VALUE.
    quiet
        Show no progress.
    trust
        A module that an environment's id may import (module:Id); importing it runs its code.
    """
    grant(trust or [])
    for option, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and not 1 <= value <= MOST:
            raise UserError(f"--{option} {value}: should be at least 1, and at most {MOST}")
    loaded = suites.load(suite)
    if seeds is not None:
        loaded = loaded.model_copy(update={"seeds": seeds})
    check_name(name or loaded.name)
    directory = runs_directory() / (name or loaded.name)
    planned = _plan(loaded, directory)
    threads.pin(1)
    check_writable(runs_directory())
    if Run(directory).recipe_file.exists():
        raise UserError(f"{str(directory)!r} is a run; choose another --name")
    _check_same(planned, loaded, directory)
    opened = open_engine(engine, engine_option or [])
    directory.mkdir(parents=True, exist_ok=True)
    most_threads = max(plan.threads for plan in planned)
    here = max(1, (os.cpu_count() or 1) // most_threads)
    jobs = jobs or (here if engine == "local" else len(planned))
    with Run(directory).lock(), StopRequest() as stop:
        write_atomically(directory / "suite.yaml", recipes.dump(loaded))
        runner.create(planned, sys.argv)
        end_leftovers([plan.run for plan in planned])
        options = [f"--trust={module}" for module in granted()]
        workers = Workers(runner.jobs(planned, loaded.episodes, options), jobs, opened)
        progress = SuiteProgress(loaded, planned, jobs)
        supervise(workers, stop, workers.poll, None if quiet else partial(_show, progress))
    progress.refresh()
    if not quiet:
        Console().print(progress.grid())
    again = inert(shlex.join(["rl-lab", *sys.argv[1:]]))
    if stop.signal is not None:
        print(f"stopped; the same command goes on: {again}", file=sys.stderr)
        return stop.exit_code
    write_report(str(directory))
    failed = [run.plan.run for run in progress.runs if run.stage != "done"]
    for run in failed:
        reason = inert(run.status.get("reason") or "see its console.log")
        print(f"rl-lab: {inert(run.path)}: {run.state}: {reason}", file=sys.stderr)
    if failed:
        print(f"the same command tries those {len(failed)} again: {again}", file=sys.stderr)
    return 1 if failed else 0


def _show(progress: SuiteProgress, going_on: Callable[[], bool]) -> None:
    """Draw the grid for as long as it goes on; where it cannot be redrawn, print lines."""
    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        plain = PlainProgress(progress)
        while going_on():
            progress.refresh()
            for line in plain.lines(time.monotonic()):
                print(line, flush=True)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while going_on():
            progress.refresh()
            live.update(progress.grid(), refresh=True)
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _plan(suite: Suite, directory: Path) -> list[Planned]:
    """Every run of a suite: seeds outermost, so that a benchmark stopped early has some of all."""
    found = []
    for entry in suite.entries:
        kind, recipe = kinds.load(entry.recipe, entry.overrides)
        for note in kind.check(recipe, entry.recipe, False):
            print(f"note: {inert(entry.label)}: {inert(note)}", file=sys.stderr)
        found.append((entry.label, recipe))
    return [
        Planned.of(directory, label, seed, recipe)
        for seed in range(suite.seeds)
        for label, recipe in found
    ]


def _check_same(planned: list[Planned], suite: Suite, directory: Path) -> None:
    """Refuse to add to runs of another suite or recipe.

    Raises:
        UserError: the directory is another suite's, or a run in it was made from another recipe.
    """
    if is_file(directory / "suite.yaml"):
        entries = [entry.label for entry in suites.load(str(directory)).entries]
        if entries != [entry.label for entry in suite.entries]:
            raise UserError(
                f"{str(directory)!r} is of a suite with other entries ({', '.join(entries)}); "
                "choose another --name"
            )
    for plan in planned:
        if plan.run.recipe_file.exists():
            _, written = kinds.load(str(plan.run.recipe_file))
            if written != plan.recipe:
                raise UserError(
                    f"{str(plan.run.path)!r} was made from another recipe than {plan.entry!r} is "
                    "now; choose another --name for a new benchmark"
                )
