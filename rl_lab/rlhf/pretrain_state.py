"""What pretraining writes down to go on from to the same bits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.phases import PhaseClock
from rl_lab.rlhf import snapshots
from rl_lab.rlhf.snapshots import Snapshots


@dataclass
class Progress:
    """What a step leaves to the next, besides weights and optimisers."""

    step: int = 0
    """Optimiser steps done."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the log's last line."""
    best: dict[str, float] = field(default_factory=dict)
    """The best look's numbers and its `step`; empty before the first look."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """The model's state at the best look."""
    looks_since_best: int = 0


def save(
    to: Snapshots,
    model: PreTrainedModel,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: Progress,
    clock: PhaseClock,
) -> None:
    """Write a snapshot that training goes on from to the same bits."""
    tensors, rest = checkpoint.flatten({"all": [one.state_dict() for one in optimizers]})
    state = {
        "optimizers": rest,
        "losses": progress.losses,
        "best": progress.best,
        "looks_since_best": progress.looks_since_best,
        "phases": clock.totals(),
    }
    everything = {
        "model": model.state_dict(),
        "best": progress.best_weights,
        "optimizers": tensors,
        "random": snapshots.random_state(str(model.device)),
    }
    to.write(Snapshot(progress.step, everything, {}, {"progress": state}))


def restore(
    snapshot: Snapshot, model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer]
) -> Progress:
    """Make model, optimisers and torch's random numbers what they were at a snapshot."""
    state, tensors = snapshot.state["progress"], snapshot.tensors
    model.load_state_dict(tensors["model"])
    saved = checkpoint.unflatten(tensors["optimizers"], state["optimizers"])
    for optimizer, own in zip(optimizers, saved["all"], strict=True):
        optimizer.load_state_dict(own)
    snapshots.set_random_state(str(model.device), tensors["random"])
    return Progress(
        snapshot.step, state["losses"], state["best"], tensors["best"], state["looks_since_best"]
    )
