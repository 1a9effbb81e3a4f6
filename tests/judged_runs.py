"""Run directories of agents that have been judged, made without training any."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rl_lab.files import write_json
from rl_lab.run import Run

RECIPE: dict[str, Any] = {
    "name": "cartpole",
    "env": {"id": "CartPole-v1", "kwargs": {}},
    "algorithm": {"name": "ppo", "gamma": 0.98},
    "budget": {"steps": 1000},
    "target_return": 475.0,
}
VERSIONS = {"python": "3.11.7", "torch": "2.13.0"}


def judged_run(
    path: Path,
    seed: int,
    mean: float | None,
    recipe: Mapping[str, Any] = RECIPE,
    episodes: int = 10,
    versions: Mapping[str, str] = VERSIONS,
) -> Run:
    """Make a finished run; a `mean` of None: it has not been judged."""
    path.mkdir(parents=True)
    run = Run(path)
    run.recipe_file.write_text(yaml.safe_dump({**recipe, "seed": seed}))
    write_json(path / "provenance.json", {"versions": dict(versions), "threads": 1})
    run.update_status(state="finished", step=1000, created=float(seed + 1), cpu_seconds=3.0)
    if mean is not None:
        played = [{"seed": 100 + n, "episode_return": mean, "length": 5} for n in range(episodes)]
        judged = {
            "return": {"mean": mean, "low": mean, "high": mean, "n": episodes},
            "length": {"mean": 5.0, "low": 5.0, "high": 5.0, "n": episodes},
            "episodes": played,
        }
        write_json(run.evaluation_file, {"best greedy": judged})
    return run


def judged_group(
    parent: Path, name: str, means: Sequence[float | None], **options: Any
) -> list[Run]:
    """Make runs `<name>-seed0`, ... with these means."""
    return [
        judged_run(parent / f"{name}-seed{seed}", seed, mean, **options)
        for seed, mean in enumerate(means)
    ]
