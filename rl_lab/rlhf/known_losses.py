"""Known answers of the loss: its gradient is its slope, its exact KL the mean of samples."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.distributions import log_distribution
from rl_lab.rlhf.known_subject import Finding, Lesson, Subject
from rl_lab.rlhf.policy import Policy

Gradients = Sequence[tuple[Tensor, Tensor]]
"""Parameters, each with its gradient."""


@torch.no_grad()
def textbook_loss(
    subject: Subject, policy: Policy, reference_logits: Tensor, lesson: Lesson, tokens: int
) -> Tensor:
    """The whole loss, as the papers write it: nothing of `optimize` or `ppo_math` is used.

    Args:
        subject: its settings and sampling.
        policy: in whatever precision the loss is wanted.
        reference_logits: (B, T, V).
        lesson: B responses of T tokens, sampled without truncation.
        tokens: what sums over tokens are divided by.

    Returns:
        -E[min(ratio A, clip(ratio) A)] + c_v E[max((V - R)^2, (clip(V) - R)^2)] / 2
        - c_h E[H(pi)] + beta E[KL(pi || ref)], a scalar.
    """
    ppo, rollout, responses = subject.ppo, lesson.rollout, lesson.rollout.responses
    mask = responses.mask
    evaluated = policy(responses, subject.sampling)
    values = policy.critic.head(evaluated.critic_states)[:, :-1, 0][mask]

    def distribution(logits: Tensor) -> Tensor:
        """(N, V) log-probabilities at the real tokens."""
        logits = logits[mask].to(values.dtype) / subject.sampling.temperature
        logits[:, list(subject.sampling.banned_ids)] = -math.inf
        return logits.log_softmax(-1)

    def expectation(numbers: Tensor) -> Tensor:
        """(N, V) numbers -> (N,) their means under the policy, without what is never sampled."""
        return torch.where(probabilities > 0, probabilities * numbers, 0).sum(-1)

    log_probs, reference = distribution(evaluated.logits), distribution(reference_logits)
    probabilities = log_probs.exp()
    chosen = log_probs.gather(1, responses.tokens[mask][:, None])[:, 0]
    ratio = (chosen - rollout.log_probs[mask]).exp()
    clipped = ratio.clamp(1 - ppo.clip, 1 + (ppo.clip_high or ppo.clip))
    advantages, returns = lesson.advantages[mask], lesson.returns[mask]
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)

    old = rollout.values[:, :-1][mask]
    assert ppo.critic.clip is not None
    near = values.clamp(old - ppo.critic.clip, old + ppo.critic.clip)
    errors = torch.maximum((values - returns) ** 2, (near - returns) ** 2)

    loss = (
        -surrogate
        + ppo.critic.coefficient * errors / 2
        - ppo.entropy_coefficient * expectation(-log_probs)
        + ppo.kl.coefficient * expectation(log_probs - reference)
    )
    return loss.sum() / tokens


PARTS = 12
"""Parameters, evenly spread over the model, along each of which the slope is measured."""
RISES = (1e-3, 1e-4)
"""By which the loss should change to either side. The first is far above rounding (norms compute in
float32 whatever the model); the second seldom meets a bend, where clipping begins."""


def gradient_is_the_slope(subject: Subject) -> Finding:
    """What `optimize` takes for the gradient, against finite differences in float64.

    Along its gradient, that of the whole model and those of single parameters, the loss must rise
    by the gradient's norm. A wrong gradient is off by either of RISES.
    """
    policy, reference = subject.policy_and_reference()
    lesson = subject.lesson(policy, reference)
    subject.learn(policy, reference, lesson, micro_batch=2)
    of_reference = reference.logits(lesson.rollout.responses)
    tokens = int(lesson.rollout.responses.mask.sum())
    policy.double()

    def loss() -> float:
        return textbook_loss(subject, policy, of_reference, lesson, tokens).item()

    gradients = [
        (parameter.data, parameter.grad)
        for parameter in policy.trained_tensors().values()
        if parameter.grad is not None
    ]
    apart = [[one] for one in gradients[:: math.ceil(len(gradients) / PARTS)]]
    whole = _norm(gradients)
    furthest = 0.0
    for part in (gradients, *apart):
        slopes = [_slope(loss, part, rise / whole) for rise in RISES]
        furthest = max(furthest, min(abs(slope - _norm(part)) for slope in slopes) / whole)
    return Finding("the gradient of an update's loss is that of finite differences (relative)",
                   furthest, 5e-3)  # fmt: skip


def _slope(loss: Callable[[], float], gradients: Gradients, step: float) -> float:
    """Of the loss in the gradients' direction, from a step to either side."""
    norm = max(_norm(gradients), 1e-30)  # of zeros: no way to go, and a slope of 0
    found = []
    for move in (step, -2 * step, step):  # to one side, to the other, and back
        for parameter, gradient in gradients:
            parameter.add_(gradient, alpha=move / norm)
        found.append(loss())
    return (found[0] - found[1]) / (2 * step)


def _norm(gradients: Gradients) -> float:
    return math.sqrt(sum(gradient.square().sum().item() for _, gradient in gradients))


@torch.no_grad()
def exact_kl_is_the_mean_of_samples(subject: Subject) -> Finding:
    """Exact KL against the mean log-ratio of tokens drawn from the policy, in standard errors."""
    policy, reference = subject.policy_and_reference()
    random = torch.Generator().manual_seed(1)
    responses = subject.rollout(policy, reference).responses
    evaluated = policy(responses, subject.sampling)
    first = log_distribution(evaluated.logits[:, 0], subject.sampling).cpu()
    first_reference = log_distribution(reference.logits(responses)[:, 0], subject.sampling).cpu()
    exact = ppo_math.exact_kl(first, first_reference)
    drawn = torch.multinomial(first.exp(), 20_000, replacement=True, generator=random)
    k1 = ppo_math.kl_estimate(first.gather(1, drawn), first_reference.gather(1, drawn), "k1")
    errors = (k1.mean(1) - exact).abs() / (k1.std(1) / math.sqrt(k1.shape[1]))
    return Finding("exact KL is the mean of sampled KL (in standard errors)",
                   errors.max().item(), 4.0)  # fmt: skip
