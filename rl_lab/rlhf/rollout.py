"""A rollout: responses sampled from the policy, scored, and compared with the reference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reward_models.side_by_side import cut, side_by_side
from rl_lab.phases import PhaseClock
from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.distributions import Sampling, compare
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.not_finite import check
from rl_lab.rlhf.policy import Policy, Reference
from rl_lab.rlhf.prompts import Prompt, completion_texts
from rl_lab.rlhf.rewards import Rewards, Scored
from rl_lab.rlhf.sampling import Responses, sample


class SamplerMismatchError(RuntimeError):
    """Sampler and trainer disagree about the same policy: training would optimise another one."""


@dataclass
class Rollout:
    """B responses of T tokens, and all that is known of them before any update."""

    prompts: list[Prompt]
    completions: list[str]
    responses: Responses
    scored: Scored
    log_probs: Tensor
    """(B, T), the trainer's, of the policy that sampled."""
    reference_log_probs: Tensor
    """(B, T), under the reference."""
    exact_kl: Tensor
    """(B, T), of next-token distributions, policy to reference; 0 at padding."""
    entropy: Tensor
    """(B, T), of the policy's next-token distributions, in nats; 0 at padding."""
    values: Tensor
    """(B, T + 1), of the state before each token and after the last."""
    critic_states: Tensor | None
    """(B, T + 1, H), what the critic's head reads, where it is the same all through an update."""
    mismatch: float
    """Mean distance of the sampler's log-probabilities from the trainer's, in nats a token."""

    def states_of(self, rows: Tensor, length: int) -> Tensor | None:
        """(b, length + 1, H) of some responses' critic states, where they are known."""
        return None if self.critic_states is None else self.critic_states[rows, : length + 1]

    def on_cpu(self) -> "Rollout":
        """The same, its tensors in main memory."""
        return replace(
            self,
            responses=self.responses.on_cpu(),
            log_probs=self.log_probs.cpu(),
            reference_log_probs=self.reference_log_probs.cpu(),
            exact_kl=self.exact_kl.cpu(),
            entropy=self.entropy.cpu(),
            values=self.values.cpu(),
            critic_states=None if self.critic_states is None else self.critic_states.cpu(),
        )


@torch.no_grad()
def collect(
    policy: Policy,
    reference: Reference,
    prompts: Sequence[Prompt],
    rewards: Rewards,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    generator: torch.Generator,
    memory: Memory,
    clock: PhaseClock,
) -> Rollout:
    """Sample a response to each prompt, score it, and evaluate it under policy and reference.

    Args:
        policy: in evaluation mode (no dropout): what samples is what is evaluated.
        reference: what it is kept near.
        prompts: B.
        rewards: asked once, with all completions.
        tokenizer: the policy's.
        sampling: how responses are drawn.
        generator: on the policy's device.
        memory: how many are sampled, and how many evaluated, at once.
        clock: charged with the phases `generation` and `scoring`.

    Raises:
        SamplerMismatchError: the trainer's log-probabilities are not the sampler's.
        NotFiniteError: a score, log-probability or value is NaN or infinite.
    """
    prompt_ids = [prompt.ids for prompt in prompts]
    before = generator.get_state()

    def sampled(at_once: int) -> Responses:
        generator.set_state(before)  # a try that ran out of memory may have drawn from it
        with policy.precision():
            return sample(
                policy.model, prompt_ids, sampling, tokenizer.pad_token_id, generator, at_once
            )

    with clock.during("generation"):
        responses = memory.sampled.fit(len(prompts), sampled)
    with clock.during("scoring"):
        ids = [
            row[mask].tolist() for row, mask in zip(responses.tokens, responses.mask, strict=True)
        ]
        completions = completion_texts(prompts, ids, tokenizer)
        tokens = [tokenizer.convert_ids_to_tokens(row) for row in ids]
        scored = rewards(prompts, completions, tokens)

        shape = responses.tokens.shape
        log_probs, reference_log_probs, exact_kl, entropy = (
            torch.zeros(shape, device=responses.tokens.device) for _ in range(4)
        )
        values = torch.zeros(shape[0], shape[1] + 1, device=responses.tokens.device)

        def of_some(rows: Tensor) -> Tensor | None:
            """Fill in some rows of what is above; return the critic's states, if they stay."""
            some = responses.select(rows)
            length = some.tokens.shape[1]
            evaluated = policy(some, sampling)
            compared = compare(
                evaluated.logits, reference.logits(some), some.tokens, sampling, some.allowed
            )
            log_probs[rows, :length] = evaluated.log_probs
            for whole, part in (
                (reference_log_probs, compared.reference_log_probs),
                (exact_kl, compared.exact_kl),
                (entropy, compared.entropy),
            ):
                whole[rows, :length] = torch.where(some.mask, part, 0)
            values[rows, : length + 1] = evaluated.values
            return evaluated.critic_states.float() if policy.critic.frozen else None

        def evaluate(micro_batch: int) -> Tensor | None:
            """Fill in all; return the critic's states, if they stay the same in an update."""
            critic_states = None
            # Responses of like length share a micro-batch: less padding.
            by_length = responses.mask.sum(1).argsort(stable=True)
            parts, at_once = cut(by_length, micro_batch, policy.workers_beside(reference))
            for rows, states in zip(parts, side_by_side(of_some, parts, at_once), strict=True):
                if states is not None:
                    if critic_states is None:
                        critic_states = values.new_zeros(*values.shape, states.shape[-1])
                    critic_states[rows, : states.shape[1]] = states
            return critic_states

        critic_states = memory.micro_batch.fit(len(prompts), evaluate)
    check("log-probability", log_probs)
    check("log-probability under the reference", reference_log_probs)
    check("value", values)

    distance = (log_probs - responses.log_probs).abs()
    mismatch = ppo_math.masked_mean(distance, responses.mask).item()
    if not mismatch <= policy.tolerance:
        raise SamplerMismatchError(
            f"the trainer's log-probabilities differ from the sampler's by {mismatch:.2g} nats a "
            f"token on average (at most {policy.tolerance:g} is rounding): with this model, "
            "padding or cached attention changes what is computed, and PPO would train on wrong "
            "ratios"
        )
    return Rollout(
        list(prompts), completions, responses, scored,
        log_probs, reference_log_probs, exact_kl, entropy, values, critic_states, mismatch,
    )  # fmt: skip
