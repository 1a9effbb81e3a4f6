"""Looking at every gradient before an optimiser applies it."""

from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from rl_lab.rl.watched_vec_env import NonFiniteError, watched


def guard_gradients(model: BaseAlgorithm) -> None:
    """Let no optimiser of an agent apply a gradient that is NaN or infinite.

    Where the recipe's `health` says skip, the step is left out and counted; else NonFiniteError is
    raised, with the weights as they were.
    """
    environment = watched(model)
    for name in model._get_torch_save_params()[0]:
        optimizer = recursive_getattr(model, name)
        if not isinstance(optimizer, torch.optim.Optimizer):
            continue

        def check(optimizer: torch.optim.Optimizer, *_: Any, name: str = name) -> None:
            parameters = [
                parameter
                for group in optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            norms = torch._foreach_norm([parameter.grad for parameter in parameters])
            if torch.stack(norms).isfinite().all():
                return
            said = (
                f"NaN or infinity in the loss or its gradient ({name}) at step "
                f"{environment.steps:,}; the update was not applied"
            )
            if not environment.may_skip(said):
                raise NonFiniteError(said)
            for parameter in parameters:  # without a gradient, an optimiser leaves it alone
                parameter.grad = None

        optimizer.register_step_pre_hook(check)
