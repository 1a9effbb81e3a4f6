"""What PPO writes down: snapshots to go on from, and the best policy so far."""

from typing import TYPE_CHECKING

import torch

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.metrics import MetricLog
from rl_lab.rlhf.policy import Policy, Reference
from rl_lab.rlhf.rewards import RunningMoments
from rl_lab.run import Run

if TYPE_CHECKING:
    from rl_lab.rlhf.train_ppo import Progress

KEPT = 2
"""Newest snapshots kept."""


def save(
    run: Run,
    policy: Policy,
    reference: Reference,
    optimizer: torch.optim.Optimizer,
    progress: "Progress",
) -> None:
    """Write a snapshot that training goes on from to the same bits."""
    optimizer_tensors, optimizer_rest = checkpoint.flatten(optimizer.state_dict())
    tensors = {"policy": policy.trained_tensors(), "optimizer": optimizer_tensors}
    if reference.refreshed and reference.own_model is not None:
        tensors["reference"] = dict(reference.own_model.named_parameters())
    state = {
        "optimizer": optimizer_rest,
        "progress": {
            "update": progress.update,
            "coefficient": progress.coefficient,
            "moments": progress.moments.state(),
            "best": progress.best,
        },
    }
    checkpoint.save(run.checkpoints, Snapshot(progress.update, tensors, {}, state))
    checkpoint.prune(run.checkpoints, checkpoint.steps(run.checkpoints)[-KEPT:])


def restore(
    run: Run,
    log: MetricLog,
    policy: Policy,
    reference: Reference,
    optimizer: torch.optim.Optimizer,
    progress: "Progress",
) -> Reference:
    """Go on from the newest whole snapshot; where there is none, change nothing.

    Returns:
        The reference in use: the one given, or what it had been refreshed to.

    Raises:
        UserError: there are snapshots, but none is whole.
    """
    snapshot, damaged = checkpoint.latest(run.checkpoints)
    if snapshot is None:
        if damaged:
            raise UserError(
                f"no checkpoint in {run.checkpoints} is whole ({damaged[0]}); to start the stage "
                "again, move it away"
            )
        if run.metrics_file.stat().st_size:
            log.event(0, "restarted", "it had no checkpoint yet")
        return reference
    _put(policy, snapshot)
    optimizer.load_state_dict(
        checkpoint.unflatten(snapshot.tensors["optimizer"], snapshot.state["optimizer"])
    )
    if "reference" in snapshot.tensors:
        reference = policy.reference_of(refreshed=True)
        assert reference.own_model is not None
        reference.own_model.load_state_dict(snapshot.tensors["reference"], strict=False)
    saved = snapshot.state["progress"]
    progress.update, progress.coefficient = saved["update"], saved["coefficient"]
    progress.moments, progress.best = RunningMoments(**saved["moments"]), saved["best"]
    log.event(progress.update, "resumed", f"from update {progress.update}")
    for sentence in damaged:
        log.remark(progress.update, sentence)
    # A best beyond the snapshot is to come again.
    checkpoint.prune(run.best, range(progress.update + 1))
    return reference


def save_best(run: Run, policy: Policy, step: int) -> None:
    """Keep the policy as it is; earlier ones stay until a snapshot is as new as this."""
    checkpoint.save(run.best, Snapshot(step, {"policy": policy.trained_tensors()}))
    kept = checkpoint.steps(run.checkpoints)
    oldest = kept[0] if kept else 0
    bests = checkpoint.steps(run.best)
    before = [best for best in bests if best <= oldest][-1:]
    checkpoint.prune(run.best, [*before, *[best for best in bests if best > oldest]])


def load_best(run: Run, policy: Policy) -> None:
    """Make the policy what it was at the best look."""
    snapshot, damaged = checkpoint.latest(run.best)
    if snapshot is None:
        raise UserError(f"{run.best} holds no whole policy ({'; '.join(damaged)})")
    _put(policy, snapshot)


@torch.no_grad()
def _put(policy: Policy, snapshot: Snapshot) -> None:
    """Copy a snapshot's tensors into the policy, in place: the optimiser keeps its parameters."""
    tensors = snapshot.tensors["policy"]
    for name, parameter in policy.trained_tensors().items():
        parameter.copy_(tensors[name])
