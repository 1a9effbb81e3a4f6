"""Known answers: what PPO for language models must get right, checked against what is known.

`rl-lab doctor rlhf` runs them on a tiny model or on the user's own. Each check measures how far
the code is from an answer known otherwise (a closed form, another way of computing it, a sum over
all outcomes) and says what distance is still rounding or sampling error.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from rl_lab.rlhf import known_closed_forms, ppo_math
from rl_lab.rlhf.distributions import log_distribution
from rl_lab.rlhf.known_subject import Finding, Subject
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.ppo_recipe import Critic as CriticSection
from rl_lab.rlhf.ppo_update import optimize
from rl_lab.rlhf.rollout import SamplerMismatchError
from rl_lab.rlhf.sampling import Responses


def run_checks(subject: Subject) -> Iterator[Finding]:
    """Run every check, the quick ones first."""
    yield known_closed_forms.advantages_in_closed_form()
    yield from known_closed_forms.score_at_the_end()
    ratio = ratio_is_one(subject)
    yield ratio
    if not ratio.right:  # nothing that is measured on such rollouts would mean anything
        return
    yield padding_changes_nothing(subject)
    yield micro_batches_change_nothing(subject)
    yield order_changes_nothing(subject)
    yield exact_kl_is_the_mean_of_samples(subject)
    yield known_closed_forms.gradient_is_the_slope()
    yield reference_is_frozen(subject)
    yield same_seed_same_bits(subject)
    yield known_closed_forms.bandit_reaches_its_optimum()


def ratio_is_one(subject: Subject) -> Finding:
    """Sampler and trainer agree on every token's log-probability."""
    claim = "the first ratio is 1: the trainer's log-probabilities are the sampler's"
    try:
        rollout = subject.rollout(subject.policy())
    except SamplerMismatchError:
        return Finding(claim, math.inf, 1e-3)
    distance = (rollout.log_probs - rollout.responses.log_probs).abs()
    return Finding(claim, distance.max().item(), 1e-3)


def _padded(responses: Responses, left: int, right: int, pad_id: int) -> Responses:
    """The same responses among more padding."""
    size = len(responses)
    ids, none = torch.full((size, 1), pad_id), torch.zeros((size, 1), dtype=torch.bool)
    return replace(
        responses,
        prompts=torch.cat([ids.expand(-1, left), responses.prompts], 1),
        prompt_mask=torch.cat([none.expand(-1, left), responses.prompt_mask], 1),
        tokens=torch.cat([responses.tokens, ids.expand(-1, right)], 1),
        mask=torch.cat([responses.mask, none.expand(-1, right)], 1),
        log_probs=torch.cat([responses.log_probs, torch.zeros(size, right)], 1),
    )


@torch.no_grad()
def padding_changes_nothing(subject: Subject) -> Finding:
    """More padding on either side; and each response by itself, with none."""
    policy = subject.policy()
    rollout = subject.rollout(policy)
    responses, sampling = rollout.responses, subject.sampling
    pad_id = subject.tokenizer.pad_token_id
    more = policy(_padded(responses, 5, 3, pad_id), sampling)
    steps = responses.mask.shape[1]
    furthest = (more.log_probs[:, :steps] - rollout.log_probs).abs().max().item()
    values = torch.where(responses.mask, more.values[:, :steps] - rollout.values[:, :steps], 0)
    furthest = max(furthest, values.abs().max().item())
    for row in range(len(responses)):
        alone = responses.select(torch.tensor([row]))
        own = policy(alone, sampling)
        length = own.log_probs.shape[1]
        distance = own.log_probs[0] - rollout.log_probs[row, :length]
        furthest = max(furthest, distance.abs().max().item())
    return Finding("padding, its side and amount change no log-probability or value",
                   furthest, _rounding(subject))  # fmt: skip


def _rounding(subject: Subject) -> float:
    """What float32 may differ by between two ways of adding the same numbers."""
    layers = getattr(subject.model.config.get_text_config(), "num_hidden_layers", 1)
    return 1e-5 * max(1, layers)


def _weights_after(subject: Subject, micro_batch: int, rows: list[int] | None = None) -> Tensor:
    """Gradient of one whole-batch step, with the rollout's rows in a given order."""
    policy = subject.policy()
    rollout = subject.rollout(policy)
    if rows is not None:
        order = torch.tensor(rows)
        rollout = replace(
            rollout,
            responses=rollout.responses.select(order),
            log_probs=rollout.log_probs[order],
            values=rollout.values[order],
            scored=replace(rollout.scored, total=rollout.scored.total[order]),
        )
    mask = rollout.responses.mask
    rewards = ppo_math.token_rewards(rollout.scored.total, torch.zeros(mask.shape), mask)
    advantages, returns = ppo_math.generalized_advantages(
        rewards, rollout.values, mask, torch.zeros(len(mask), dtype=torch.bool), 1.0, 0.95
    )
    size = len(subject.prompts)
    ppo = PPO(
        rollouts=size, minibatch=size, micro_batch=micro_batch, epochs=1, max_grad_norm=1e9,
        critic=CriticSection(clip=None),
    )  # fmt: skip
    parameters = list(policy.trained_tensors().values())
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    optimize(ppo, policy, policy.reference_of(), optimizer, rollout, advantages, returns,
             subject.sampling, 0.0, Memory(micro_batch))  # fmt: skip
    gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
    return torch.cat(gradients)


def _relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def micro_batches_change_nothing(subject: Subject) -> Finding:
    """The gradient of a minibatch at once, and of its responses one by one."""
    whole, parts = _weights_after(subject, len(subject.prompts)), _weights_after(subject, 1)
    return Finding("micro-batches change nothing in the gradient (relative)",
                   _relative(parts, whole), 1e-4)  # fmt: skip


def order_changes_nothing(subject: Subject) -> Finding:
    """The gradient with the responses in another order."""
    size = len(subject.prompts)
    whole = _weights_after(subject, size)
    turned = _weights_after(subject, size, list(reversed(range(size))))
    return Finding("the order of responses changes nothing in the gradient (relative)",
                   _relative(turned, whole), 1e-4)  # fmt: skip


@torch.no_grad()
def exact_kl_is_the_mean_of_samples(subject: Subject) -> Finding:
    """Exact KL against the mean log-ratio of tokens drawn from the policy, in standard errors."""
    policy = subject.policy()
    reference = policy.reference_of()
    random = torch.Generator().manual_seed(1)
    head = policy.model.get_output_embeddings().weight
    noise = torch.randn(head.shape, generator=random).to(head.device)
    head.add_(0.1 * head.std() * noise)
    responses = subject.rollout(policy).responses
    evaluated = policy(responses, subject.sampling)
    first = log_distribution(evaluated.logits[:, 0], subject.sampling).cpu()
    first_reference = log_distribution(reference.logits(responses)[:, 0], subject.sampling).cpu()
    exact = ppo_math.exact_kl(first, first_reference)
    drawn = torch.multinomial(first.exp(), 20_000, replacement=True, generator=random)
    k1 = ppo_math.kl_estimate(first.gather(1, drawn), first_reference.gather(1, drawn), "k1")
    errors = (k1.mean(1) - exact).abs() / (k1.std(1) / math.sqrt(k1.shape[1]))
    return Finding("exact KL is the mean of sampled KL (in standard errors)",
                   errors.max().item(), 4.0)  # fmt: skip


def reference_is_frozen(subject: Subject) -> Finding:
    """Training the policy changes the policy, and nothing in the reference."""
    policy = subject.policy()
    reference = policy.reference_of()
    rollout = subject.rollout(policy)
    before = reference.logits(rollout.responses)
    with torch.no_grad():
        for parameter in policy.trained_tensors().values():
            parameter.add_(0.01)
    after = reference.logits(rollout.responses)
    moved = (policy(rollout.responses, subject.sampling).log_probs - rollout.log_probs).abs().max()
    same = torch.equal(before, after) and moved.item() > 0
    return Finding("the reference is frozen while the policy moves", 0.0 if same else 1.0, 0.0)


def same_seed_same_bits(subject: Subject) -> Finding:
    """Two rollouts from one seed, and one from another."""
    one, two, other = (subject.rollout(subject.policy(), seed) for seed in (3, 3, 4))
    same = torch.equal(one.responses.tokens, two.responses.tokens) and torch.equal(
        one.log_probs, two.log_probs
    )
    differs = not torch.equal(one.responses.tokens, other.responses.tokens)
    return Finding("the same seed gives the same bits, another seed others",
                   0.0 if same and differs else 1.0, 0.0)  # fmt: skip
