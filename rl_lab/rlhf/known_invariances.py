"""Known answers of what must change nothing: who computes, padding, micro-batches, order."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from rl_lab.rlhf.known_losses import textbook_loss
from rl_lab.rlhf.known_subject import Finding, Lesson, Subject
from rl_lab.rlhf.rollout import SamplerMismatchError

LOSSES = 1e-5
"""How far losses may lie apart in float32."""


def ratio_is_one(subject: Subject) -> Finding:
    """Sampler and trainer agree on every token's log-probability."""
    claim = "the first ratio is 1: the trainer's log-probabilities are the sampler's"
    try:
        rollout = subject.rollout(*subject.policy_and_reference())
    except SamplerMismatchError:
        return Finding(claim, math.inf, 1e-3)
    distance = (rollout.log_probs - rollout.responses.log_probs).abs()
    return Finding(claim, distance.max().item(), 1e-3)


@torch.no_grad()
def padding_changes_nothing(subject: Subject) -> Iterator[Finding]:
    """More padding on either side; and each response by itself, with none."""
    policy, reference = subject.policy_and_reference()
    lesson = subject.lesson(policy, reference)
    rollout = lesson.rollout
    tokens = int(rollout.responses.mask.sum())

    def loss(lesson: Lesson) -> Tensor:
        of_reference = reference.logits(lesson.rollout.responses)
        return textbook_loss(subject, policy, of_reference, lesson, tokens)

    def at_tokens(lesson: Lesson) -> Tensor:
        """(2, N) log-probabilities and values at the real tokens, one response after the other."""
        responses = lesson.rollout.responses
        evaluated = policy(responses, subject.sampling)
        return torch.stack([evaluated.log_probs, evaluated.values[:, :-1]])[:, responses.mask]

    more = lesson.padded(left=5, right=3, pad_id=subject.tokenizer.pad_token_id)
    alone = [lesson.select(torch.tensor([row])) for row in range(len(rollout.responses))]
    ways = torch.stack([at_tokens(more), torch.cat([at_tokens(one) for one in alone], 1)])
    furthest = (ways - at_tokens(lesson)).abs().max().item()
    yield Finding("padding, its side and amount change no log-probability or value",
                  furthest, _rounding(subject))  # fmt: skip
    losses = torch.stack([loss(more), torch.stack([loss(one) for one in alone]).sum()])
    furthest = (losses - loss(lesson)).abs().max().item()
    yield Finding("padding, its side and amount change no loss", furthest, LOSSES)


def _rounding(subject: Subject) -> float:
    """What float32 may differ by between two ways of adding the same numbers."""
    layers = getattr(subject.model.config.get_text_config(), "num_hidden_layers", 1)
    return 1e-5 * max(1, layers)


def micro_batches_change_nothing(subject: Subject) -> Iterator[Finding]:
    """A minibatch at once, and its responses one by one."""
    yield from _same("micro-batches change nothing", _learned(subject, 1), _learned(subject))


def order_changes_nothing(subject: Subject) -> Iterator[Finding]:
    """The responses in another order."""
    backwards = torch.arange(len(subject.prompts)).flip(0)
    found = _learned(subject, order=backwards)
    yield from _same("the order of responses changes nothing", found, _learned(subject))


def _learned(
    subject: Subject, micro_batch: int | None = None, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gradient after a step, flat; and the losses of policy and critic, over both steps."""
    policy, reference = subject.policy_and_reference()
    lesson = subject.lesson(policy, reference)
    if order is not None:
        lesson = lesson.select(order)
    numbers = subject.learn(policy, reference, lesson, micro_batch)
    gradients = [p.grad.flatten() for p in policy.trained_tensors().values() if p.grad is not None]
    losses = torch.tensor([numbers["train/policy_loss"], numbers["train/value_loss"]])
    return torch.cat(gradients), losses


def _same(
    claim: str, found: tuple[Tensor, Tensor], known: tuple[Tensor, Tensor]
) -> Iterator[Finding]:
    distance = (found[0] - known[0]).norm() / known[0].norm()
    yield Finding(f"{claim} in the gradient (relative)", distance.item(), 1e-4)
    yield Finding(f"{claim} in the losses", (found[1] - known[1]).abs().max().item(), LOSSES)
