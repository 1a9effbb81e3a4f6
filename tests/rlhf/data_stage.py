"""The data stage, run in a directory of its own; and a user's file of pairs."""

from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.metrics import MetricLog
from rl_lab.rlhf.jsonl import write_jsonl
from rl_lab.rlhf.prepare_data import prepare_data
from rl_lab.rlhf.recipe import Data
from rl_lab.run import Run
from rl_lab.signals import StopRequest

WORDS = ["film", "plot", "actor", "scene", "story", "music", "joke", "end", "hero", "town"]


def run_stage(
    path: Path, stop: StopRequest | None = None, for_ppo: bool = False, **settings: Any
) -> Path:
    path.mkdir()
    run = Run(path)
    with MetricLog(run.metrics_file) as log:
        prepare_data(
            Data(**({"heldout_share": 0.25} | settings)),
            run,
            log,
            stop or StopRequest(),
            seed=1,
            device="cpu",
            for_ppo=for_ppo,
        )
    return path


def sentence(rng: np.random.Generator) -> str:
    return f"Some {' '.join(rng.choice(WORDS, 8))} was as a {rng.choice(WORDS)}."


def own_pairs(path: Path, rows: int = 200) -> Path:
    """Pairs of which each four ask the same prompt."""
    rng = np.random.default_rng(0)
    write_jsonl(
        path,
        [
            {"prompt": f"Tell me about number {row // 4}.", "chosen": f" {sentence(rng)}",
             "rejected": f" {sentence(rng)}", "margin": 1.5}
            for row in range(rows)
        ],
    )  # fmt: skip
    return path
