"""Several reward models as one: their mean, their worst case, or their mean less their doubt.

Where members disagree, none of them has seen enough: a policy that is paid for what the most
doubtful member grants, or for the mean less the spread, has less to gain from being there
(Coste et al., 2024, arXiv:2310.02743).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Scorer = Callable[[Sequence[Any], Sequence[Any]], Tensor]
"""(prompts, completions) -> (batch,) scores."""


def mean(scores: Tensor) -> Tensor:
    """(members, batch) -> (batch,): the average member."""
    return scores.mean(dim=0)


def minimum(scores: Tensor) -> Tensor:
    """(members, batch) -> (batch,): the most doubtful member."""
    return scores.amin(dim=0)


def mean_less_variance(scores: Tensor, weight: float) -> Tensor:
    """(members, batch) -> (batch,): the mean minus `weight` x the members' variance.

    The variance is the population's (divided by the number of members), so that one member alone
    has none. `weight` >= 0, in 1 / units of the score.
    """
    return scores.mean(dim=0) - weight * scores.var(dim=0, correction=0)


def load_member(source: str | Path, device: str = "cpu", *, bf16: bool = False) -> Scorer:
    """Load a reward model of either kind.

    Args:
        source: a directory, or for a transformer a hub id.
        device: where scores are wanted.
        bf16: have a transformer compute in bfloat16.

    Raises:
        ValueError: it is not there, damaged, or no reward model.
    """
    from reward_models.linear import LinearRewardModel, LinearText, is_linear
    from reward_models.text import TextRewardModel

    if is_linear(source):
        return LinearRewardModel(LinearText.load(Path(source)), device)
    return TextRewardModel(source, device, bf16=bf16)


class Ensemble:
    """Scores texts by several scorers and joins what they say."""

    def __init__(self, members: Sequence[Scorer], join: Callable[[Tensor], Tensor] = mean) -> None:
        """Keep the members.

        Args:
            members: scorers of the same unit, at least one.
            join: (members, batch) -> (batch,), such as `mean`.

        Raises:
            ValueError: there are no members.
        """
        if not members:
            raise ValueError("an ensemble needs at least one reward model")
        self.members = list(members)
        self.join = join

    def member_scores(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """(members, batch): what each of them says."""
        return torch.stack([member(prompts, completions) for member in self.members])

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """(batch,): what they say together."""
        return self.join(self.member_scores(prompts, completions))
