"""What checks with known answers are made on, and how they come out."""

import copy
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rl_lab.phases import PhaseClock
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.policy import Critic, Policy
from rl_lab.rlhf.prompts import Prompt, tokenize_prompt
from rl_lab.rlhf.rewards import Rewards, Term
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
            generator, Memory(len(self.prompts)), PhaseClock("check"),
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
