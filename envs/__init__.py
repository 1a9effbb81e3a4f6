"""The lab's own environments: small, quick, and with an optimum that is known.

Importing this package registers them. It needs gymnasium and numpy, and knows nothing of rl_lab.
Beside them are vectorised versions of some of Gymnasium's (copies in arrays, all stepped at once).
"""

from gymnasium.envs.registration import register

register(
    "RLLab/Match-v0",
    entry_point="envs.match:Match",
    vector_entry_point="envs.match:MatchVector",
    max_episode_steps=10,
)
register(
    "RLLab/Recall-v0",
    entry_point="envs.recall:Recall",
    vector_entry_point="envs.recall:RecallVector",
)
register(
    "RLLab/ReachPoint-v0",
    entry_point="envs.reach_point:ReachPoint",
    vector_entry_point="envs.reach_point:ReachPointVector",
    max_episode_steps=20,
)

VECTORIZED = {
    "CartPole-v0": "envs.cart_pole:CartPoleVector",
    "CartPole-v1": "envs.cart_pole:CartPoleVector",
    "Acrobot-v1": "envs.acrobot:AcrobotVector",
    "Pendulum-v1": "envs.pendulum:PendulumVector",
    "MountainCar-v0": "envs.mountain_car:MountainCarVector",
}
"""Vectorised versions of Gymnasium's environments, by its ids for them."""
