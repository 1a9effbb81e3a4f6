"""The maths of PPO, against closed forms and properties that must hold for any input."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rl_lab.rlhf import ppo_math

MASK = torch.tensor([[True, True, True], [True, False, False]])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_means_are_weighted_by_token_not_by_row() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]])
    assert ppo_math.masked_mean(values, MASK).item() == pytest.approx(16 / 4)


def test_what_is_masked_is_never_used_not_even_nan() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, math.nan, math.inf]])
    assert ppo_math.masked_mean(values, MASK).item() == pytest.approx(4)
    whitened = ppo_math.masked_whiten(values, MASK)
    assert whitened.isfinite().all()
    assert ppo_math.masked_mean(whitened, MASK).item() == pytest.approx(0, abs=1e-6)
    assert ppo_math.masked_mean(whitened**2, MASK).item() == pytest.approx(1, abs=1e-6)


def test_equal_values_whiten_to_zero() -> None:
    assert ppo_math.masked_whiten(torch.full((2, 3), 7.0), MASK).abs().max() == 0


def test_kl_estimators_have_the_exact_kl_as_their_mean() -> None:
    policy, reference = normal(6).log_softmax(-1), normal(6, seed=1).log_softmax(-1)
    exact = ppo_math.exact_kl(policy, reference).item()
    for estimator in ("k1", "k3"):  # both unbiased: summed over all outcomes, they are exact
        estimates = ppo_math.kl_estimate(policy, reference, estimator)
        assert (policy.exp() * estimates).sum().item() == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(
    ("estimator", "times"), [("k1", 0.0), ("k2", 1.0)], ids=["k1 has none", "k2 has the KL's"]
)
def test_the_gradient_of_estimators_in_the_loss(estimator: str, times: float) -> None:
    """Expected over the policy's samples: why the recipe refuses k1 in the loss."""
    logits = normal(6).requires_grad_()
    reference = normal(6, seed=1).log_softmax(-1)
    policy = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad(ppo_math.exact_kl(policy, reference), logits, retain_graph=True)
    estimates = ppo_math.kl_estimate(policy, reference, estimator)
    (expected,) = torch.autograd.grad((policy.detach().exp() * estimates).sum(), logits)
    torch.testing.assert_close(expected, times * exact, atol=1e-10, rtol=0)


@given(st.integers(0, 10_000))
def test_k3_and_exact_kl_are_never_negative(seed: int) -> None:
    policy, reference = normal(4, 9, seed=seed), normal(4, 9, seed=seed + 1)
    policy, reference = policy.log_softmax(-1), reference.log_softmax(-1)
    assert (ppo_math.kl_estimate(policy, reference, "k3") >= 0).all()
    assert (ppo_math.exact_kl(policy, reference) >= -1e-12).all()


def test_exact_kl_with_tokens_that_cannot_be_sampled() -> None:
    policy = torch.tensor([0.5, 0.5, 0.0]).log()
    reference = torch.tensor([0.25, 0.25, 0.5]).log()
    assert ppo_math.exact_kl(policy, reference).item() == pytest.approx(math.log(2))
    both = torch.tensor([0.25, 0.75, 0.0]).log()
    assert ppo_math.exact_kl(policy, both).isfinite()


def test_the_score_goes_to_the_last_real_token() -> None:
    rewards = ppo_math.token_rewards(torch.tensor([5.0, 7.0]), torch.full((2, 3), 0.5), MASK)
    assert rewards.tolist() == [[-0.5, -0.5, 4.5], [6.5, 0, 0]]


def test_a_response_cut_off_is_worth_the_value_after_it() -> None:
    rewards, values = torch.zeros(2, 3), torch.tensor([[0.0, 0, 0, 8.0], [0.0, 8.0, 9.0, 9.0]])
    for bootstrap, known in ((False, 0.0), (True, 8.0)):
        advantages, _ = ppo_math.generalized_advantages(
            rewards, values, MASK, torch.full((2,), bootstrap), 1.0, 1.0
        )
        assert advantages[0, 2] == known
        assert advantages[1, 0] == known
        assert (advantages[1, 1:] == 0).all()


@given(st.integers(0, 10_000), st.floats(0.5, 1))
def test_with_lambda_one_the_return_is_the_discounted_sum(seed: int, gamma: float) -> None:
    rewards, values = normal(2, 3, seed=seed), normal(2, 4, seed=seed + 1)
    _, returns = ppo_math.generalized_advantages(
        rewards, values, MASK, torch.tensor([False, False]), gamma, 1.0
    )
    known = sum(gamma**t * rewards[0, t] for t in range(3))
    assert returns[0, 0].item() == pytest.approx(float(known), abs=1e-9)


def test_losses_of_micro_batches_add_up_to_that_of_the_minibatch() -> None:
    log_probs, old, advantages, values = (normal(2, 3, seed=seed) for seed in range(4))
    whole, _ = ppo_math.policy_loss(log_probs, old, advantages, MASK, 4, 0.2, 0.2)
    whole = whole + ppo_math.value_loss(values, values - 1, values + 2, MASK, 4, 0.2)
    parts = 0.0
    for row in (slice(0, 1), slice(1, 2)):
        part, _ = ppo_math.policy_loss(
            log_probs[row], old[row], advantages[row], MASK[row], 4, 0.2, 0.2
        )
        near = values[row]
        parts += part + ppo_math.value_loss(near, near - 1, near + 2, MASK[row], 4, 0.2)
    assert float(parts) == pytest.approx(whole.item(), abs=1e-12)


def loss_at(ratio: float, advantage: float, dual_clip: float | None = None) -> tuple[float, float]:
    """The loss of one token and its slope in the log-probability."""
    log_prob = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss, _ = ppo_math.policy_loss(
        log_prob, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.tensor([[True]]), 1,
        0.2, 0.3, dual_clip,
    )  # fmt: skip
    (slope,) = torch.autograd.grad(loss, log_prob)
    return loss.item(), slope.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.0, 2.0, -2.0, True),
        (1.5, 2.0, -2.6, False),  # beyond 1 + 0.3 there is no more to gain
        (0.5, 2.0, -1.0, True),  # below, for a good token, the way back is open
        (0.5, -2.0, 1.6, False),  # beyond 1 - 0.2 there is no more to gain
        (1.5, -2.0, 3.0, True),
    ],
)
def test_clipping(ratio: float, advantage: float, loss: float, moves: bool) -> None:
    found, slope = loss_at(ratio, advantage)
    assert found == pytest.approx(loss, rel=1e-5)
    assert (slope != 0) == moves


def test_dual_clip_bounds_what_a_bad_token_can_do() -> None:
    assert loss_at(50.0, -2.0)[0] == pytest.approx(100, rel=1e-5)
    assert loss_at(50.0, -2.0, dual_clip=3.0) == (pytest.approx(6.0), 0.0)
    assert loss_at(50.0, 2.0, dual_clip=3.0) == loss_at(50.0, 2.0)


def test_ratios_of_absurd_log_probabilities_stay_finite() -> None:
    loss, slope = loss_at(math.exp(80), -1.0)
    assert math.isfinite(loss)
    assert slope == 0


def test_value_clipping_takes_the_worse_of_both() -> None:
    def loss(value: float, clip: float | None) -> float:
        tensors = (torch.tensor([[number]]) for number in (value, 0.0, 1.0))
        return ppo_math.value_loss(*tensors, torch.tensor([[True]]), 1, clip).item()

    assert loss(1.0, None) == 0
    assert loss(1.0, 0.2) == pytest.approx(0.5 * 0.8**2)
    assert loss(0.1, 0.2) == pytest.approx(0.5 * 0.9**2)


def test_entropy_of_known_distributions() -> None:
    assert ppo_math.entropy(torch.tensor([0.25] * 4).log()).item() == pytest.approx(math.log(4))
    assert ppo_math.entropy(torch.tensor([1.0, 0.0]).log()).item() == 0


def test_explained_variance() -> None:
    returns = normal(2, 3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert ppo_math.explained_variance(returns, returns, mask).item() == pytest.approx(1)
    assert ppo_math.explained_variance(returns * 0, returns, mask).item() == pytest.approx(0)
    assert ppo_math.explained_variance(returns, returns * 0, mask).isnan()


def test_the_coefficient_follows_the_kl_in_small_steps() -> None:
    assert ppo_math.adapted_coefficient(0.1, 5.0, 5.0, 0.5) == 0.1
    assert ppo_math.adapted_coefficient(0.1, 500.0, 5.0, 0.5) == pytest.approx(0.11)
    assert ppo_math.adapted_coefficient(0.1, 0.0, 5.0, 0.5) == pytest.approx(0.09)
