"""The lab's own environments: small, quick, and with an optimum that is known.

Importing this package registers them. It needs gymnasium and numpy, and knows nothing of rl_lab.
"""

from gymnasium.envs.registration import register

register("RLLab/Match-v0", entry_point="envs.match:Match", max_episode_steps=10)
register("RLLab/Recall-v0", entry_point="envs.recall:Recall")
register("RLLab/ReachPoint-v0", entry_point="envs.reach_point:ReachPoint", max_episode_steps=20)
