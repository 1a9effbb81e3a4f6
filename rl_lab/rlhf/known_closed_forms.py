"""Known answers of rewards and advantages: closed forms, and numbers worked out by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.known_subject import Finding, Subject, tiny_subject
from rl_lab.rlhf.ppo_recipe import KL, Scores
from rl_lab.rlhf.ppo_rewards import rewards_of_tokens, scores_at_end
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.rewards import Rewards, RunningMoments, Term
from rl_lab.rlhf.rollout import Rollout
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
    return Finding("advantages (GAE) are those of the closed form", furthest, 1e-12, "code")


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
        rollout = _rollout(
            list(range(1, len(ids) + 1)),
            Subject(tiny_model(len(tokenizer)), tokenizer, [Prompt("", row) for row in ids],
                    Sampling(8, stops, (begin,))),
        )  # fmt: skip
        responses = rollout.responses
        scores, _ = scores_at_end(rollout, Scores(), RunningMoments())
        rewards = rewards_of_tokens(rollout, scores, KL(), 0.1)  # no KL yet: both models are one
        wrong = 0
        for row in range(len(responses)):
            tokens = responses.tokens[row].tolist()
            ends = [place for place, token in enumerate(tokens) if token in stops]
            last = ends[0] if ends else len(tokens) - 1
            wrong += int(rewards[row].nonzero().flatten().tolist() != [last])
            wrong += int(responses.terminated[row].item() != bool(ends))
        yield Finding(f"the score is on the last real token ({name})", wrong, 0, "code")


def scores_by_hand() -> Iterator[Finding]:
    """From what four responses earned to their scores, worked out by hand."""
    # 10 +- 1 and 10 +- 7: mean 10, standard deviation sqrt((1 + 1 + 49 + 49) / 4) = 5.
    earned = [3.0, 9.0, 11.0, 17.0]
    # 34 +- 1 and 34 +- 7: of all eight the mean is 22, the variance 25 + 12^2 = 13^2.
    later = [27.0, 33.0, 35.0, 41.0]
    normalised = [-1.4, -0.2, 0.2, 1.4]
    running = [5 / 13, 11 / 13, 1.0, 19 / 13]
    moments = RunningMoments()
    found = [
        _scores(numbers, Scores(normalize=True), moments)[0].tolist() for numbers in (earned, later)
    ]
    yield _by_hand("normalised scores", [*found[0], *found[1]], [*normalised, *running])

    clipped, _ = _scores(earned, Scores(normalize=True, clip=1.0))
    yield _by_hand("clipped scores", clipped.tolist(), [-1.0, -0.2, 0.2, 1.0])

    # The second and the fourth response were cut off.
    penalised, _ = _scores(earned, Scores(clip=10.0, missing_end_penalty=0.5))
    yield _by_hand("scores with a penalty for a missing end", penalised.tolist(), [3, 8.5, 10, 9.5])

    ended, bootstrap = _scores(earned, Scores(cut_off="bootstrap"))
    yield _by_hand(
        "scores and ends where a cut is worth the value after it",
        [*ended.tolist(), *bootstrap.tolist()], [3, 0, 11, 0, False, True, False, True],
    )  # fmt: skip


def penalty_by_hand() -> Finding:
    """The KL penalty at each of three tokens, and the score at the last."""
    subject = replace(tiny_subject(), sampling=Sampling(3, (), (0, 2)))
    rollout = _rollout([1.0] * 4, subject)
    log_probs = torch.tensor([-1.0, -2.0, -0.5]).expand(4, -1)
    of_reference = torch.tensor([-1.5, -1.0, -0.25]).expand(4, -1)
    rollout = replace(rollout, log_probs=log_probs, reference_log_probs=of_reference)
    rewards = rewards_of_tokens(rollout, rollout.scored.at_end, KL(), 0.2)
    return _by_hand("rewards of tokens, score less KL", rewards[0].tolist(), [-0.1, 0.2, 1.05])


def whitening_by_hand() -> Finding:
    """The numbers of `scores_by_hand`, as advantages, beside one at padding."""
    numbers = torch.tensor([[3.0, 9.0, 11.0], [17.0, 1000.0, 1000.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    whitened = ppo_math.masked_whiten(numbers, mask)
    return _by_hand(
        "whitened advantages", whitened.flatten().tolist(), [-1.4, -0.2, 0.2, 1.4, 0, 0]
    )


def _rollout(earned: Sequence[float], subject: Subject) -> Rollout:
    """Responses of a subject's model that earned what they are given."""
    subject = replace(subject, rewards=Rewards({"given": Term(lambda prompts, texts: earned)}))
    policy = subject.policy()
    return subject.rollout(policy, policy.reference_of())


def _scores(
    earned: Sequence[float], settings: Scores, moments: RunningMoments | None = None
) -> tuple[Tensor, Tensor]:
    """`scores_at_end` of four responses, of which the second and the fourth were cut off."""
    rollout = _rollout(earned, tiny_subject())
    terminated = torch.tensor([True, False, True, False])
    rollout = replace(rollout, responses=replace(rollout.responses, terminated=terminated))
    return scores_at_end(rollout, settings, moments or RunningMoments())


def _by_hand(what: str, found: Sequence[float], known: Sequence[float]) -> Finding:
    furthest = max(abs(one - other) for one, other in zip(found, known, strict=True))
    return Finding(f"{what} are those worked out by hand", furthest, 1e-6, "code")
