"""Snapshots of a stage: the newest two are kept, and a killed stage goes on from the newest whole.

A stage that goes on from one ends in the same bits as one that was never stopped.
"""

import torch
from torch import Tensor

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.files import recover
from rl_lab.metrics import MetricLog
from rl_lab.run import Run

KEPT = 2
"""Newest snapshots kept."""


def write(run: Run, snapshot: Snapshot) -> None:
    """Write a snapshot of a stage; older ones than the newest two go."""
    checkpoint.save(run.checkpoints, snapshot)
    checkpoint.prune(run.checkpoints, checkpoint.steps(run.checkpoints)[-KEPT:])


def newest(run: Run, log: MetricLog, unit: str, done: int = 0) -> Snapshot | None:
    """Return what a stage goes on from; where it was begun before, the log says from where.

    Args:
        run: the stage's directory. Newer snapshots than the one returned, all damaged, are removed.
        log: its metrics.
        unit: what its steps are called.
        done: steps whose result is on the disk by itself; older snapshots are removed.

    Returns:
        None if there is no snapshot since `done`.

    Raises:
        UserError: there are snapshots, but none is whole.
    """
    for parent in (run.checkpoints, run.best):
        recover(parent)
    checkpoint.prune(run.checkpoints, [s for s in checkpoint.steps(run.checkpoints) if s >= done])
    snapshot, damaged = checkpoint.latest(run.checkpoints)
    if snapshot is None and damaged:
        raise UserError(
            f"no checkpoint in {run.checkpoints} is whole ({damaged[0]}); to start the stage "
            "again, move it away"
        )
    start = done if snapshot is None else snapshot.step
    if snapshot is not None or done:
        log.event(start, "resumed", f"from {unit} {start}")
    elif run.metrics_file.stat().st_size:
        log.event(0, "restarted", "it had no checkpoint yet")
    for sentence in damaged:
        log.remark(start, sentence)
    checkpoint.prune(run.checkpoints, range(start + 1))
    return snapshot


def random_state(device: str) -> dict[str, Tensor]:
    """State of torch's global random numbers, of the CPU and of the device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.device(device).type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_state(device: str, states: dict[str, Tensor]) -> None:
    """Make torch's global random numbers go on from a state."""
    torch.set_rng_state(states["cpu"])
    if torch.device(device).type != "cpu":
        torch.get_device_module(device).set_rng_state(states["device"])
