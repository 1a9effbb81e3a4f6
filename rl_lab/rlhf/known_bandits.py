"""Known answers of whole runs: bandits of three tokens, trained by `train_ppo` to their optimum."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl_lab.metrics import MetricLog
from rl_lab.rlhf.distributions import Sampling, log_distribution
from rl_lab.rlhf.known_subject import Finding, Subject
from rl_lab.rlhf.looks import Look
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.ppo_recipe import KL, PPO, Looks, TokenBias
from rl_lab.rlhf.ppo_recipe import Critic as CriticSection
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.rlhf.sampling import left_pad, positions_of
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer
from rl_lab.rlhf.train_ppo import train_ppo
from rl_lab.run import Run
from rl_lab.signals import StopRequest

PRIZES = {"a": 1.0, "b": 0.0, "c": -0.5}
"""What the one token of a response earns."""
WEIGHT = 1.0
"""Of the KL penalty or of the entropy bonus."""
UPDATES, BATCH, RATE = 60, 128, 3e-3

ALLOWED = 0.04
"""In probability: five seeds end within 0.025. With a sign turned it is 0.33 and more:
then no look is better than the first, or all probability goes to one token."""


def kl_in_the_reward() -> Finding:
    """The optimum of E[r] - beta KL(pi || ref), the KL being part of the (whitened) reward.

    It is pi*(a) ~ ref(a) exp(r(a) / beta) (Ziegler et al., 2019, section 2; Rafailov et al., 2023,
    equation 4). Whitening does not move it: advantages are all alike there.
    """
    ppo = _settings(kl=KL(coefficient=WEIGHT), whiten_advantages=True)
    return Finding(
        "a bandit with the KL in the reward ends at its optimum ref x exp(r / beta)",
        _distance(ppo, lambda start, prizes: start + prizes / WEIGHT), ALLOWED, "code",
    )  # fmt: skip


def kl_in_the_loss() -> Finding:
    """The same optimum with the exact KL as a term of the loss."""
    ppo = _settings(kl=KL(place="loss", estimator="exact", coefficient=WEIGHT))
    return Finding(
        "a bandit with the KL in the loss ends at its optimum ref x exp(r / beta)",
        _distance(ppo, lambda start, prizes: start + prizes / WEIGHT), ALLOWED, "code",
    )  # fmt: skip


def entropy_bonus() -> Finding:
    """The optimum of E[r] + c H(pi), pi*(a) ~ exp(r(a) / c) wherever training starts."""
    ppo = _settings(kl=KL(coefficient=0.0), entropy_coefficient=WEIGHT)
    return Finding(
        "a bandit with an entropy bonus ends at its optimum exp(r / c)",
        _distance(ppo, lambda start, prizes: prizes.expand_as(start) / WEIGHT), ALLOWED, "code",
    )  # fmt: skip


def token_bias_alone() -> Finding:
    """The same optimum by natural-gradient steps on single tokens, the network standing still.

    ref x exp(r / beta) differs from ref by r / beta, a bias that is the same after each prompt.
    """
    ppo = _settings(
        kl=KL(coefficient=WEIGHT), learning_rate=1e-12, token_bias=TokenBias(gae_lambda=1.0)
    )
    return Finding(
        "a bandit by token_bias alone ends at its optimum ref x exp(r / beta)",
        _distance(ppo, lambda start, prizes: start + prizes / WEIGHT), ALLOWED, "code",
    )  # fmt: skip


def _settings(**changes: Any) -> PPO:
    settings: dict[str, Any] = {
        "updates": UPDATES, "rollouts": BATCH, "minibatch": BATCH, "micro_batch": BATCH,
        "epochs": 4, "learning_rate": RATE, "gae_lambda": 1.0, "precision": "float32",
        # Where advantages stand beside a KL or entropy in the loss, whitening would change the
        # balance.
        "whiten_advantages": False, "critic": CriticSection(clip=None, learning_rate=RATE),
        "looks": Looks(every=UPDATES), "checkpoint_every": UPDATES,
    }  # fmt: skip
    return PPO(**(settings | changes))


def _distance(ppo: PPO, optimum: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Train; return how far from the optimum the first token's probabilities end.

    Args:
        ppo: how.
        optimum: (prompts, arms) log-probabilities at the start, (arms,) prizes -> the optimum's,
            up to a constant.
    """
    tokenizer = tiny_tokenizer()
    arms = tokenizer.convert_tokens_to_ids(list(PRIZES))
    prompts = [Prompt("a b", [2, 3, 4]), Prompt("c", [2, 5])]
    sampling = Sampling(1, (1,), (0, 1, 2))
    subject = Subject(tiny_model(len(tokenizer)), tokenizer, prompts, sampling)
    rewards = Rewards({"prize": Term(lambda _, texts: [PRIZES[text.strip()] for text in texts])})
    policy = subject.policy()

    @torch.no_grad()
    def first_token() -> Tensor:
        """(prompts, arms) log-probabilities."""
        ids, mask = left_pad([prompt.ids for prompt in prompts], 0)
        output = policy.model(ids, attention_mask=mask.long(), position_ids=positions_of(mask))
        return log_distribution(output.logits[:, -1], sampling)[:, arms]

    start = first_token()
    with tempfile.TemporaryDirectory() as directory, torch.random.fork_rng():
        run = Run(Path(directory))
        look = Look(prompts * BATCH, rewards, {}, tokenizer, sampling, run.path / "samples.jsonl",
                    Memory(BATCH), seed=1)  # fmt: skip
        with MetricLog(run.metrics_file) as log:
            train_ppo(ppo, policy, prompts, rewards, tokenizer, sampling, look,
                      Snapshots(run, log, "update"), None, StopRequest(), seed=0)  # fmt: skip
    known = optimum(start, torch.tensor(list(PRIZES.values()))).softmax(-1)
    return (first_token().exp() - known).abs().max().item()
