"""Generalised advantage estimation over a whole rollout (Schulman et al., 2016, equation 16)."""

import numpy as np


def generalized_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    starts: np.ndarray,
    next_starts: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Estimate the advantage of every action of T steps in N environments.

    Args:
        rewards: (T, N).
        values: (T, N), of the states acted in.
        next_values: (N,), of the states after the last step.
        starts: (T, N), 1 where a state begins an episode, else 0.
        next_starts: (N,), of the states after the last step.
        gamma: discount, in [0, 1].
        gae_lambda: in [0, 1].

    Returns:
        (T, N) float32.
    """
    goes_on = 1 - np.concatenate([starts[1:], next_starts[None]])
    following = np.concatenate([values[1:], next_values[None]])
    advantages = rewards + gamma * following * goes_on - values
    decay = gamma * gae_lambda * goes_on
    for step in range(len(rewards) - 2, -1, -1):
        advantages[step] += decay[step] * advantages[step + 1]
    return advantages
