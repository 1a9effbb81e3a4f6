"""One PPO update: epochs of minibatches over a rollout, each minibatch one optimiser step."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from reward_models.side_by_side import cut, side_by_side
from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.distributions import Sampling, log_distribution
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.not_finite import NotFiniteError
from rl_lab.rlhf.policy import Evaluated, Policy, Reference
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.rollout import Rollout, SamplerMismatchError
from rl_lab.rlhf.sampling import Responses

Gradients = Sequence[Tensor | None]
"""Of each trained parameter."""
Sums = dict[str, float]
"""Numbers summed over tokens, by name."""
MixLoss = Callable[[Policy, int], Tensor]
"""(policy, number of the optimiser step within the update) -> language-modelling loss."""


def optimize(  # noqa: PLR0915 -- an update reads top to bottom
    ppo: PPO,
    policy: Policy,
    reference: Reference,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    sampling: Sampling,
    kl_coefficient: float,
    memory: Memory,
    critic_only: bool = False,
    mix_loss: MixLoss | None = None,
    skip: Callable[[NotFiniteError, str], None] | None = None,
) -> dict[str, float]:
    """Learn from a rollout; the order of its rows follows from torch's global generator.

    Args:
        ppo: epochs, minibatch, clipping, coefficients.
        policy: changed in place.
        reference: asked where the exact KL is in the loss.
        optimizer: of the policy's trained parameters.
        rollout: B responses of T tokens.
        advantages: (B, T).
        returns: (B, T).
        sampling: how the responses were drawn.
        kl_coefficient: of the KL in the loss.
        memory: how large a micro-batch fits. One that does not costs the minibatch's start alone:
            its sums are over tokens and divided by the minibatch's, whatever the micro-batch.
        critic_only: leave everything but the critic as it is (critic warm-up).
        mix_loss: language modelling beside PPO; None: none.
        skip: told why an optimiser step is left out, and which; None: none is.

    Returns:
        Losses and diagnostics, averaged over the tokens learned from.

    Raises:
        SamplerMismatchError: before the first step a ratio is not 1.
        NotFiniteError: a loss or gradient is NaN or infinite; the step was not made.
        UserError: memory does not suffice for one response.
    """
    responses, trained = rollout.responses, list(policy.trained_tensors().values())
    asks_reference = ppo.kl.place == "loss" and ppo.kl.estimator == "exact"
    workers = policy.workers_beside(reference if asks_reference else None)
    policy.critic.learns_trunk = not (critic_only or ppo.critic.head_only)

    def of_some(number: int, tokens: int, alone: bool, part: Tensor) -> tuple[Gradients, Sums]:
        """Some rows' share of the gradient of a minibatch of so many tokens, and their sums."""
        some = responses.select(part)
        mask, length = some.mask, some.tokens.shape[1]
        old = rollout.log_probs[part, :length]
        evaluated = policy(some, sampling, rollout.states_of(part, length))

        loss_policy, clipped = ppo_math.policy_loss(
            evaluated.log_probs, old, advantages[part, :length], mask, tokens,
            ppo.clip, ppo.clip_high or ppo.clip, ppo.dual_clip,
        )  # fmt: skip
        loss_value = ppo_math.value_loss(
            evaluated.values[:, :-1], rollout.values[part, :length],
            returns[part, :length], mask, tokens, ppo.critic.clip,
        )  # fmt: skip
        loss = ppo.critic.coefficient * loss_value
        if not critic_only:
            loss = loss + loss_policy
            if ppo.entropy_coefficient > 0:
                distribution = log_distribution(evaluated.logits, sampling, some.allowed)
                entropies = ppo_math.entropy(distribution)
                entropy = torch.where(mask, entropies, 0).sum() / tokens
                loss = loss - ppo.entropy_coefficient * entropy
            if ppo.kl.place == "loss":
                of_reference = rollout.reference_log_probs[part, :length]
                kl = _kl_for_loss(ppo.kl.estimator, evaluated, of_reference, some, reference,
                                  sampling)  # fmt: skip
                loss = loss + kl_coefficient * torch.where(mask, kl, 0).sum() / tokens
        _check(loss, "loss")
        gradients: Gradients = ()
        if alone:
            loss.backward()  # adds it at once, where another would be in the way
        else:
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)

        with torch.no_grad():
            if number == 0:
                _assert_first_ratio(evaluated.log_probs, old, mask, policy.tolerance)
            k3 = ppo_math.kl_estimate(old, evaluated.log_probs, "k3")
            return gradients, {
                "train/approx_kl": torch.where(mask, k3, 0).sum().item(),
                "train/policy_loss": loss_policy.item() * tokens,
                "train/value_loss": loss_value.item() * tokens,
                "train/clip_fraction": clipped.sum().item(),
            }

    def gradient(rows: Tensor, number: int, before: Sums, micro_batch: int) -> tuple[float, Sums]:
        """Make the gradient of a minibatch anew; return its drift, and all sums over tokens."""
        sums = defaultdict(float, before)
        drift = 0.0
        tokens = int(responses.mask[rows].sum())
        optimizer.zero_grad()
        # Responses of like length share a micro-batch: less padding, the same sums.
        by_length = rows[responses.mask[rows].sum(1).argsort(stable=True)]
        parts, at_once = cut(by_length, micro_batch, workers)
        of_these = partial(of_some, number, tokens, at_once == 1)
        for gradients, of_part in side_by_side(of_these, parts, at_once):
            if gradients:
                add_gradients(gradients, trained)
            del gradients  # or they would stand beside the next
            drift += of_part["train/approx_kl"] / tokens
            for name, value in of_part.items():
                sums[name] += value
        if mix_loss is not None and not critic_only:
            mix = mix_loss(policy, number)
            _check(mix, "loss of pretraining_mix")
            mix.backward()
            sums["train/mix_loss"] += mix.item() * tokens
        return drift, sums

    sums: Sums = {}
    steps, tokens_seen = 0, 0
    batches = minibatches(len(responses), ppo.minibatch, ppo.epochs, responses.tokens.device)
    for number, rows in enumerate(batches):
        try:
            drift, with_these = memory.micro_batch.fit(
                len(rows), partial(gradient, rows, number, sums)
            )
            norm = torch.nn.utils.clip_grad_norm_(trained, ppo.max_grad_norm)
            if not norm.isfinite():
                raise _not_finite("gradient")
        except NotFiniteError as error:
            if skip is None:
                raise
            skip(error, f"optimiser step {number + 1} of the update is left out")
            continue
        optimizer.step()
        steps += 1
        tokens = int(responses.mask[rows].sum())
        tokens_seen += tokens
        sums = with_these
        sums["train/grad_norm"] += norm.item() * tokens
        if ppo.kl.stop_update is not None and drift > ppo.kl.stop_update:
            break
    sums = {name: value / tokens_seen for name, value in sums.items()}
    return sums | {"train/optimizer_steps": steps}


def _check(loss: Tensor, source: str) -> None:
    if not loss.isfinite():
        raise _not_finite(source)


def add_gradients(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> None:
    """Add to the parameters' gradients, as `backward` does."""
    taken = set()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            parameter.grad += gradient
        elif gradient.is_contiguous() and gradient.data_ptr() not in taken:
            parameter.grad = gradient
            taken.add(gradient.data_ptr())
        else:  # autograd may give two parameters of a sum one and the same tensor
            parameter.grad = gradient.clone(memory_format=torch.contiguous_format)


def _not_finite(source: str) -> NotFiniteError:
    return NotFiniteError(source, f"the {source} is NaN or infinite; the step was not made")


def minibatches(count: int, size: int, epochs: int, device: torch.device) -> Iterator[Tensor]:
    """Yield (size,) row indices: every row once an epoch, in a new order each."""
    for _ in range(epochs):
        yield from torch.randperm(count).to(device).split(size)


def _kl_for_loss(
    estimator: str,
    evaluated: Evaluated,
    reference_log_probs: Tensor,
    responses: Responses,
    reference: Reference,
    sampling: Sampling,
) -> Tensor:
    """(B, T) KL to the reference, with gradient."""
    if estimator == "exact":
        distribution = log_distribution(evaluated.logits, sampling, responses.allowed)
        of_reference = log_distribution(reference.logits(responses), sampling)
        return ppo_math.exact_kl(distribution, of_reference)
    return ppo_math.kl_estimate(evaluated.log_probs, reference_log_probs, estimator)


def _assert_first_ratio(log_probs: Tensor, old: Tensor, mask: Tensor, tolerance: float) -> None:
    """Before the first step the policy is the one that sampled: every ratio is 1."""
    distance = ppo_math.masked_mean((log_probs - old).abs(), mask).item()
    if not distance <= tolerance:
        raise SamplerMismatchError(
            f"before the first step of an update the policy's ratio to itself is off by "
            f"{distance:.2g} nats a token on average (at most {tolerance:g} is rounding)"
        )
