"""The correctness suite that `rl-lab doctor rlhf` runs; and that it would notice a fault."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rl_lab.commands.doctor_rlhf import doctor_rlhf
from rl_lab.rlhf import (
    known_answers,
    known_closed_forms,
    known_invariances,
    known_losses,
    known_subject,
    known_updates,
    ppo_math,
)
from rl_lab.rlhf.known_answers import run_checks
from rl_lab.rlhf.known_subject import Finding, tiny_subject
from rl_lab.rlhf.policy import Policy, Reference


def test_every_answer_is_right_for_the_tiny_model() -> None:
    findings = list(run_checks(tiny_subject()))
    assert len(findings) >= 25
    assert [finding for finding in findings if not finding.right] == []


def test_they_are_right_for_an_architecture_with_learned_positions() -> None:
    subject = tiny_subject()
    config = GPT2Config(
        vocab_size=len(subject.tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64,
        initializer_range=0.3, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    subject = replace(subject, model=GPT2LMHeadModel(config).eval())
    findings = [
        known_invariances.ratio_is_one(subject),
        *known_invariances.padding_changes_nothing(subject),
        *known_invariances.micro_batches_change_nothing(subject),
        known_losses.gradient_is_the_slope(subject),
        known_updates.reference_is_frozen(subject, lora=True),
    ]
    assert [finding for finding in findings if not finding.right] == []


def test_the_listing_tells_findings_about_the_model_from_those_about_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("one", 0.5, 1.0, "code"), Finding("two", 2.0, 1.0)]
    monkeypatch.setattr(known_answers, "run_checks", lambda subject: findings)
    assert doctor_rlhf(None, json=False) == 1
    listed = capsys.readouterr().out.splitlines()
    assert "a tiny model" in listed[0]
    assert listed[1].startswith("right  code   one: off by 0.5")
    assert listed[2].startswith("WRONG  model  two: off by 2")
    assert "do not train with this installation" in listed[3]
    doctor_rlhf(None, json=True)
    assert [one["about"] for one in json.loads(capsys.readouterr().out)] == ["code", "model"]


def test_a_model_that_sees_its_padding_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions counted from the padding, the commonest fault of all."""
    from rl_lab.rlhf import policy

    monkeypatch.setattr(
        policy, "positions_of", lambda mask: torch.arange(mask.shape[1]).expand_as(mask)
    )
    # A rotary model cannot tell (only distances matter to it); one with learned positions can.
    subject = tiny_subject()
    config = GPT2Config(
        vocab_size=len(subject.tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    subject = replace(subject, model=GPT2LMHeadModel(config).eval())
    assert not known_invariances.ratio_is_one(subject).right
    assert not list(run_checks(subject))[-1].right


def test_a_score_at_the_wrong_token_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_first(mask: torch.Tensor) -> torch.Tensor:
        first = torch.zeros_like(mask)
        first[:, 0] = mask[:, 0]
        return first

    monkeypatch.setattr(ppo_math, "end_of", at_first)
    assert not all(finding.right for finding in known_closed_forms.score_at_the_end())
    assert not known_closed_forms.advantages_in_closed_form().right


def test_an_update_that_moves_the_reference_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Policy, "reference_of", lambda policy: Reference(policy, policy.model, False)
    )
    assert not known_updates.reference_is_frozen(tiny_subject()).right


def test_an_update_that_comes_out_otherwise_each_time_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rollouts are the same; learning draws from no seed."""
    optimize = known_subject.optimize

    def unseeded(*arguments: Any) -> dict[str, float]:
        advantages, random = arguments[5], np.random.default_rng()
        noise = torch.from_numpy(random.normal(size=advantages.shape)).float()
        return optimize(*arguments[:5], advantages + noise, *arguments[6:])

    monkeypatch.setattr(known_subject, "optimize", unseeded)
    assert not known_updates.same_seed_same_bits(tiny_subject()).right


def test_a_loss_averaged_over_each_micro_batch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    value_loss = ppo_math.value_loss

    def averaged(*arguments: Any) -> torch.Tensor:
        mask = arguments[3]
        return value_loss(*arguments[:4], int(mask.sum()), *arguments[5:])

    monkeypatch.setattr(ppo_math, "value_loss", averaged)
    findings = list(known_invariances.micro_batches_change_nothing(tiny_subject()))
    assert not any(finding.right for finding in findings)
