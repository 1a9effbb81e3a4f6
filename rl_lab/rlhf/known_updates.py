"""Known answers of a whole update: what it must not touch, and that it comes to the same bits."""

import torch
from torch import Tensor

from rl_lab.rlhf.distributions import log_distribution
from rl_lab.rlhf.known_subject import Finding, Subject


def reference_is_frozen(subject: Subject, lora: bool = False) -> Finding:
    """An update moves the policy, and no bit of the reference's log-probabilities.

    Args:
        subject: the model.
        lora: whether adapters are trained, and the reference is the policy without them.
    """
    policy = subject.policy(lora)
    reference = policy.reference_of()
    lesson = subject.lesson(policy, reference)
    responses = lesson.rollout.responses

    def log_probs() -> Tensor:
        return log_distribution(reference.logits(responses), subject.sampling)

    before = log_probs()
    subject.learn(policy, reference, lesson)
    with torch.no_grad():
        moved = (policy(responses, subject.sampling).log_probs - lesson.rollout.log_probs).abs()
    same = torch.equal(before, log_probs()) and moved.max().item() > 0
    trained = "LoRA adapters learn" if lora else "the policy learns"
    return Finding(f"the reference is frozen while {trained}", 0.0 if same else 1.0, 0.0)


def same_seed_same_bits(subject: Subject) -> Finding:
    """A whole update, rollout and learning, twice from one seed; and a rollout from another."""

    def updated(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        policy, reference = subject.policy_and_reference()
        lesson = subject.lesson(policy, reference, seed)
        subject.learn(policy, reference, lesson)
        return lesson.rollout.responses.tokens, policy.trained_tensors()

    (tokens, weights), (_, again) = updated(3), updated(3)
    other = subject.rollout(*subject.policy_and_reference(), 4).responses.tokens
    same = all(torch.equal(weights[name], again[name]) for name in weights)
    same = same and not torch.equal(tokens, other)
    return Finding("an update from the same seed ends in the same bits, another seed draws others",
                   0.0 if same else 1.0, 0.0)  # fmt: skip
