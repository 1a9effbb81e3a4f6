"""What a run came to, in one shape for agents and language experiments, and runs in groups.

A result rests on the run's evaluation.json alone: on episodes or prompts that training never saw.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rl_lab import recipes
from rl_lab.errors import UserError
from rl_lab.files import is_directory, is_file
from rl_lab.language_evaluation import LanguageEvaluation, mapping, number
from rl_lab.recipe_differences import UNIMPORTANT
from rl_lab.run import Run, all_runs, runs_directory
from rl_lab.statistics import Interval
from rl_lab.text import short

JUDGED = "best greedy"
"""The evaluation of an agent that counts: its best model, acting greedily."""

DEEPEST = 32
"""Directories that a pattern may name; pathlib follows them by recursion."""

NAMELY = (*UNIMPORTANT, "sweep", "target_return", "reference_return")
"""Keys of a recipe that say what is meant by it, not what is done."""


@dataclass(frozen=True)
class Measure:
    """One number of a result."""

    name: str
    """Such as `return`, or `gold gain (stars)`."""
    better: Literal["higher", "lower", "neither"] = "higher"
    form: str | None = None
    """How it is written; None: to so many digits as its size asks for."""

    def said(self, interval: Interval) -> str:
        """Write an interval: `0.76 [0.71, 0.81]`; of one run, its value alone."""
        write = short if self.form is None else self.form.format
        if interval.n == 1:
            return write(interval.mean)
        return f"{write(interval.mean)} [{write(interval.low)}, {write(interval.high)}]"


@dataclass(frozen=True)
class Result:
    """What one run came to."""

    run: Run
    kind: Literal["agent", "language"]
    recipe: dict[str, Any]
    """Resolved, as plain data."""
    measures: dict[Measure, float]
    """The first is the one that counts; empty: the run has not been judged, or, of an experiment,
    by no gold judge: its KL alone does not say what it is worth."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """What must be equal for two results to be comparable: task, budget, and way of judging."""

    @property
    def seed(self) -> int | None:
        """The recipe's."""
        seed = self.recipe.get("seed")
        return seed if isinstance(seed, int) else None


@dataclass(frozen=True)
class Group:
    """Runs of one recipe, which differ in their seeds."""

    name: str
    results: tuple[Result, ...]
    """By seed."""

    @property
    def judged(self) -> list[Result]:
        """Those that have been judged."""
        return [result for result in self.results if result.measures]

    @property
    def measures(self) -> list[Measure]:
        """What every judged run of it has, the one that counts first."""
        every = [result.measures for result in self.judged]
        return [name for name in every[0] if all(name in one for one in every)] if every else []

    def values(self, measure: Measure) -> list[float]:
        """One number for each judged run, by seed."""
        return [result.measures[measure] for result in self.judged]

    @property
    def recipe(self) -> dict[str, Any]:
        """That of its first run."""
        return self.results[0].recipe

    @property
    def conditions(self) -> dict[str, Any]:
        """Those of its judged runs; what they do not share is a list of what there is."""
        found: dict[str, Any] = {}
        for result in self.judged:
            for key, value in result.conditions.items():
                found.setdefault(key, [])
                if value not in found[key]:
                    found[key].append(value)
        return {key: one[0] if len(one) == 1 else one for key, one in found.items()}


# --- one run -------------------------------------------------------------------------------------


def result_of(run: Run) -> Result:
    """Read what a run came to.

    Raises:
        UserError: its recipe cannot be read.
    """
    recipe = recipes.read(str(run.recipe_file))[2]
    return _agent_result(run, recipe) if "env" in recipe else _language_result(run, recipe)


def is_current(run: Run, judged: Mapping[str, Any]) -> bool:
    """Whether an evaluation of the best model is of what is the best model now."""
    steps = [int(path.name) for path in run.best.glob("*") if path.name.isdecimal()]
    return not steps or judged.get("step") == max(steps)


def _agent_result(run: Run, recipe: dict[str, Any]) -> Result:
    judged = mapping(run.evaluations.get(JUDGED))
    measures = {}
    for name, better in (("return", "higher"), ("success", "higher"), ("length", "neither")):
        mean = number(mapping(judged.get(name)).get("mean"))
        if mean is not None:
            measures[Measure(name, better)] = mean  # type: ignore[arg-type]
    if Measure("return") not in measures or not is_current(run, judged):
        measures = {}
    environment = mapping(recipe.get("env"))
    conditions = {
        "environment": environment.get("id"),
        "environment's settings": environment.get("kwargs"),
        # Returns are counted around them: one may change rewards, or end episodes.
        "environment's wrappers": environment.get("wrappers") or [],
        "budget (steps)": mapping(recipe.get("budget")).get("steps"),
        "judged by": f"{JUDGED} model" if judged else None,
        "episodes": number(mapping(judged.get("return")).get("n")),
        "first episodes' seeds": [
            mapping(episode).get("seed") for episode in _list(judged.get("episodes"))[:5]
        ],
    }
    return Result(run, "agent", recipe, measures, conditions)


def _language_result(run: Run, recipe: dict[str, Any]) -> Result:
    evaluation = LanguageEvaluation(run.evaluations)
    measures = {}
    for judge, gain in evaluation.gains.items():
        if gain is not None:
            measures[Measure(f"gold gain, {judge} (SD)", form="{:+.2f}")] = gain.mean
    for judge, rate in evaluation.win_rates.items():
        if rate is not None:
            measures[Measure(f"win rate, {judge}", form="{:.1%}")] = rate.mean
    if measures and evaluation.kl is not None:
        measures[Measure("KL to the reference (nats)", "lower", "{:.2f}")] = evaluation.kl.mean
    if measures and evaluation.distinct_2_kept is not None:
        measures[Measure("distinct-2 kept", form="{:.1%}")] = evaluation.distinct_2_kept
    pretrain, ppo = (mapping(recipe.get(stage)) for stage in ("pretrain", "ppo"))
    conditions = {
        "data": recipe.get("data"),
        "starting model": pretrain or ppo.get("policy"),
        "gold judges": recipe.get("judges"),
        "budget (rollouts)": (number(ppo.get("updates")) or 0) * (number(ppo.get("rollouts")) or 0),
        "prompts": evaluation.prompts,
    }
    return Result(run, "language", recipe, measures, conditions)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# --- several -------------------------------------------------------------------------------------


def find(names: Sequence[str]) -> list[Run]:
    """Find runs by name, directory, pattern or directory of runs, each once.

    Args:
        names: each a run; a directory that holds runs, as a benchmark's or a sweep's; a name
            without its `-seed<k>`, for all seeds; a pattern such as `cartpole-*`; or the name of
            a recipe.

    Raises:
        UserError: one of them finds none.
    """
    found: dict[Path, Run] = {}
    for name in names:
        if not name:  # would be the working directory, so every run
            raise UserError("no run has an empty name; `rl-lab runs` lists the runs")
        for run in _found_by(name):
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def _found_by(name: str) -> list[Run]:
    for path in (Path(name), runs_directory() / name):
        if is_file(path / "recipe.yaml"):
            return [Run(path)]
        if is_directory(path):
            inside = _in_order(Run(file.parent) for file in path.glob("*/recipe.yaml"))
            if inside:
                return inside
    shallow = len(Path(name).parts) <= DEEPEST
    for parent in (Path(), runs_directory()) if shallow else ():
        try:
            paths = [*parent.glob(name), *parent.glob(f"{name}-seed*")]
        except (OSError, ValueError, NotImplementedError, IndexError):  # an unusable pattern
            paths = []
        runs = [
            Run(path)
            for path in paths
            if is_file(path / "recipe.yaml")
            and (any(sign in name for sign in "*?[") or re.search(r"-seed\d+$", path.name))
        ]
        if runs:
            return _in_order(runs)
    of_recipe = [run for run in all_runs() if _recipe_name(run) == name]
    return of_recipe or [Run.open(name)]  # which raises, with the nearest name


def _recipe_name(run: Run) -> str | None:
    try:
        return recipes.read(str(run.recipe_file))[2].get("name")
    except UserError:
        return None


def _in_order(runs: Iterable[Run]) -> list[Run]:
    """By name, seeds as numbers."""

    def key(run: Run) -> tuple[str, int]:
        base, _, seed = run.name.rpartition("-seed")
        return (base, int(seed)) if seed.isdecimal() else (run.name, 0)

    return sorted(runs, key=key)


def groups(runs: Iterable[Run]) -> list[Group]:
    """Put together the runs that differ in nothing but their seeds, in the order of the first."""
    found: dict[str, list[Result]] = {}
    for run in runs:
        result = result_of(run)
        found.setdefault(_identity(result), []).append(result)
    return [
        Group(_common_name(results), tuple(sorted(results, key=lambda one: one.seed or 0)))
        for results in found.values()
    ]


def named_group(name: str, runs: Sequence[Run]) -> Group:
    """A group somebody named.

    Raises:
        UserError: its runs are of different recipes.
    """
    found = groups(runs)
    if len(found) != 1:
        listed = ", ".join(repr(group.name) for group in found)
        raise UserError(
            f"{name!r} is runs of {len(found)} recipes ({listed}); name groups of one recipe each"
        )
    return Group(name, found[0].results)


def _identity(result: Result) -> str:
    told = {key: value for key, value in result.recipe.items() if key not in NAMELY}
    return repr((result.run.path.parent.resolve(), _base(result.run.name), sorted(told.items())))


def _base(name: str) -> str:
    return re.sub(r"-seed\d+$", "", name)


def _common_name(results: Sequence[Result]) -> str:
    return _base(results[0].run.name)
