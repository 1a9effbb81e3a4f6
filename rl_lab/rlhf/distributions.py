"""Next-token distributions as they are sampled from, and what training needs to know of them.

What is optimised must be what is sampled. So the policy *is* the distribution after temperature,
banned tokens and truncation, when it is sampled and when its log-probabilities are computed again.

A whole vocabulary for each token of many responses is the largest thing in memory, and reading it
once more costs more than the sums made of it. So logits are gone through a few positions at a time,
which stay in the processor's cache, and of their distributions only sums are kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rl_lab.rlhf import ppo_math

AT_ONCE = 2**18
"""Logits gone through at once on a CPU: 1 MiB of float32, which stays in the cache of one core."""
AT_ONCE_ELSEWHERE = 2**24
"""The same on a GPU, where starting so many small steps would take longer than the sums."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn."""

    max_new_tokens: int
    """Tokens after which a response is cut off."""
    stop_ids: tuple[int, ...]
    """Tokens that end a response; the one that did belongs to it."""
    banned_ids: tuple[int, ...] = ()
    """Tokens never sampled, such as unknown and padding."""
    temperature: float = 1.0
    """Logits are divided by it; above 0."""
    top_k: int | None = None
    """Only the k likeliest tokens; None: all."""
    top_p: float | None = None
    """Only the fewest tokens that together have this probability, in (0, 1]; None: all."""

    @property
    def truncated(self) -> bool:
        """Whether some tokens are cut off the distribution, depending on the policy itself."""
        return self.top_k is not None or self.top_p is not None


def log_distribution(logits: Tensor, sampling: Sampling, allowed: Tensor | None = None) -> Tensor:
    """Normalised log-probabilities after temperature, bans and, if given, truncation.

    Args:
        logits: (..., V), of any float type.
        sampling: temperature and banned tokens are used.
        allowed: (..., V) bool, what truncation left when the response was sampled. It is passed
            in, not worked out again: a policy that has moved since would cut off other tokens.

    Returns:
        (..., V) float32; -inf where a token cannot be sampled.
    """
    logits = logits.float()
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.banned_ids:
        banned = torch.tensor(sampling.banned_ids, device=logits.device)
        logits = logits.index_fill(-1, banned, -math.inf)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -math.inf)
    return logits.log_softmax(-1)


def truncation(log_probs: Tensor, sampling: Sampling) -> Tensor:
    """Work out which tokens top-k and top-p leave; ties at the border of top-k all stay.

    Args:
        log_probs: (B, V), normalised.
        sampling: top_k and top_p are used; top-p looks at what top-k left, not renormalised.

    Returns:
        (B, V) bool, at least one True a row.
    """
    allowed = log_probs > -math.inf
    if sampling.top_k is not None and sampling.top_k < log_probs.shape[-1]:
        border = log_probs.topk(sampling.top_k, dim=-1).values[..., -1:]
        allowed &= log_probs >= border
    if sampling.top_p is not None:
        ordered, order = log_probs.exp().sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # probability of all likelier tokens
        allowed &= torch.zeros_like(allowed).scatter(-1, order, before < sampling.top_p)
    return allowed


def token_log_probs(
    logits: Tensor, tokens: Tensor, sampling: Sampling, allowed: Tensor | None = None
) -> Tensor:
    """Log-probabilities of tokens, with gradient.

    Args:
        logits: (B, T, V), of any float type.
        tokens: (B, T).
        sampling: as in `log_distribution`.
        allowed: (B, T, V), as in `log_distribution`.

    Returns:
        (B, T) float32: `log_distribution` at the tokens.
    """
    flat = None if allowed is None else allowed.flatten(0, 1)
    found: Tensor = _TokenLogProbs.apply(logits.flatten(0, 1), tokens.flatten(), sampling, flat)
    return found.view_as(tokens)


class _TokenLogProbs(torch.autograd.Function):
    """The gradient of log p[token] is 1 at the token less p: nothing but the logits is kept."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor, sampling: Sampling, allowed: Tensor | None
    ) -> Tensor:
        """(N, V) logits, (N,) tokens -> (N,) log-probabilities."""
        ctx.save_for_backward(logits, tokens, allowed)
        ctx.sampling = sampling
        log_probs = torch.empty(len(tokens), device=logits.device)
        for some in _parts(logits):
            distribution = log_distribution(logits[some], sampling, _part(allowed, some))
            log_probs[some] = _of(distribution, tokens[some])
        return log_probs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """(N,) gradient of the log-probabilities -> (N, V) of the logits."""
        logits, tokens, allowed = ctx.saved_tensors
        gradient = gradient[:, None] / ctx.sampling.temperature
        of_logits = torch.empty_like(logits)
        for some in _parts(logits):
            distribution = log_distribution(logits[some], ctx.sampling, _part(allowed, some))
            less = distribution.exp_().mul_(-gradient[some])
            of_logits[some] = less.scatter_add_(1, tokens[some, None], gradient[some])
        return of_logits, None, None, None


@dataclass
class Comparison:
    """A policy beside its reference, at T positions of each of B responses."""

    reference_log_probs: Tensor
    """(B, T), of the tokens under the reference."""
    exact_kl: Tensor
    """(B, T), policy to reference, in nats."""
    entropy: Tensor
    """(B, T), of the policy, in nats."""


@torch.no_grad()
def compare(
    logits: Tensor,
    reference_logits: Tensor,
    tokens: Tensor,
    sampling: Sampling,
    allowed: Tensor | None,
) -> Comparison:
    """Compare next-token distributions with the reference's.

    Args:
        logits: (B, T, V), the policy's.
        reference_logits: (B, T, V).
        tokens: (B, T).
        sampling: as in `log_distribution`.
        allowed: (B, T, V), of the policy alone: the reference is not cut off, so that the KL
            stays finite.
    """
    found = torch.empty(3, tokens.numel(), device=logits.device)
    policies, references = logits.flatten(0, 1), reference_logits.flatten(0, 1)
    chosen = tokens.flatten()
    flat = None if allowed is None else allowed.flatten(0, 1)
    for some in _parts(policies):
        policy = log_distribution(policies[some], sampling, _part(flat, some))
        reference = log_distribution(references[some], sampling)
        found[0, some] = _of(reference, chosen[some])
        found[1, some] = ppo_math.exact_kl(policy, reference)
        found[2, some] = ppo_math.entropy(policy)
    return Comparison(*found.view(3, *tokens.shape))


def _parts(logits: Tensor) -> Iterator[slice]:
    """Cut N rows of (N, V) logits into parts of about AT_ONCE logits, or AT_ONCE_ELSEWHERE."""
    at_once = AT_ONCE if logits.device.type == "cpu" else AT_ONCE_ELSEWHERE
    length = max(1, at_once // logits.shape[1])
    return (slice(start, start + length) for start in range(0, len(logits), length))


def _part(allowed: Tensor | None, some: slice) -> Tensor | None:
    return None if allowed is None else allowed[some]


def _of(distribution: Tensor, tokens: Tensor) -> Tensor:
    """(N, V) log-probabilities -> (N,) of the tokens."""
    return distribution.gather(1, tokens[:, None])[:, 0]
