"""The algorithms, by the name a recipe gives them."""

from typing import TypeAlias

import sb3_contrib
import stable_baselines3 as sb3
from stable_baselines3.common.base_class import BaseAlgorithm

from rl_lab.errors import UserError, nearest
from rl_lab.rl.fast.dqn import FastDQN
from rl_lab.rl.fast.ppo import FastPPO
from rl_lab.rl.fast.sac import FastSAC
from rl_lab.rl.fast.td3 import FastDDPG, FastTD3

AlgorithmClass: TypeAlias = type[BaseAlgorithm]

ALGORITHMS: dict[str, AlgorithmClass] = {
    "ppo": sb3.PPO,
    "a2c": sb3.A2C,
    "dqn": sb3.DQN,
    "sac": sb3.SAC,
    "td3": sb3.TD3,
    "ddpg": sb3.DDPG,
    "tqc": sb3_contrib.TQC,
    "qrdqn": sb3_contrib.QRDQN,
    "trpo": sb3_contrib.TRPO,
    "recurrent_ppo": sb3_contrib.RecurrentPPO,
    "maskable_ppo": sb3_contrib.MaskablePPO,
    "ars": sb3_contrib.ARS,
    "crossq": sb3_contrib.CrossQ,
}


FAST: dict[str, AlgorithmClass] = {
    "ppo": FastPPO,
    "dqn": FastDQN,
    "sac": FastSAC,
    "td3": FastTD3,
    "ddpg": FastDDPG,
}
"""Quicker versions, each a subclass of SB3's. They have `falls_back`: why SB3's own methods are
used for this policy and these spaces, or None."""


def algorithm_class(name: str) -> AlgorithmClass:
    """Return the SB3 class of a recipe's `algorithm.name`.

    Raises:
        UserError: there is no such algorithm.
    """
    if name not in ALGORITHMS:
        hint = nearest(name, ALGORITHMS) or f"; there are {', '.join(ALGORITHMS)}"
        raise UserError(f"algorithm.name = {name!r}: no such algorithm{hint}")
    return ALGORITHMS[name]


def backend(model: BaseAlgorithm) -> tuple[str, str]:
    """Tell which code an agent learns with, `"fast"` or `"sb3"`, and why."""
    if not isinstance(model, tuple(FAST.values())):
        return "sb3", "there is no other for it" if _name(model) not in FAST else "as asked"
    reason = model.falls_back  # type: ignore[attr-defined]
    if reason is not None:
        return "sb3", f"not for the fast one: {reason}"
    return "fast", "SB3's algorithm, proven equal after an update"


def _name(model: BaseAlgorithm) -> str | None:
    return next((name for name, known in ALGORITHMS.items() if type(model) is known), None)
