"""Known answers that need no model of the user's: closed forms, slopes, a bandit."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from rl_lab.phases import PhaseClock
from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.distributions import Sampling, log_distribution
from rl_lab.rlhf.known_subject import Finding, Subject
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.policy import Policy
from rl_lab.rlhf.ppo_recipe import KL, PPO
from rl_lab.rlhf.ppo_recipe import Critic as CriticSection
from rl_lab.rlhf.ppo_update import optimize
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.rlhf.rollout import collect
from rl_lab.rlhf.sampling import left_pad, positions_of
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer


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
        begin = int(tokenizer.bos_token_id)
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
    ppo = PPO(rollouts=128, minibatch=128, micro_batch=128, epochs=4,
              kl=KL(coefficient=beta), critic=CriticSection(clip=None))  # fmt: skip
    optimizer = torch.optim.AdamW(policy.trained_tensors().values(), weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    memory = Memory(128)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for update in range(updates):
            optimizer.param_groups[0]["lr"] = 5e-3 * (1 - update / updates)
            rollout = collect(policy, reference, batch, rewards, tokenizer, sampling, generator,
                              memory, PhaseClock("check"))  # fmt: skip
            mask = rollout.responses.mask
            penalty = beta * (rollout.log_probs - rollout.reference_log_probs)
            token_rewards = ppo_math.token_rewards(rollout.scored.total, penalty, mask)
            advantages, returns = ppo_math.generalized_advantages(
                token_rewards, rollout.values, mask, torch.zeros(128, dtype=torch.bool), 1.0, 1.0
            )
            optimize(ppo, policy, reference, optimizer, rollout, advantages, returns, sampling, 0.0,
                     memory)  # fmt: skip
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
    logits = policy.model(ids, attention_mask=mask.long(), position_ids=positions_of(mask)).logits[
        :, -1
    ]
    return log_distribution(logits, sampling)
