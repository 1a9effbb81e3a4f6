"""Known answers: what PPO for language models must get right, checked against what is known.

`rl-lab doctor rlhf` runs them on a tiny model or on the user's own. Each check measures how far
the code is from an answer known otherwise (a closed form, another way of computing it, a sum over
all outcomes) and says what distance is still rounding or sampling error.
"""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rl_lab.phases import PhaseClock
from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.policy import Critic, Policy
from rl_lab.rlhf.ppo_update import optimize
from rl_lab.rlhf.prompts import Prompt, tokenize_prompt
from rl_lab.rlhf.recipe import KL, PPO
from rl_lab.rlhf.recipe import Critic as CriticSection
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.rlhf.rollout import Rollout, collect
from rl_lab.rlhf.sampling import Responses, Sampling, left_pad, log_distribution
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer


@dataclass(frozen=True)
class Finding:
    """One check and how it came out."""

    claim: str
    measured: float
    """Distance from the known answer."""
    allowed: float
    """Largest distance that is rounding or sampling error."""

    @property
    def right(self) -> bool:
        """Whether it holds; NaN is never right."""
        return self.measured <= self.allowed


@dataclass
class Subject:
    """The model the checks are made on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[Prompt]
    """Of different lengths."""
    sampling: Sampling

    def policy(self) -> Policy:
        """A policy on a copy of the model, with a critic that is the same each time, in float32."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            critic = Critic(self.model.config.get_text_config().hidden_size)
        model = copy.deepcopy(self.model).requires_grad_(True)
        return Policy(model, critic.to(model.device), torch.float32).eval()

    def rollout(self, policy: Policy, seed: int = 0) -> Rollout:
        """Responses scored by their length."""
        generator = torch.Generator(policy.device)
        generator.manual_seed(seed)
        rewards = Rewards(
            {"length": Term(lambda prompts, texts: [len(text) / 10 for text in texts])}
        )
        return collect(
            policy, policy.reference_of(), self.prompts, rewards, self.tokenizer, self.sampling,
            generator, len(self.prompts), PhaseClock("check"),
        )  # fmt: skip


def tiny_subject() -> Subject:
    """Four prompts of 1 to 4 words for a model of one layer."""
    tokenizer = tiny_tokenizer()
    texts = ["a", "b c", "c a b", "a b c a"]
    prompts = [Prompt(text, [2, *tokenizer(text).input_ids]) for text in texts]
    return Subject(tiny_model(len(tokenizer)), tokenizer, prompts, Sampling(6, (1,), (0, 2)))


def subject_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sampling: Sampling
) -> Subject:
    """Four short English prompts for any model."""
    texts = ["The", "This film is", "I watched it twice and", "What I liked best about the first"]
    prompts = [Prompt(text, tokenize_prompt(text, tokenizer)) for text in texts]
    return Subject(model, tokenizer, prompts, replace(sampling, max_new_tokens=6))


def run_checks(subject: Subject) -> Iterator[Finding]:
    """Run every check, the quick ones first."""
    yield advantages_in_closed_form()
    yield from score_at_the_end()
    yield ratio_is_one(subject)
    yield padding_changes_nothing(subject)
    yield micro_batches_change_nothing(subject)
    yield order_changes_nothing(subject)
    yield exact_kl_is_the_mean_of_samples(subject)
    yield gradient_is_the_slope()
    yield reference_is_frozen(subject)
    yield same_seed_same_bits(subject)
    yield bandit_reaches_its_optimum()


# --- pure maths ----------------------------------------------------------------------------------


def advantages_in_closed_form() -> Finding:
    """GAE against the sum it abbreviates: A_t = sum_k (gamma lambda)^k delta_{t+k}."""
    random = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 5, generator=random, dtype=torch.float64)
    values = torch.randn(3, 6, generator=random, dtype=torch.float64)
    lengths, cut_off = [5, 3, 5], torch.tensor([False, False, True])
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    gamma, lam = 0.9, 0.8
    advantages, _ = ppo_math.generalized_advantages(rewards, values, mask, cut_off, gamma, lam)
    furthest = 0.0
    for row, length in enumerate(lengths):
        worth = [*values[row, 1:length].tolist(), values[row, length].item() * cut_off[row].item()]
        deltas = [
            rewards[row, t].item() + gamma * worth[t] - values[row, t].item() for t in range(length)
        ]
        for t in range(length):
            known = sum((gamma * lam) ** k * deltas[t + k] for k in range(length - t))
            furthest = max(furthest, abs(known - advantages[row, t].item()))
    return Finding("advantages (GAE) are those of the closed form", furthest, 1e-12)


def score_at_the_end() -> Iterator[Finding]:
    """The score lands on the last real token: pad = eos, no end token, several end tokens."""
    cases = {
        "pad = eos": (tiny_tokenizer(pad_is_eos=True), (0,)),
        "no end token": (tiny_tokenizer(), ()),
        "several end tokens": (tiny_tokenizer(), (1, 4)),
    }
    for name, (tokenizer, stops) in cases.items():
        begin = tokenizer.convert_tokens_to_ids("<bos>")
        ids = [[begin, *tokenizer(text).input_ids] for text in ("a", "b c", "c")] * 8
        subject = Subject(
            tiny_model(len(tokenizer)), tokenizer, [Prompt("", row) for row in ids],
            Sampling(8, stops, (begin,)),
        )  # fmt: skip
        responses = subject.rollout(subject.policy()).responses
        scores = torch.arange(1.0, len(responses) + 1)
        rewards = ppo_math.token_rewards(scores, torch.zeros(responses.mask.shape), responses.mask)
        wrong = 0
        for row in range(len(responses)):
            tokens = responses.tokens[row].tolist()
            ends = [place for place, token in enumerate(tokens) if token in stops]
            last = ends[0] if ends else len(tokens) - 1
            wrong += int(rewards[row].nonzero().flatten().tolist() != [last])
            wrong += int(responses.terminated[row].item() != bool(ends))
        yield Finding(f"the score is on the last real token ({name})", wrong, 0)


def gradient_is_the_slope() -> Finding:
    """The loss's gradient against finite differences, in float64."""
    random = torch.Generator().manual_seed(0)
    shape, vocabulary = (2, 3), 4

    def numbers(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64)

    tokens = torch.randint(vocabulary, shape, generator=random)[..., None]
    old, reference = (numbers(*shape, vocabulary).log_softmax(-1) for _ in range(2))
    advantages, old_values, returns = (numbers(*shape) for _ in range(3))
    mask = torch.tensor([[True, True, True], [True, True, False]])

    def loss(logits: Tensor, values: Tensor) -> Tensor:
        distribution = logits.log_softmax(-1)
        log_probs = distribution.gather(-1, tokens)[..., 0]
        of_old = old.gather(-1, tokens)[..., 0]
        policy, _ = ppo_math.policy_loss(log_probs, of_old, advantages, mask, 5, 0.2, 0.3, 3.0)
        value = ppo_math.value_loss(values, old_values, returns, mask, 5, 0.2)
        kl = torch.where(mask, ppo_math.exact_kl(distribution, reference), 0).sum()
        return policy + value + kl + torch.where(mask, ppo_math.entropy(distribution), 0).sum()

    inputs = (numbers(*shape, vocabulary).requires_grad_(), numbers(*shape).requires_grad_())
    slope = torch.autograd.grad(loss(*inputs), inputs)
    furthest, step = 0.0, 1e-6
    for tensor, gradient in zip(inputs, slope, strict=True):
        for place in itertools.product(*map(range, tensor.shape)):
            with torch.no_grad():
                middle = tensor[place].item()
                sides = []
                for side in (middle + step, middle - step):
                    tensor[place] = side
                    sides.append(loss(*inputs).item())
                tensor[place] = middle
            finite = (sides[0] - sides[1]) / (2 * step)
            furthest = max(furthest, abs(finite - gradient[place].item()))
    return Finding("the loss's gradient is that of finite differences", furthest, 1e-7)


# --- on the model --------------------------------------------------------------------------------


def ratio_is_one(subject: Subject) -> Finding:
    """Sampler and trainer agree on every token's log-probability."""
    rollout = subject.rollout(subject.policy())
    distance = (rollout.log_probs - rollout.responses.log_probs).abs()
    return Finding("the first ratio is 1: the trainer's log-probabilities are the sampler's",
                   distance.max().item(), 1e-3)  # fmt: skip


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
            responses=rollout.responses.select(order, whole=True),
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
        rewards={}, critic=CriticSection(clip=None),
    )  # fmt: skip
    parameters = list(policy.trained_tensors().values())
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    optimize(ppo, policy, policy.reference_of(), optimizer, rollout, advantages, returns,
             subject.sampling, 0.0)  # fmt: skip
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
    of_reference = reference.distribution(responses, subject.sampling)
    exact = ppo_math.exact_kl(evaluated.distribution, of_reference)[:, 0]
    first, first_reference = evaluated.distribution[:, 0].cpu(), of_reference[:, 0].cpu()
    drawn = torch.multinomial(first.exp(), 20_000, replacement=True, generator=random)
    k1 = ppo_math.kl_estimate(first.gather(1, drawn), first_reference.gather(1, drawn), "k1")
    errors = (k1.mean(1) - exact.cpu()).abs() / (k1.std(1) / math.sqrt(k1.shape[1]))
    return Finding("exact KL is the mean of sampled KL (in standard errors)",
                   errors.max().item(), 4.0)  # fmt: skip


def reference_is_frozen(subject: Subject) -> Finding:
    """Training the policy changes the policy, and nothing in the reference."""
    policy = subject.policy()
    reference = policy.reference_of()
    rollout = subject.rollout(policy)
    before = reference.distribution(rollout.responses, subject.sampling)
    with torch.no_grad():
        for parameter in policy.trained_tensors().values():
            parameter.add_(0.01)
    after = reference.distribution(rollout.responses, subject.sampling)
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


def bandit_reaches_its_optimum() -> Finding:
    """A bandit of three tokens: its optimum under a KL penalty is known in closed form.

    The policy that maximises E[r] - beta KL(pi || ref) is pi*(a) ~ ref(a) exp(r(a) / beta)
    (Ziegler et al., 2019, section 2; Rafailov et al., 2023, equation 4).
    """
    beta, prizes = 0.5, {"a": 1.0, "b": 0.0, "c": -0.5}
    tokenizer = tiny_tokenizer()
    prompts = [Prompt("a b", [2, 3, 4]), Prompt("c", [2, 5])]
    sampling = Sampling(1, (1,), (0, 1, 2))
    subject = Subject(tiny_model(len(tokenizer)), tokenizer, prompts, sampling)
    rewards = Rewards(
        {"prize": Term(lambda asked, answers: [prizes[answer.strip()] for answer in answers])}
    )
    policy = subject.policy()
    before = _next_token(policy, prompts, sampling)
    reference = policy.reference_of()
    updates, batch = 60, [prompts[number % 2] for number in range(128)]
    ppo = PPO(rollouts=128, minibatch=128, micro_batch=128, epochs=4, rewards={},
              kl=KL(coefficient=beta), critic=CriticSection(clip=None))  # fmt: skip
    optimizer = torch.optim.AdamW(policy.trained_tensors().values(), weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for update in range(updates):
            optimizer.param_groups[0]["lr"] = 5e-3 * (1 - update / updates)
            rollout = collect(policy, reference, batch, rewards, tokenizer, sampling, generator,
                              128, PhaseClock("check"))  # fmt: skip
            mask = rollout.responses.mask
            penalty = beta * (rollout.log_probs - rollout.reference_log_probs)
            token_rewards = ppo_math.token_rewards(rollout.scored.total, penalty, mask)
            advantages, returns = ppo_math.generalized_advantages(
                token_rewards, rollout.values, mask, torch.zeros(128, dtype=torch.bool), 1.0, 1.0
            )
            optimize(ppo, policy, reference, optimizer, rollout, advantages, returns, sampling, 0.0)
    after = _next_token(policy, prompts, sampling)
    reward = torch.tensor([0.0, 0, 0, *prizes.values()])
    optimum = (before + reward / beta).log_softmax(-1)
    distance = (after.exp() - optimum.exp()).abs().max().item()
    return Finding("PPO reaches a bandit's known optimum ref x exp(r / beta) (in probability)",
                   distance, 0.03)  # fmt: skip


@torch.no_grad()
def _next_token(policy: Policy, prompts: list[Prompt], sampling: Sampling) -> Tensor:
    """(prompts, V) log-probabilities of the first response token."""
    ids, mask = left_pad([prompt.ids for prompt in prompts], 0)
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    logits = policy.model(ids, attention_mask=mask.long(), position_ids=positions).logits[:, -1]
    return log_distribution(logits, sampling)
