"""Best-of-n sampling: the plainest way to spend a reward model, and the bar for PPO.

n completions are sampled from the reference and the one with the highest proxy reward is given. Its
KL to the reference is at most log n - (n - 1) / n nats (Beirami et al., 2024), and it needs no
training, so a policy that gains less at the same KL has learned badly.
"""

import math
from math import comb

import numpy as np


def kl_bound(n: int) -> float:
    """KL of best-of-n to the distribution it samples from, in nats: at most this."""
    return math.log(n) - (n - 1) / n


def expected_best(proxy: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Expected value of the best of n by proxy, over every choice of n among N samples.

    The r-th lowest of N samples (from 1) is the best of n drawn without replacement with
    probability C(r - 1, n - 1) / C(N, n).

    Args:
        proxy: (prompts, N), what the choice is made by.
        values: (prompts, N), what is averaged: gold scores, or the proxy itself.
        n: from 1 to N.

    Returns:
        (prompts,) expectations.
    """
    count = proxy.shape[1]
    chances = np.array([comb(rank, n - 1) / comb(count, n) for rank in range(count)])
    order = np.argsort(proxy, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1) @ chances
