"""The maths of PPO for language models: pure functions of tensors.

Shapes: B responses of at most T tokens. Masks are boolean and True at real response tokens, the
first end token included; what lies under a False is never used. Nothing is averaged over a
micro-batch: losses are sums over tokens divided by a number the caller gives, so that cutting a
minibatch into micro-batches changes nothing.

Sources: PPO (Schulman et al., 2017), GAE (Schulman et al., 2016), RLHF's per-token KL reward
(Ziegler et al., 2019; Stiennon et al., 2020), KL estimators (Schulman, "Approximating KL
divergence", 2020), dual clip (Ye et al., 2020), asymmetric clip (DAPO; Yu et al., 2025).
"""

import math

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values under True, every token weighing the same; 0 if there are none.

    Args:
        values: any shape.
        mask: bool, same shape.

    Returns:
        A scalar.
    """
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale the values under True to mean 0 and variance 1; 0 elsewhere.

    Args:
        values: any shape.
        mask: bool, same shape.
        epsilon: added to the variance, so that equal values become 0.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return torch.where(mask, (values - mean) * torch.rsqrt(variance + epsilon), 0)


# --- KL ------------------------------------------------------------------------------------------


LEAST = -200.0
"""exp of less than this is 0 in float32: what stands in for -inf where it is multiplied by 0."""


def kl_estimate(log_probs: Tensor, reference: Tensor, estimator: str) -> Tensor:
    """Estimate KL(policy || reference) at each sampled token.

    With d = log policy - log reference at a token sampled from the policy:

    - k1 = d: unbiased, can be negative. As a reward its policy gradient is that of the KL; as a
      loss its expected gradient is zero.
    - k2 = d^2 / 2: biased value; as a loss its expected gradient is that of the KL.
    - k3 = exp(-d) - 1 + d: unbiased, never negative; its gradient is that of the forward KL.

    Args:
        log_probs: (B, T), log-probabilities of the sampled tokens under the policy.
        reference: (B, T), the same under the reference.
        estimator: `k1`, `k2` or `k3`.

    Returns:
        (B, T), in nats.
    """
    difference = log_probs - reference
    match estimator:
        case "k1":
            return difference
        case "k2":
            return difference**2 / 2
        case "k3":
            return torch.expm1(-difference) + difference
    raise ValueError(f"unknown KL estimator {estimator!r}")


def exact_kl(log_probs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) of whole next-token distributions.

    Args:
        log_probs: (..., V), normalised log-probabilities; tokens that cannot be sampled are -inf.
        reference: (..., V), the same of the reference; finite wherever the policy's are.

    Returns:
        (...), in nats, at least 0 up to rounding. Summed along responses sampled from the policy
        its mean is the KL between the distributions over responses, with less variance than k1.
    """
    # 0 log 0 is 0: a bound far below any log-probability that float32 tells from impossible.
    difference = log_probs.clamp(min=LEAST) - reference.clamp(min=LEAST)
    return (log_probs.exp() * difference).sum(-1)


# --- rewards and advantages ----------------------------------------------------------------------


def end_of(mask: Tensor) -> Tensor:
    """Mark each response's last real token.

    Args:
        mask: (B, T), True from the first token up to the last real one.

    Returns:
        (B, T) bool, one True a row; none in a row without tokens.
    """
    follows = torch.zeros_like(mask)
    follows[:, :-1] = mask[:, 1:]
    return mask & ~follows


def token_rewards(scores: Tensor, penalty: Tensor, mask: Tensor) -> Tensor:
    """What PPO maximises at each token: the score at the last real one, minus the KL penalty.

    Args:
        scores: (B,), one score a response.
        penalty: (B, T), coefficient times KL at each token.
        mask: (B, T).

    Returns:
        (B, T), 0 outside the mask.
    """
    return torch.where(end_of(mask), scores[:, None], 0) - torch.where(mask, penalty, 0)


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., 2016, equations 11 to 16).

    delta_t = r_t + gamma * V(s_{t+1}) - V(s_t);  A_t = sum_k (gamma * lambda)^k * delta_{t+k}

    Args:
        rewards: (B, T).
        values: (B, T + 1), value of the state before each token, and after the last one.
        mask: (B, T).
        bootstrap: (B,) bool: the response was cut off, and what would have followed its last
            real token is worth V of the state there; where False, it is worth 0.
        gamma: discount of a token, in [0, 1].
        gae_lambda: in [0, 1]; 1 is the return minus the value.

    Returns:
        Advantages and returns (advantage + value), each (B, T), 0 outside the mask.
    """
    ends = end_of(mask)
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        worth = torch.where(ends[:, t] & ~bootstrap, 0, values[:, t + 1])
        delta = rewards[:, t] + gamma * worth - values[:, t]
        following = torch.where(ends[:, t], 0, following)
        following = torch.where(mask[:, t], delta + gamma * gae_lambda * following, 0)
        advantages[:, t] = following
    return advantages, torch.where(mask, advantages + values[:, :-1], 0)


# --- losses --------------------------------------------------------------------------------------

LARGEST_LOG_RATIO = 20.0
"""exp of more than this overflows what float32 can usefully hold; a gradient is 0 beyond it."""


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    tokens: int,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate, negated (Schulman et al., 2017, equation 7).

    Args:
        log_probs: (B, T), with gradient.
        old_log_probs: (B, T), of the policy that sampled.
        advantages: (B, T).
        mask: (B, T).
        tokens: real tokens of the whole minibatch.
        clip_low: the ratio is clipped below at 1 - clip_low, in [0, 1].
        clip_high: and above at 1 + clip_high.
        dual_clip: where the advantage is negative the objective is not below this, above 1, times
            it (Ye et al., 2020, equation 5); None: no such bound.

    Returns:
        The loss, a scalar, and (B, T) bool: where clipping took the gradient away.
    """
    ratio = (log_probs - old_log_probs).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    objective = torch.minimum(unclipped, clipped)
    acted = clipped < unclipped
    if dual_clip is not None:
        bound = dual_clip * advantages
        bounded = (advantages < 0) & (bound > objective)
        objective = torch.where(bounded, bound, objective)
        acted = acted | bounded
    return -torch.where(mask, objective, 0).sum() / tokens, acted & mask


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    tokens: int,
    clip: float | None = None,
) -> Tensor:
    """Half the squared error of the value function; clipped as in OpenAI's baselines.

    Args:
        values: (B, T), with gradient.
        old_values: (B, T), when the responses were sampled.
        returns: (B, T).
        mask: (B, T).
        tokens: real tokens of the whole minibatch.
        clip: how far a value may usefully move from the old one; None: any distance.
    """
    error = (values - returns) ** 2
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns) ** 2)
    return 0.5 * torch.where(mask, error, 0).sum() / tokens


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of next-token distributions.

    Args:
        log_probs: (..., V), normalised; tokens that cannot be sampled are -inf.

    Returns:
        (...), in nats.
    """
    return -(log_probs.exp() * log_probs.clamp(min=LEAST)).sum(-1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var[returns - values] / Var[returns]: 1 perfect, 0 no better than a constant.

    Args:
        values: (B, T).
        returns: (B, T).
        mask: (B, T).

    Returns:
        A scalar; NaN where the returns do not vary.
    """

    def variance(numbers: Tensor) -> Tensor:
        return masked_mean((numbers - masked_mean(numbers, mask)) ** 2, mask)

    spread = variance(returns)
    return torch.where(spread > 0, 1 - variance(returns - values) / spread, math.nan)


# --- the coefficient -----------------------------------------------------------------------------


def adapted_coefficient(coefficient: float, kl: float, target: float, rate: float) -> float:
    """Raise the KL coefficient where KL is above its target, lower it where below.

    Ziegler et al. (2019), section 2.2: the error is clipped, so one update changes the coefficient
    by at most a fifth of `rate`.

    Args:
        coefficient: the one in use, above 0.
        kl: measured, in nats a response.
        target: wanted, in nats a response, above 0.
        rate: how fast to follow, above 0 (Ziegler et al.: rollouts of an update / 10,000).
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + rate * error)
