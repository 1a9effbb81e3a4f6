"""Adam on one vector of parameters, its state the optimiser's own.

A step of `torch.optim.Adam` costs more in Python than in arithmetic where the parameters are few.
The moments live in vectors here, and the optimiser's state holds views of them: its `state_dict`
is always what it would be had it made the steps itself.
"""

import torch

from rl_lab.rl.fast.flat_parameters import FlatParameters


def unsupported(optimizer: torch.optim.Optimizer) -> str | None:
    """Say why an optimiser's steps cannot be made here; None if they can."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return f"optimiser {type(optimizer).__name__}"
    if len(optimizer.param_groups) != 1:
        return "several groups of parameters"
    for option in ("amsgrad", "maximize", "differentiable", "capturable"):
        if optimizer.param_groups[0][option]:
            return f"optimiser with {option}"
    return None


class FlatAdam:
    """Makes the steps of a `torch.optim.Adam` or `AdamW` over `FlatParameters`."""

    def __init__(self, optimizer: torch.optim.Optimizer, flat: FlatParameters) -> None:
        """Take over the optimiser's state.

        Args:
            optimizer: one that `unsupported` has nothing against, over the parameters of `flat`.
            flat: its parameters and their gradients.
        """
        self._optimizer, self._flat = optimizer, flat
        self._mean, self._square = torch.zeros_like(flat.values), torch.zeros_like(flat.values)
        self._steps = torch.tensor(0.0)
        self._count = (
            self._steps.numpy()
        )  # the same memory: to count in torch takes ten times as long
        for parameter, mean, square in zip(
            flat.parameters, flat.views(self._mean), flat.views(self._square), strict=True
        ):
            state = optimizer.state[parameter]
            if state:
                mean.copy_(state["exp_avg"])
                square.copy_(state["exp_avg_sq"])
                self._steps.copy_(state["step"])
            state.update(step=self._steps.clone(), exp_avg=mean, exp_avg_sq=square)

    @property
    def in_place(self) -> bool:
        """Whether the optimiser's state is still made of views; `load_state_dict` ends that."""
        state = self._optimizer.state.get(self._flat.parameters[0], {})
        return bool(state) and state["exp_avg"].data_ptr() == self._mean.data_ptr()

    def step(self) -> None:
        """Make one step with the gradients of `flat`."""
        group = self._optimizer.param_groups[0]
        fused = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        self._count += 1
        fused(
            [self._flat.values], [self._flat.gradients], [self._mean], [self._square], [],
            [self._steps], lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def step_by_optimizer(self) -> None:
        """Have the optimiser itself make the step, with whatever hooks were put before it."""
        self.publish_step_count()
        for parameter, gradient in zip(
            self._flat.parameters, self._flat.views(self._flat.gradients), strict=True
        ):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps.copy_(self._optimizer.state[self._flat.parameters[0]]["step"])

    def publish_step_count(self) -> None:
        """Tell the optimiser's state of the steps made since the last time."""
        for parameter in self._flat.parameters:
            self._optimizer.state[parameter]["step"].copy_(self._steps)
