"""Distributions of actions in numpy: drawn from, evaluated, and their gradients written down.

Arrays that an update works on have a column for each of B states, (K, B): a sum over the K numbers
of a state then runs over rows, which numpy does many times faster. The formulas are those of SB3's
`stable_baselines3.common.distributions`.
"""

import math
from typing import Protocol

import numpy as np
from gymnasium import spaces

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """What PPO asks of one. The network's K outputs for a state make its distribution."""

    def chances(self, *shape: int) -> np.ndarray:
        """(*shape, ...) random numbers, from numpy's global generator, to draw actions with."""

    def draw(self, outputs: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Draw (n, dimensions) actions from (n, K) outputs with the `chances` of n.

        Chances of 0 give each distribution's mode.
        """

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """(n, dimensions) actions -> (K, n) float32, as `log_prob` and `gradient` read them."""

    def log_prob(self, outputs: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K, B) outputs and encoded actions -> (B,) log-probabilities, and (K, B) `spread`."""

    def gradient(
        self, spread: np.ndarray, actions: np.ndarray, by_log_prob: np.ndarray, entropy: float
    ) -> np.ndarray:
        """Gradient of a loss by the outputs.

        Args:
            spread: of the last `log_prob`.
            actions: encoded.
            by_log_prob: (B,), of the loss by the log-probabilities.
            entropy: the loss also has minus this times the mean entropy.

        Returns:
            (K, B).
        """

    def entropy(self, spread: np.ndarray) -> np.ndarray:
        """(B,), in nats."""


class Categorical:
    """One choice, or several made independently: spaces Discrete and MultiDiscrete."""

    def __init__(self, choices: list[int]) -> None:
        """Take the number of possibilities of each choice; their sum is K."""
        ends = np.cumsum(choices).tolist()
        self._parts = [slice(end - size, end) for end, size in zip(ends, choices, strict=True)]
        self._size = sum(choices)

    def chances(self, *shape: int) -> np.ndarray:
        return np.random.gumbel(size=(*shape, self._size))

    def draw(self, outputs: np.ndarray, chances: np.ndarray) -> np.ndarray:
        # Logits plus Gumbel noise are largest at k with k's probability (Gumbel, 1954).
        noisy = outputs + chances
        if len(self._parts) == 1:
            return noisy.argmax(1, keepdims=True)
        return np.stack([noisy[:, part].argmax(1) for part in self._parts], axis=1)

    def encode(self, actions: np.ndarray) -> np.ndarray:
        encoded = np.zeros((self._size, len(actions)), np.float32)
        for part, chosen in zip(self._parts, actions.T, strict=True):
            encoded[part][chosen, np.arange(len(actions))] = 1
        return encoded

    def log_prob(self, outputs: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spread = outputs
        for part in self._parts:
            logits = spread[part]
            logits -= logits.max(0)
            logits -= np.log(np.exp(logits).sum(0))
        return (spread * actions).sum(0), spread

    def gradient(
        self, spread: np.ndarray, actions: np.ndarray, by_log_prob: np.ndarray, entropy: float
    ) -> np.ndarray:
        probabilities = np.exp(spread)
        gradient = actions - probabilities
        gradient *= by_log_prob
        if entropy:  # d entropy / d logit = - p (log p + entropy of the choice)
            terms = probabilities * spread
            for part in self._parts:
                terms[part] -= probabilities[part] * terms[part].sum(0)
            terms *= entropy / len(by_log_prob)
            gradient += terms
        return gradient

    def entropy(self, spread: np.ndarray) -> np.ndarray:
        return -(np.exp(spread) * spread).sum(0)


class Bernoulli:
    """K switches, on or off independently: space MultiBinary. The outputs are their logits."""

    def __init__(self, switches: int) -> None:
        self._switches = switches

    def chances(self, *shape: int) -> np.ndarray:
        return np.random.logistic(size=(*shape, self._switches))

    def draw(self, outputs: np.ndarray, chances: np.ndarray) -> np.ndarray:
        return (outputs + chances > 0).astype(np.int8)  # with probability sigmoid(output)

    def encode(self, actions: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(actions.T, np.float32)

    def log_prob(self, outputs: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (actions * outputs - _softplus(outputs)).sum(0), outputs

    def gradient(
        self, spread: np.ndarray, actions: np.ndarray, by_log_prob: np.ndarray, entropy: float
    ) -> np.ndarray:
        on = _sigmoid(spread)
        gradient = (actions - on) * by_log_prob
        if entropy:  # d entropy / d logit = - logit p (1 - p)
            gradient += entropy / len(by_log_prob) * spread * on * (1 - on)
        return gradient

    def entropy(self, spread: np.ndarray) -> np.ndarray:
        return (_softplus(spread) - spread * _sigmoid(spread)).sum(0)


class DiagonalGaussian:
    """K numbers, drawn independently: space Box. The outputs are means; spreads are parameters."""

    def __init__(self, log_std: np.ndarray, by_log_std: np.ndarray) -> None:
        """Take (K,) logarithms of the standard deviations, and where their gradient belongs."""
        self._log_std, self._by_log_std = log_std, by_log_std

    def chances(self, *shape: int) -> np.ndarray:
        return np.random.standard_normal((*shape, len(self._log_std))).astype(np.float32)

    def draw(self, outputs: np.ndarray, chances: np.ndarray) -> np.ndarray:
        return outputs + np.exp(self._log_std) * chances

    def encode(self, actions: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(actions.T, np.float32)

    def log_prob(self, outputs: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_std = self._log_std[:, None].copy()
        self._scaled = (actions - outputs) * np.exp(-log_std)
        each = -0.5 * self._scaled**2 - log_std
        return each.sum(0) - HALF_LOG_TWO_PI * len(each), np.broadcast_to(log_std, each.shape)

    def gradient(
        self, spread: np.ndarray, actions: np.ndarray, by_log_prob: np.ndarray, entropy: float
    ) -> np.ndarray:
        self._by_log_std[:] = ((self._scaled**2 - 1) * by_log_prob).sum(1)
        self._by_log_std -= entropy  # d entropy / d log_std = 1
        gradient: np.ndarray = self._scaled * by_log_prob * np.exp(-spread[:, :1])
        return gradient

    def entropy(self, spread: np.ndarray) -> np.ndarray:
        return (spread + (0.5 + HALF_LOG_TWO_PI)).sum(0)


def _softplus(logits: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, logits, dtype=np.float32)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-_softplus(-logits))


def distribution_of(
    space: spaces.Space, log_std: np.ndarray | None, by_log_std: np.ndarray | None
) -> Distribution:
    """Choose by the action space; the last two are a Gaussian's."""
    match space:
        case spaces.Discrete():
            return Categorical([int(space.n)])
        case spaces.MultiDiscrete():
            return Categorical([int(n) for n in space.nvec])
        case spaces.MultiBinary():
            return Bernoulli(int(np.prod(space.n)))
        case _:
            assert log_std is not None
            assert by_log_std is not None
            return DiagonalGaussian(log_std, by_log_std)
