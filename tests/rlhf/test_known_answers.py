"""The correctness suite that `rl-lab doctor rlhf` runs; and that it would notice a fault."""

from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rl_lab.rlhf import known_answers, known_closed_forms, ppo_math
from rl_lab.rlhf.known_answers import run_checks
from rl_lab.rlhf.known_subject import tiny_subject


def test_every_answer_is_right_for_the_tiny_model() -> None:
    findings = list(run_checks(tiny_subject()))
    assert len(findings) >= 12
    assert [finding for finding in findings if not finding.right] == []


def test_they_are_right_for_an_architecture_with_learned_positions() -> None:
    subject = tiny_subject()
    config = GPT2Config(
        vocab_size=len(subject.tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64,
        initializer_range=0.3, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    subject = replace(subject, model=GPT2LMHeadModel(config).eval())
    for check in (
        known_answers.ratio_is_one,
        known_answers.padding_changes_nothing,
        known_answers.micro_batches_change_nothing,
    ):
        assert check(subject).right


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
    assert not known_answers.ratio_is_one(subject).right
    assert not list(run_checks(subject))[-1].right


def test_a_score_at_the_wrong_token_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_first(mask: torch.Tensor) -> torch.Tensor:
        first = torch.zeros_like(mask)
        first[:, 0] = mask[:, 0]
        return first

    monkeypatch.setattr(ppo_math, "end_of", at_first)
    assert not all(finding.right for finding in known_closed_forms.score_at_the_end())
    assert not known_closed_forms.advantages_in_closed_form().right
