"""Next-token distributions: what is cut off, and what is summed up a few positions at a time."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rl_lab.rlhf import distributions, ppo_math
from rl_lab.rlhf.distributions import (
    Sampling,
    compare,
    log_distribution,
    token_log_probs,
    truncation,
)


def test_temperature_and_bans_are_part_of_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 5.0])
    found = log_distribution(logits, Sampling(1, (1,), banned_ids=(2,), temperature=0.5))
    assert found.exp().tolist() == pytest.approx([1 / (1 + math.e**2), 1 / (1 + math.e**-2), 0])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 1}, [False, True, False, False]),
        ({"top_k": 2}, [False, True, True, False]),
        ({"top_k": 9}, [True] * 4),
        ({"top_p": 0.5}, [False, True, False, False]),
        ({"top_p": 0.51}, [False, True, True, False]),
        ({"top_p": 1.0}, [True] * 4),
        ({"top_k": 3, "top_p": 0.99}, [True, True, True, False]),
    ],
)
def test_truncation_keeps_the_likeliest(settings: dict[str, Any], kept: list[bool]) -> None:
    log_probs = torch.tensor([[0.15, 0.5, 0.25, 0.1]]).log()
    assert truncation(log_probs, Sampling(1, (1,), **settings)).tolist() == [kept]


SETTINGS = Sampling(1, (1,), banned_ids=(2, 5), temperature=0.7)


@pytest.fixture(params=[1, 30, 2**18], ids=["one at a time", "a few", "all"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "AT_ONCE", request.param)


def positions(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (3, 4, 9), tokens (3, 4) that can be sampled, and what truncation left."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 9, generator=random, dtype=torch.float64).float()
    tokens = torch.tensor([0, 3, 4, 6]).expand(3, -1)
    allowed = torch.rand(3, 4, 9, generator=random) < 0.6
    return logits, tokens, allowed.scatter(2, tokens[..., None], True)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("truncated", [False, True])
def test_log_probabilities_and_their_gradient_are_those_of_the_distribution(
    truncated: bool,
) -> None:
    logits, tokens, allowed = positions()
    some = allowed if truncated else None
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    found, known = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    log_probs = token_log_probs(found, tokens, SETTINGS, some)
    whole = log_distribution(known, SETTINGS, some).gather(2, tokens[..., None])[..., 0]
    torch.testing.assert_close(log_probs, whole)
    (log_probs * weights).sum().backward()
    (whole * weights).sum().backward()
    torch.testing.assert_close(found.grad, known.grad)


@pytest.mark.usefixtures("at_once")
def test_policy_and_reference_are_compared_over_the_whole_vocabulary() -> None:
    (logits, tokens, allowed), (others, _, _) = positions(0), positions(1)
    found = compare(logits, others, tokens, SETTINGS, allowed)
    policy = log_distribution(logits, SETTINGS, allowed)
    reference = log_distribution(others, SETTINGS)
    torch.testing.assert_close(found.exact_kl, ppo_math.exact_kl(policy, reference))
    torch.testing.assert_close(found.entropy, ppo_math.entropy(policy))
    of_tokens = reference.gather(2, tokens[..., None])[..., 0]
    torch.testing.assert_close(found.reference_log_probs, of_tokens)


def test_beside_a_cpu_few_large_parts_are_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []

    def noted(logits: Tensor, *rest: Any) -> Tensor:
        parts.append(len(logits))
        return log_distribution(logits, *rest)

    monkeypatch.setattr(distributions, "log_distribution", noted)
    logits = torch.empty(4, 64, 50_000, device="meta")  # as on a GPU, but that nothing is computed
    tokens = torch.empty(4, 64, dtype=torch.long, device="meta")
    token_log_probs(logits, tokens, Sampling(1, (1,)))
    assert parts == [256]
