"""What checks with known answers are made on, and how they come out."""

import copy
import itertools
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rl_lab.phases import PhaseClock
from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.policy import Critic, Policy, Reference
from rl_lab.rlhf.ppo_recipe import KL, PPO, Lora, Scores
from rl_lab.rlhf.ppo_recipe import Critic as CriticSection
from rl_lab.rlhf.ppo_rewards import rewards_of_tokens, scores_at_end
from rl_lab.rlhf.ppo_stage import with_adapters
from rl_lab.rlhf.ppo_update import optimize
from rl_lab.rlhf.prompts import Prompt, tokenize_prompt
from rl_lab.rlhf.rewards import Rewards, RunningMoments, Term
from rl_lab.rlhf.rollout import Rollout, collect
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer


@dataclass(frozen=True)
class Finding:
    """One check and how it came out."""

    claim: str
    measured: float
    """Distance from the known answer."""
    allowed: float
    """Largest distance that is rounding or sampling error."""
    about: Literal["model", "code"] = "model"
    """What it was measured on: the model that is checked, or numbers and models of the check's own,
    whatever the model."""

    @property
    def right(self) -> bool:
        """Whether it holds; NaN is never right."""
        return self.measured <= self.allowed


@dataclass
class Lesson:
    """A rollout and what it teaches."""

    rollout: Rollout
    advantages: Tensor
    """(B, T)."""
    returns: Tensor
    """(B, T)."""

    def select(self, rows: Tensor) -> "Lesson":
        """Some of the responses, in that order, without the padding that all of these have."""
        rollout = self.rollout
        responses = rollout.responses.select(rows)
        steps = responses.mask.shape[1]
        return Lesson(
            replace(
                rollout,
                responses=responses,
                log_probs=rollout.log_probs[rows, :steps],
                reference_log_probs=rollout.reference_log_probs[rows, :steps],
                values=rollout.values[rows, : steps + 1],
            ),
            self.advantages[rows, :steps],
            self.returns[rows, :steps],
        )

    def padded(self, left: int, right: int, pad_id: int) -> "Lesson":
        """The same responses among more padding."""

        def wider(rows: Tensor, before: int, after: int, value: float = 0) -> Tensor:
            return torch.nn.functional.pad(rows, (before, after), value=value)

        rollout, responses = self.rollout, self.rollout.responses
        responses = replace(
            responses,
            prompts=wider(responses.prompts, left, 0, pad_id),
            prompt_mask=wider(responses.prompt_mask, left, 0),
            tokens=wider(responses.tokens, 0, right, pad_id),
            mask=wider(responses.mask, 0, right),
            log_probs=wider(responses.log_probs, 0, right),
        )
        return Lesson(
            replace(
                rollout,
                responses=responses,
                log_probs=wider(rollout.log_probs, 0, right),
                reference_log_probs=wider(rollout.reference_log_probs, 0, right),
                values=wider(rollout.values, 0, right),
            ),
            wider(self.advantages, 0, right),
            wider(self.returns, 0, right),
        )


def by_length() -> Rewards:
    """What responses earn unless a check says otherwise."""
    return Rewards({"length": Term(lambda prompts, texts: [len(text) / 10 for text in texts])})


@dataclass
class Subject:
    """The model the checks are made on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[Prompt]
    """Of different lengths."""
    sampling: Sampling
    rewards: Rewards = field(default_factory=by_length)

    @property
    def ppo(self) -> PPO:
        """Every term a loss can have, in two epochs of one minibatch; gradients as they are.

        In the second epoch the policy has moved, so that ratios are not 1 and clipping acts.
        """
        size = len(self.prompts)
        return PPO(
            rollouts=size, minibatch=size, micro_batch=size, epochs=2, clip=0.02, clip_high=0.03,
            entropy_coefficient=1.0, kl=KL(place="loss", estimator="exact", coefficient=2.0),
            critic=CriticSection(coefficient=0.5, clip=0.01), scores=Scores(normalize=True),
            max_grad_norm=1e9,
        )  # fmt: skip

    def policy(self, lora: bool = False) -> Policy:
        """A policy on a copy of the model, with a critic that is the same each time, in float32.

        Args:
            lora: whether adapters are trained instead of the model's own weights.
        """
        model = copy.deepcopy(self.model).requires_grad_(True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            critic = Critic(self.model.config.get_text_config().hidden_size)
            if lora:
                model = with_adapters(model, Lora())
        return Policy(model, critic.to(model.device), torch.float32).eval()

    @torch.no_grad()
    def policy_and_reference(self) -> tuple[Policy, Reference]:
        """A policy that is away from its reference, as in the middle of training."""
        policy = self.policy()
        reference = policy.reference_of()
        head = policy.model.get_output_embeddings().weight
        noise = torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
        head.add_(NOISE * head.std() * noise.to(head.device))
        return policy, reference

    def rollout(self, policy: Policy, reference: Reference, seed: int = 0) -> Rollout:
        """A scored response to each prompt."""
        generator = torch.Generator(policy.device)
        generator.manual_seed(seed)
        return collect(
            policy, reference, self.prompts, self.rewards, self.tokenizer,
            self.sampling, generator, Memory(len(self.prompts)), PhaseClock("check"),
        )  # fmt: skip

    def lesson(self, policy: Policy, reference: Reference, seed: int = 0) -> Lesson:
        """A rollout, its rewards and its advantages, as in `train_ppo`."""
        ppo = self.ppo
        rollout = self.rollout(policy, reference, seed)
        mask = rollout.responses.mask
        scores, bootstrap = scores_at_end(rollout, ppo.scores, RunningMoments())
        rewards = rewards_of_tokens(rollout, scores, ppo.kl, ppo.kl.coefficient)
        advantages, returns = ppo_math.generalized_advantages(
            rewards, rollout.values, mask, bootstrap, ppo.gamma, ppo.gae_lambda
        )
        return Lesson(rollout, ppo_math.masked_whiten(advantages, mask), returns)

    def learn(
        self, policy: Policy, reference: Reference, lesson: Lesson, micro_batch: int | None = None
    ) -> dict[str, float]:
        """Learn from a lesson by `optimize`, with plain gradient descent.

        The first step moves the policy as far as should change the loss by STEP. The second leaves
        its gradient with the parameters and moves nothing.

        Args:
            policy: changed in place.
            reference: what it is kept near.
            lesson: of this policy.
            micro_batch: responses at once; None: all.

        Returns:
            As `optimize`.
        """
        parameters = list(policy.trained_tensors().values())
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        steps = itertools.count()

        def set_rate(*_: object) -> None:
            squares = sum(p.grad.square().sum().item() for p in parameters if p.grad is not None)
            optimizer.param_groups[0]["lr"] = STEP / squares if next(steps) == 0 else 0.0

        optimizer.register_step_pre_hook(set_rate)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return optimize(
                self.ppo, policy, reference, optimizer, lesson.rollout, lesson.advantages,
                lesson.returns, self.sampling, self.ppo.kl.coefficient,
                Memory(micro_batch or len(self.prompts)),
            )  # fmt: skip


NOISE = 0.3
"""What is added to the output layer's weights, in their standard deviations."""
STEP = 0.05
"""What a check's step of gradient descent should take off the loss: enough for ratios that are cut
off, and little enough for any model to stay what it is."""


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
