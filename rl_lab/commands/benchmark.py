"""`rl-lab benchmark`: a suite of recipes, several seeds each."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rl_lab import benchmark as runner
from rl_lab import recipes, suites, threads
from rl_lab.benchmark import Planned
from rl_lab.commands import kinds
from rl_lab.errors import UserError
from rl_lab.files import write_atomically
from rl_lab.rl.trust import grant, granted
from rl_lab.run import Run, check_name, runs_directory
from rl_lab.signals import StopRequest
from rl_lab.storage import check_writable
from rl_lab.suites import Suite
from rl_lab.text import inert
from rl_lab.workers import Workers


def benchmark(
    suite: str,
    /,
    *,
    seeds: int | None = None,
    jobs: int | None = None,
    name: str | None = None,
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
        Runs at a time; as many as there are cores if not given.
    name
        Name of its directory; the suite's if not given.
    quiet
        Show no progress.
    trust
        A module that an environment's id may import (module:Id); importing it runs its code.
    """
    grant(trust or [])
    for option, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise UserError(f"--{option} {value}: should be at least 1")
    loaded = suites.load(suite)
    if seeds is not None:
        loaded = loaded.model_copy(update={"seeds": seeds})
    directory = runs_directory() / (name or loaded.name)
    check_name(directory.name)
    planned = _plan(loaded, directory)
    threads.pin(1)
    check_writable(runs_directory())
    if Run(directory).recipe_file.exists():
        raise UserError(f"{str(directory)!r} is a run; choose another --name")
    _check_same(planned)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "suite.yaml", recipes.dump(loaded))
    runner.create(planned, sys.argv)
    options = [f"--trust={module}" for module in granted()]
    work = runner.jobs(planned, loaded.episodes, options)
    most = max(job.threads for job in work) if work else 1
    jobs = jobs or max(1, (os.cpu_count() or 1) // most)
    workers = Workers(work, jobs)
    with StopRequest() as stop:
        asked = False
        try:
            while workers.poll():
                if stop.signal is not None and not asked:
                    asked = True
                    workers.stop(stop.signal)
                time.sleep(0.2)
        except KeyboardInterrupt:
            workers.kill()
        finally:
            workers.stop()
    if stop.signal is not None:
        return stop.exit_code
    return 1 if workers.failed else 0


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


def _check_same(planned: list[Planned]) -> None:
    """Refuse to add to runs of another recipe.

    Raises:
        UserError: a run that is there was made from another recipe.
    """
    for plan in planned:
        if plan.run.recipe_file.exists():
            _, written = kinds.load(str(plan.run.recipe_file))
            if written != plan.recipe:
                raise UserError(
                    f"{str(plan.run.path)!r} was made from another recipe than {plan.entry!r} is "
                    "now; choose another --name for a new benchmark"
                )
