"""What PPO writes down: snapshots to go on from, and the best policy so far."""

from typing import TYPE_CHECKING

import torch

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.policy import Policy, Reference
from rl_lab.rlhf.rewards import RunningMoments
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.run import Run

if TYPE_CHECKING:
    from rl_lab.rlhf.train_ppo import Progress


def save(
    to: Snapshots,
    policy: Policy,
    reference: Reference,
    optimizer: torch.optim.Optimizer,
    progress: "Progress",
    memory: Memory,
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
            "forgiven": progress.forgiven,
            "rate": progress.rate,
        },
        "memory": memory.state(),
    }
    to.write(Snapshot(progress.update, tensors, {}, state))


def restore(
    run: Run,
    snapshot: Snapshot,
    policy: Policy,
    reference: Reference,
    optimizer: torch.optim.Optimizer,
    progress: "Progress",
    memory: Memory,
) -> Reference:
    """Make everything what it was when a snapshot was taken.

    Returns:
        The reference in use: the one given, or what it had been refreshed to.
    """
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
    progress.forgiven, progress.rate = saved["forgiven"], saved["rate"]
    memory.restore(snapshot.state["memory"])
    # A best beyond the snapshot is to come again.
    checkpoint.prune(run.best, range(progress.update + 1))
    return reference


def save_best(to: Snapshots, policy: Policy, step: int) -> bool:
    """Keep the policy as it is, if that can be; earlier ones stay until a snapshot is as new."""
    run = to.run
    if not to.attempt(run.best, Snapshot(step, {"policy": policy.trained_tensors()})):
        return False
    kept = checkpoint.steps(run.checkpoints)
    oldest = kept[0] if kept else 0
    bests = checkpoint.steps(run.best)
    before = [best for best in bests if best <= oldest][-1:]
    checkpoint.prune(run.best, [*before, *[best for best in bests if best > oldest]])
    return True


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
