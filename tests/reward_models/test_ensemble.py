"""Joins of several scorers."""

from functools import partial

import pytest
import torch

from reward_models.ensemble import Ensemble, mean, mean_less_variance, minimum

SCORES = torch.tensor([[1.0, 4.0], [3.0, 4.0]])


def test_joins() -> None:
    assert mean(SCORES).tolist() == [2.0, 4.0]
    assert minimum(SCORES).tolist() == [1.0, 4.0]
    assert mean_less_variance(SCORES, weight=0.5).tolist() == [1.5, 4.0]
    assert mean_less_variance(SCORES, weight=0.0).tolist() == mean(SCORES).tolist()


def test_one_member_alone_has_no_variance() -> None:
    assert mean_less_variance(SCORES[:1], weight=5.0).tolist() == [1.0, 4.0]


def test_an_ensemble_asks_all_its_members() -> None:
    members = [
        lambda prompts, completions: torch.tensor([float(len(text)) for text in completions]),
        lambda prompts, completions: torch.tensor([float(len(text)) for text in prompts]),
    ]
    ensemble = Ensemble(members, partial(mean_less_variance, weight=1.0))
    assert ensemble.member_scores(["ab", ""], ["abcd", "a"]).tolist() == [[4.0, 1.0], [2.0, 0.0]]
    assert ensemble(["ab", ""], ["abcd", "a"]).tolist() == [2.0, 0.25]


def test_no_members_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
