"""Learning a reward from comparisons: the Bradley-Terry model, for anything that has a score.

P(a is preferred to b) = sigmoid(r(a) - r(b))   (Bradley and Terry, 1952)

Scores may come from a scalar head on a text (Ouyang et al., 2022, arXiv:2203.02155, equation 1) or
be summed over a trajectory (Christiano et al., 2017, arXiv:1706.03741, equation 1): only the
difference matters, so scores are free up to a constant.
"""

import torch
from torch import Tensor
from torch.nn import functional


def preference_logits(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """Log-odds that `chosen` is preferred.

    Args:
        chosen: (pairs,) scores.
        rejected: (pairs,) scores.
        margin: (pairs,) by how much the scores should differ at least, >= 0, in units of the
            score (Touvron et al., 2023, arXiv:2307.09288, equation 2); none: 0.

    Returns:
        (pairs,) logits.
    """
    difference = chosen - rejected
    return difference if margin is None else difference - margin


def preference_loss(logits: Tensor, share: Tensor | None = None) -> Tensor:
    """Mean cross-entropy between the votes and what the logits predict.

    Args:
        logits: (pairs,) of `preference_logits`.
        share: (pairs,) share of the votes for `chosen`, in [0, 1]: a soft label, which a pair that
            people disagree on cannot push beyond their disagreement; none: all of them.

    Returns:
        () loss in nats; its least value is the mean entropy of the shares.
    """
    if share is None:
        share = torch.ones_like(logits)
    return functional.binary_cross_entropy_with_logits(logits, share)


def preference_accuracy(logits: Tensor) -> Tensor:
    """Share of pairs in which `chosen` has the higher score; equal scores count half.

    Args:
        logits: (pairs,) score differences.

    Returns:
        () in [0, 1]. A model that scores everything the same gets 0.5, not 0 or 1.
    """
    return ((logits > 0).float() + 0.5 * (logits == 0).float()).mean()
