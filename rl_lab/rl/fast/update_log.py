"""What an update of PPO came to, as SB3 logs it: worked out once, for all its minibatches."""

import numpy as np

from rl_lab.rl.fast.minibatches import Seen, limits


def losses(
    seen: list[Seen],
    last_epoch: int,
    entropies: np.ndarray,
    clip: float,
    clip_values: float | None,
    entropy_coefficient: float,
    value_coefficient: float,
) -> dict[str, float]:
    """Means over minibatches, by SB3's names.

    Args:
        seen: every minibatch that was looked at, M of them, with n rows in all.
        last_epoch: index of the last epoch's first.
        entropies: (n,), of the distributions.
        clip: range of the ratios.
        clip_values: range of the values; None: they were not clipped.
        entropy_coefficient: in the loss.
        value_coefficient: in the loss.
    """
    sizes = np.array([len(each.returns) for each in seen])
    firsts = sizes.cumsum() - sizes

    def means(rows: np.ndarray) -> np.ndarray:
        """(n,) a number for each row -> (M,), its mean over each minibatch."""
        return np.add.reduceat(rows, firsts, dtype=np.float64) / sizes

    log_ratios, advantages, values, old_values, returns = (
        np.concatenate(columns) for columns in zip(*(each[:5] for each in seen), strict=True)
    )
    if clip_values is not None:
        values = old_values + (values - old_values).clip(-clip_values, clip_values)
    ratios = np.exp(log_ratios)
    policy = -means(np.minimum(ratios * advantages, limits(advantages, clip)))
    value, entropy = means((returns - values) ** 2), -means(entropies)
    total = policy + entropy_coefficient * entropy + value_coefficient * value
    numbers = {
        "entropy_loss": entropy.mean(),
        "policy_gradient_loss": policy.mean(),
        "value_loss": value.mean(),
        "approx_kl": means(ratios - 1 - log_ratios)[last_epoch:].mean(),
        "clip_fraction": means(np.abs(ratios - 1) > clip).mean(),
        "loss": total[-1],
    }
    return {name: float(number) for name, number in numbers.items()}
