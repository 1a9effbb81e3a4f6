"""From what a rollout earned to the reward of each token, which PPO maximises."""

import torch
from torch import Tensor

from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.ppo_recipe import KL, Scores
from rl_lab.rlhf.rewards import RunningMoments
from rl_lab.rlhf.rollout import Rollout


def scores_at_end(
    rollout: Rollout, settings: Scores, moments: RunningMoments
) -> tuple[Tensor, Tensor]:
    """Turn what responses earned into the score at their end.

    Returns:
        (B,) scores, and (B,) bool: whose cut end is worth the value of the state there.
    """
    responses = rollout.responses
    scores = rollout.scored.at_end
    if settings.normalize:
        moments.add(scores)
        scores = (scores - moments.mean) / moments.std
    if settings.clip is not None:
        scores = scores.clamp(-settings.clip, settings.clip)
    scores = scores.to(responses.tokens.device)
    cut_off = ~responses.terminated
    bootstrap = cut_off & (settings.cut_off == "bootstrap")
    scores = torch.where(bootstrap, 0, scores)
    return scores - settings.missing_end_penalty * cut_off, bootstrap


def rewards_of_tokens(rollout: Rollout, scores: Tensor, kl: KL, coefficient: float) -> Tensor:
    """(B, T) what PPO maximises at each token."""
    penalty = torch.zeros_like(rollout.log_probs)
    if kl.place == "reward":
        penalty = coefficient * ppo_math.kl_estimate(
            rollout.log_probs, rollout.reference_log_probs, kl.estimator
        )
    rewards = ppo_math.token_rewards(scores, penalty, rollout.responses.mask)
    return rewards + rollout.scored.of_tokens.to(rewards.device)
