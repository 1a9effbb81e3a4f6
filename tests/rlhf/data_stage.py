"""The data stage, run in a directory of its own."""

from pathlib import Path
from typing import Any

from rl_lab.metrics import MetricLog
from rl_lab.rlhf.prepare_data import prepare_data
from rl_lab.rlhf.recipe import Data
from rl_lab.run import Run
from rl_lab.signals import StopRequest


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
