"""The loss against its definition, and the scores it recovers from comparisons alone."""

import math

import pytest
import torch

from reward_models.bradley_terry import preference_accuracy, preference_logits, preference_loss


def test_the_loss_is_minus_log_sigmoid_of_the_difference() -> None:
    logits = preference_logits(torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.5]))
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(1.0))) / 2
    assert preference_loss(logits).item() == pytest.approx(expected, abs=1e-6)


def test_a_margin_asks_for_more() -> None:
    chosen, rejected = torch.tensor([2.0]), torch.tensor([1.0])
    with_margin = preference_logits(chosen, rejected, torch.tensor([1.0]))
    assert with_margin.item() == 0
    assert preference_loss(with_margin) > preference_loss(preference_logits(chosen, rejected))


@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_a_soft_label_is_matched_not_exceeded(share: float) -> None:
    logits = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = preference_loss(logits, torch.tensor([share], dtype=torch.float64))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.sigmoid(logits).item() == pytest.approx(share, abs=1e-4)


def test_the_gradient_is_that_of_finite_differences() -> None:
    share = torch.tensor([1.0, 0.6, 0.5], dtype=torch.float64)
    scores = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(
        lambda both: preference_loss(preference_logits(both[0], both[1]), share),
        scores.requires_grad_(),
    )


def test_scores_summed_over_trajectories_recover_the_reward() -> None:
    """Christiano et al.: linear rewards of steps, learned from comparisons of whole segments."""
    generator = torch.Generator().manual_seed(0)
    segments = torch.randn(2, 4000, 10, 3, generator=generator)  # sides, pairs, steps, features
    truth = torch.tensor([1.0, -0.5, 0.0])
    returns = (segments @ truth).sum(-1)
    share = torch.sigmoid(returns[0] - returns[1])
    reward = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([reward], lr=0.05)
    for _ in range(200):
        learned = (segments @ reward).sum(-1)
        loss = preference_loss(preference_logits(learned[0], learned[1]), share)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(reward.detach(), truth, atol=0.02, rtol=0)


def test_equal_scores_count_half() -> None:
    assert preference_accuracy(torch.tensor([1.0, 0.0, -1.0, 2.0])).item() == 0.625
