"""A suite's directory as a benchmark would leave it, without training anything."""

import math
from pathlib import Path
from typing import Any

import yaml

from rl_lab import recipes
from rl_lab.files import write_json
from rl_lab.metrics import MetricLog
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run

LEVELS = {"cartpole": (480.0, 4.0), "pendulum": (-150.0, 9.0)}
"""Mean and spread of the judged returns, by recipe."""


def build(root: Path, seeds: int = 6, name: str = "small") -> Path:
    """Write two groups of agents, judged, with curves, warnings and what was published.

    Args:
        root: the runs directory.
        seeds: of each group.
        name: of the suite.
    """
    directory = root / name
    directory.mkdir(parents=True)
    entries: list[dict[str, Any]] = [
        {"recipe": "pendulum", "random": -1200.0, "references": [
            {"value": -300.0, "runs": 1, "source": "the first <source>"},
            {"value": -90.0, "spread": 2.5, "comparable": False, "source": "another"}]},
        {"recipe": "cartpole", "random": 20.0, "references": [
            {"value": 500.0, "runs": 1, "source": "the second"}]},
    ]  # fmt: skip
    suite = {"name": name, "description": "two tasks", "seeds": seeds, "entries": entries}
    (directory / "suite.yaml").write_text(yaml.safe_dump(suite))
    for recipe in LEVELS:
        for seed in range(seeds):
            agent(directory, recipe, seed)
    return directory


def agent(parent: Path, recipe: str, seed: int, **overrides: Any) -> Run:
    """Write one finished and judged run."""
    loaded = recipes.load(AgentRecipe, recipe, {"seed": seed, **overrides})
    command = ["/somewhere/rl-lab", "benchmark", "small"]
    run = Run.create(f"{recipe}-seed{seed}", loaded, command, seed, 1, parent=parent)
    level, spread = LEVELS[recipe]
    score = level + spread * math.cos(2.4 * seed)
    with MetricLog(run.metrics_file) as log:
        for step in range(0, 5001, 1000):
            reached = score - (5000 - step) * 0.05
            log.log(step, {"eval/mean_reward": reached, "eval/std_reward": 1.0})
        log.event(5000, "note", f"{seed + 3} checkpoints could not be saved", "warning")
    run.update_status(state="finished", step=5000, wall=60.0, cpu_seconds=30.0)
    episodes = [
        {"seed": 100 + number, "episode_return": score + number - 1, "length": 200,
         "terminated": True, "success": None}
        for number in range(3)
    ]  # fmt: skip
    interval = {"mean": score, "low": score - 1, "high": score + 1, "n": 3}
    result = {"run": run.name, "environment": loaded.env.id, "model": "best", "step": 5000,
              "actions": "greedy", "return": interval, "truncated": 0,
              "length": {"mean": 200.0, "low": 200.0, "high": 200.0, "n": 3},
              "episodes": episodes}  # fmt: skip
    write_json(run.evaluation_file, {"best greedy": result})
    return run
