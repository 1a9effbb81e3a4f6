"""`rl-lab doctor rlhf` notices a flipped sign: each is turned in the code's own text."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rl_lab.rlhf import (
    known_bandits,
    known_closed_forms,
    known_losses,
    ppo_math,
    ppo_rewards,
    ppo_update,
    token_bias,
)
from rl_lab.rlhf.known_answers import run_checks
from rl_lab.rlhf.known_subject import Finding, tiny_subject

Check = Callable[[], Finding | Iterable[Finding]]


def gradient_is_the_slope() -> Finding:
    return known_losses.gradient_is_the_slope(tiny_subject())


SIGNS = {
    "penalty": (
        ppo_rewards.rewards_of_tokens, "penalty = coefficient *", "penalty = -coefficient *",
    ),
    "mean of scores": (
        ppo_rewards.scores_at_end, "scores - moments.mean", "scores + moments.mean",
    ),
    "missing end": (
        ppo_rewards.scores_at_end, "scores - settings.missing", "scores + settings.missing",
    ),
    "entropy": (
        ppo_update.optimize, "loss - ppo.entropy_coefficient", "loss + ppo.entropy_coefficient",
    ),
    "KL in the loss": (
        ppo_update.optimize, "loss + kl_coefficient", "loss - kl_coefficient",
    ),
    "whitening": (
        ppo_math.masked_whiten, "(values - mean) * torch.rsqrt", "(mean - values) * torch.rsqrt",
    ),
    "token bias": (
        token_bias.step, "weight += torch.outer", "weight -= torch.outer",
    ),
}  # fmt: skip
"""A function, what it says, and what it says with the sign flipped."""


def flip(monkeypatch: pytest.MonkeyPatch, sign: str) -> None:
    """Change the function's code, wherever it has been imported."""
    decorated, right, wrong = SIGNS[sign]
    function = inspect.unwrap(decorated)
    source = inspect.getsource(function)
    assert source.count(right) == 1, f"{function.__name__} no longer says {right!r}"
    changed: dict[str, Any] = {}
    exec(source.replace(right, wrong), function.__globals__, changed)
    monkeypatch.setattr(function, "__code__", inspect.unwrap(changed[function.__name__]).__code__)


@pytest.mark.parametrize(
    ("sign", "check"),
    [
        ("penalty", known_closed_forms.penalty_by_hand),
        ("penalty", known_bandits.kl_in_the_reward),
        ("mean of scores", known_closed_forms.scores_by_hand),
        ("missing end", known_closed_forms.scores_by_hand),
        ("entropy", gradient_is_the_slope),
        ("entropy", known_bandits.entropy_bonus),
        ("KL in the loss", gradient_is_the_slope),
        ("KL in the loss", known_bandits.kl_in_the_loss),
        ("whitening", known_closed_forms.whitening_by_hand),
        ("whitening", known_bandits.kl_in_the_reward),
        ("token bias", known_bandits.token_bias_alone),
    ],
)
def test_a_case_notices_a_flipped_sign(
    sign: str, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(monkeypatch, sign)
    found = check()
    findings = [found] if isinstance(found, Finding) else list(found)
    assert [finding for finding in findings if not finding.right]


@pytest.mark.parametrize("sign", SIGNS)
def test_the_doctor_says_that_an_answer_is_wrong(
    sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(monkeypatch, sign)
    assert not all(finding.right for finding in run_checks(tiny_subject()))
