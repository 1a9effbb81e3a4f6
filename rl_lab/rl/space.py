"""How much room a run's snapshots take on the disk."""

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from rl_lab.rl.recipe import AgentRecipe

MOMENTS = 2
"""Numbers an optimiser keeps for each weight: Adam's two; the others keep fewer."""
BEST_MODELS = 3
"""Of `best/`: the one in use at the oldest snapshot, the newest, and one being written."""


def needed(model: BaseAlgorithm, recipe: AgentRecipe) -> int:
    """Bytes that a run may come to: the snapshots it keeps, one being written, its best models."""
    policy = sum(tensor.nbytes for tensor in model.policy.state_dict().values())
    snapshot = policy + _optimizers(model)
    if recipe.checkpoints.replay_buffer:
        snapshot += _replay_buffer(model, recipe.budget.steps)
    return (recipe.checkpoints.keep + 1) * snapshot + BEST_MODELS * policy


def _optimizers(model: BaseAlgorithm) -> int:
    found = [recursive_getattr(model, name) for name in model._get_torch_save_params()[0]]
    return MOMENTS * sum(
        parameter.nbytes
        for optimizer in found
        if isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups
        for parameter in group["params"]
    )


def _replay_buffer(model: BaseAlgorithm, budget: int) -> int:
    """Bytes of the part of a replay buffer that is ever filled; 0 without one."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None:
        return 0
    arrays = [
        array
        for value in vars(buffer).values()
        for array in (value.values() if isinstance(value, dict) else [value])
        if isinstance(array, np.ndarray)
    ]
    filled = min(1.0, budget / (buffer.buffer_size * buffer.n_envs))
    return int(filled * sum(array.nbytes for array in arrays))
