"""Snapshots of a stage: the newest two are kept, and a killed stage goes on from the newest whole.

A stage that goes on from one ends in the same bits as one that was never stopped.
"""

from pathlib import Path

import torch
from torch import Tensor

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.files import StorageError, recover
from rl_lab.metrics import MetricLog
from rl_lab.run import Run

KEPT = 2
"""Newest snapshots kept."""


class Snapshots:
    """Those of one stage, as it writes them."""

    def __init__(self, run: Run, log: MetricLog, unit: str, *, required: bool = True) -> None:
        """Keep where they go.

        Args:
            run: the stage's directory.
            log: its metrics.
            unit: what its steps are called.
            required: whether one that cannot be written ends the stage; else the log says so.
        """
        self.run, self.log = run, log
        self._unit, self._required = unit, required
        self._not_written = 0

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot to go on from; older ones than the newest two go.

        Raises:
            StorageError: as `attempt`.
        """
        if self.attempt(self.run.checkpoints, snapshot):
            checkpoint.prune(self.run.checkpoints, checkpoint.steps(self.run.checkpoints)[-KEPT:])

    def attempt(self, parent: Path, snapshot: Snapshot) -> bool:
        """Write a snapshot into a directory of the stage; return whether it was written.

        Raises:
            StorageError: it cannot be, and the recipe requires it.
        """
        try:
            checkpoint.save(parent, snapshot)
        except StorageError as error:
            if self._required:
                raise
            self._not_written += 1
            said = f"{error}; the stage goes on without it ({self._not_written} so far)"
            self.log.event(snapshot.step, "checkpoint-failed", said, "warning")
            return False
        return True

    def newest(self, done: int = 0) -> Snapshot | None:
        """Return what the stage goes on from; where it was begun before, the log says from where.

        Newer snapshots than the one returned, all damaged, are removed.

        Args:
            done: steps whose result is on the disk by itself; older snapshots are removed.

        Returns:
            None if there is no snapshot since `done`.

        Raises:
            UserError: there are snapshots, but none is whole.
        """
        run, log = self.run, self.log
        for parent in (run.checkpoints, run.best):
            recover(parent)
        since = [step for step in checkpoint.steps(run.checkpoints) if step >= done]
        checkpoint.prune(run.checkpoints, since)
        snapshot, damaged = checkpoint.latest(run.checkpoints)
        if snapshot is None and damaged:
            raise UserError(
                f"no checkpoint in {run.checkpoints} is whole ({damaged[0]}); to start the stage "
                "again, move it away"
            )
        start = done if snapshot is None else snapshot.step
        if snapshot is not None or done:
            log.event(start, "resumed", f"from {self._unit} {start}")
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
