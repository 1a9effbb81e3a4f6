"""`rl-lab report`: a run, a group of runs, or a suite, as a page and as JSON."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rl_lab import results, suites
from rl_lab.commands.kinds import differences_to_default
from rl_lab.errors import UserError
from rl_lab.files import is_directory, is_file
from rl_lab.reports import agent_group
from rl_lab.results import Group
from rl_lab.rl.trust import grant
from rl_lab.run import Run, runs_directory
from rl_lab.text import inert, short


def report(
    *runs: str,
    output: Path | None = None,
    videos: Annotated[bool, Parameter(negative=())] = False,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """Write a report: a self-contained HTML page, and the same content as JSON beside it.

    One run, or experiment, is told of in detail. Of several, those of one recipe form a group: its
    interquartile mean and mean over seeds, beside what was published. A suite's directory has all
    of its groups in one report, and what they come to together.

    Parameters
    ----------
    runs
        Each a run, a directory of runs (a suite's), a name without -seed<k>, or a pattern.
    output
        The page; report.html in the directory of the run or suite if not given.
    videos
        First record the best, median and worst of the judged episodes of each group of agents.
    trust
        A module that an environment's id may import (module:Id); importing it runs its code.
    """
    from rl_lab.reports.report import write_group_report, write_report

    grant(trust or [])
    if not runs:
        raise UserError("report needs a run; `rl-lab runs` lists them")
    if output is not None and (output.suffix == ".json" or is_directory(output)):
        raise UserError(f"--output {output}: should be the page, such as report.html")
    found = results.find(runs)
    alone = found[0] if len(found) == 1 and is_file(found[0].recipe_file) else None
    directory = _directory(runs[0]) if len(runs) == 1 else None
    if alone is not None and directory is None:
        if videos:
            _record([alone])
        print(inert(write_report(alone, differences_to_default, output)))
        return 0
    groups = results.groups(found)
    if videos:
        for group in groups:
            _record([result.run for result in group.results])
    suite = suites.load(str(directory)) if directory and is_file(directory / "suite.yaml") else None
    title = directory.name if directory else _title(groups)
    page = output or (directory or found[0].path.parent) / _file_name(groups, directory)
    print(inert(write_group_report(groups, title, differences_to_default, page, suite)))
    return 0


def _directory(name: str) -> Path | None:
    """The directory of runs that is meant; None where it is a run, or runs, by name."""
    for path in (Path(name), runs_directory() / name):
        if is_file(path / "recipe.yaml"):
            return None
        if is_directory(path):
            return path.resolve()
    return None


def _title(groups: list[Group]) -> str:
    return ", ".join(group.name for group in groups[:3]) + (", ..." if len(groups) > 3 else "")


def _file_name(groups: list[Group], directory: Path | None) -> str:
    return "report.html" if directory or len(groups) > 1 else f"{groups[0].name}-report.html"


def _record(runs: list[Run]) -> None:
    """Record the episodes worth seeing of a group; say where one cannot be, and go on."""
    from rl_lab.rl.clips import record

    for clip in agent_group.episodes_to_see(runs):
        said = f"{clip.run.name}: {clip.what} episode, judged {short(clip.judged)}"
        try:
            again = record(clip)
        except UserError as error:
            print(f"note: {inert(said)}: {inert(error)}", file=sys.stderr)
            continue
        same = "the same" if again == clip.judged else f"{short(again)}: not the same"
        print(f"{inert(said)}, played again {same}", file=sys.stderr)
