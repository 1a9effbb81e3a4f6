"""A rollout as PPO learns from it, cut into minibatches, and what each of these came to."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Rollout:
    """n states, what was done in them, and what came of it; or some of these, a minibatch."""

    states: np.ndarray
    """(n, D) float32, as the network reads them."""
    actions: np.ndarray
    """(K, n), as the distribution encodes them."""
    log_probs: np.ndarray
    """(n,), of the actions, when they were drawn."""
    advantages: np.ndarray
    """(n,); a minibatch's are normalised, if they are to be."""
    returns: np.ndarray
    """(n,)."""
    values: np.ndarray
    """(n,), as the critic had them before the update."""

    def __len__(self) -> int:
        return len(self.returns)

    def rows(self, which: slice | np.ndarray) -> "Rollout":
        """Some of them, by indices or a range."""
        return Rollout(
            self.states[which], self.actions[:, which], self.log_probs[which],
            self.advantages[which], self.returns[which], self.values[which],
        )  # fmt: skip

    def minibatches(self, size: int, normalize: bool) -> Iterator["Rollout"]:
        """Yield an epoch's minibatches, in SB3's order if numpy's generator is in its state.

        Args:
            size: rows of each; the last may have fewer.
            normalize: whether each one's advantages are brought to mean 0 and deviation 1.
        """
        rollout = self
        if len(self) > size:
            rollout = self.rows(np.random.permutation(len(self)))
        for start in range(0, len(self), size):
            batch = rollout.rows(slice(start, start + size))
            if normalize and len(batch) > 1:
                centred = batch.advantages - batch.advantages.mean()
                centred /= centred.std(ddof=1) + 1e-8
                batch = replace(batch, advantages=centred)
            yield batch


class Seen(NamedTuple):
    """What a minibatch came to before its step; kept for the log, without its states."""

    log_ratios: np.ndarray
    """(n,), of the actions' probabilities, now to when they were drawn."""
    advantages: np.ndarray
    """(n,)."""
    values: np.ndarray
    """(n,)."""
    old_values: np.ndarray
    """(n,), before the update."""
    returns: np.ndarray
    """(n,)."""
    spread: np.ndarray
    """(K, n), from which the entropy follows."""

    def approx_kl(self) -> float:
        """Mean of ratio - 1 - log ratio (Schulman, "Approximating KL divergence", 2020: k3)."""
        return float((np.exp(self.log_ratios) - 1 - self.log_ratios).mean())


def limits(advantages: np.ndarray, clip: float) -> np.ndarray:
    """What ratio x advantage is cut off at, for each of (n,) advantages.

    min(r A, clip(r, 1 - e, 1 + e) A) is min(r A, A + e |A|) (OpenAI Spinning Up, "PPO").
    """
    return advantages + clip * np.abs(advantages)
