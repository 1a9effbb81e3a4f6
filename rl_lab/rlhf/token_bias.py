"""A natural-gradient step on how likely each token is, wherever it stands.

The gradient of a bias on tokens is the sum of the advantages with which each was chosen. Plain
gradient steps, and Adam's, hardly move rare tokens by it, for they are seldom chosen, though they
say most of what is praised ("riveting", "listless"). The natural gradient (Kakade, 2001, "A Natural
Policy Gradient") divides by the Fisher information, which is nearly diagonal here: by how often a
token is chosen. What is left is its mean advantage.

Where the KL penalty is part of the reward, the best bias is the one at which mean advantages are 0,
and from any other it is about mean advantage / coefficient away: pi*(a) ~ ref(a) exp(A(a) / beta).

Few models have such a bias; but what their output layer reads has a direction along which all
states are about as long, and moving a token's row along it is one. For that the layer must not also
be the embedding of what is read.
"""

from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rl_lab.errors import UserError
from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.not_finite import NotFiniteError
from rl_lab.rlhf.policy import Policy
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.rollout import Rollout
from rl_lab.rlhf.sampling import Responses

ROWS = 128
"""Responses whose states tell the direction that they share."""
RIDGE = 0.1
"""Of its least squares, in mean squared coordinates of a state."""
MOST = 1.0
"""Nats that a token may move in an update: one seen once may seem to be worth anything."""


def own_output_layer(model: PreTrainedModel) -> None:
    """Give a model an output layer of its own, as it is, where it was the embedding.

    Raises:
        UserError: its logits are not those of a linear output layer.
    """
    head = model.get_output_embeddings()
    said: list[Tensor] = []
    if isinstance(head, nn.Linear):
        hook = head.register_forward_hook(lambda _, states, logits: said.append(logits))
        with torch.no_grad():
            logits = model(torch.zeros(1, 1, dtype=torch.long, device=model.device)).logits
        hook.remove()
        if said and torch.allclose(said[-1], logits, atol=1e-4):
            if head.weight is model.get_input_embeddings().weight:
                head.weight = nn.Parameter(head.weight.detach().clone())
            model.config.tie_word_embeddings = False
            model.config.get_text_config().tie_word_embeddings = False
            return
    raise UserError(
        f"ppo.token_bias: the logits of a {model.config.model_type} are not what a linear output "
        "layer gives (some models scale or cap them); leave token_bias out"
    )


@torch.no_grad()
def step(
    ppo: PPO,
    policy: Policy,
    rollout: Rollout,
    rewards: Tensor,
    bootstrap: Tensor,
    reach: float,
    temperature: float,
    memory: Memory,
) -> dict[str, float]:
    """Move the output row of each token that was chosen by its mean advantage.

    Args:
        ppo: the hyperparameters, `token_bias` among them.
        policy: changed in place.
        rollout: B responses of T tokens, sampled before this update.
        rewards: (B, T), the KL penalty included.
        bootstrap: (B,) bool, as `ppo_math.generalized_advantages` takes it.
        reach: nats for each unit of mean advantage: how far to go, divided by the KL coefficient.
        temperature: of sampling.
        memory: how many responses are computed at once.

    Returns:
        `train/token_bias`: the mean size of a chosen token's move, in nats.

    Raises:
        NotFiniteError: what the output layer reads is NaN or infinite; nothing was changed.
    """
    assert ppo.token_bias is not None
    responses = rollout.responses
    weight = policy.model.get_output_embeddings().weight
    advantages, _ = ppo_math.generalized_advantages(
        rewards, rollout.values, responses.mask, bootstrap, ppo.gamma, ppo.token_bias.gae_lambda
    )
    # In main memory: on a GPU the order of a sum, and with it the bits, would be left to chance.
    chosen = responses.tokens[responses.mask].cpu()
    worth = mean_advantages(
        advantages[responses.mask].double().cpu(), chosen, len(weight),
        ppo.token_bias.prior * len(chosen),
    )  # fmt: skip
    nats = (reach * worth).clamp(-MOST, MOST)
    mean, moments = memory.micro_batch.fit(
        min(ROWS, len(responses)), partial(_moments, policy, responses)
    )
    if not moments.isfinite().all():
        raise NotFiniteError(
            "output state", "what the output layer reads is NaN or infinite; the step on single "
            "tokens was not made",
        )  # fmt: skip
    logits = (temperature * nats).to(weight)
    weight += torch.outer(logits, shared_direction(mean, moments).to(weight))
    return {"train/token_bias": nats[chosen].abs().mean().item()}


def mean_advantages(advantages: Tensor, tokens: Tensor, vocabulary: int, prior: float) -> Tensor:
    """How much better than others it was to choose each token, drawn towards 0.

    Args:
        advantages: (N,) of the tokens chosen.
        tokens: (N,) which they were.
        vocabulary: V.
        prior: choices of advantage 0 that each token is given besides its own, at least 0.

    Returns:
        (V,), 0 for a token that was not chosen.
    """
    sums = advantages.new_zeros(vocabulary)
    sums.index_add_(0, tokens, advantages - advantages.mean())
    counts = torch.bincount(tokens, minlength=vocabulary) + prior
    return sums / counts.clamp(min=torch.finfo(sums.dtype).tiny)


def shared_direction(mean: Tensor, moments: Tensor) -> Tensor:
    """The u for which h @ u is 1 on average, and as nearly 1 for each state h as can be.

    Args:
        mean: (H,) of the states.
        moments: (H, H), the mean of their outer products.

    Returns:
        (H,), by least squares with a small ridge.
    """
    ridge = RIDGE * moments.diagonal().mean() * torch.eye(len(mean), device=mean.device)
    direction = torch.linalg.solve(moments + ridge, mean)
    return direction / (mean @ direction)


def _moments(policy: Policy, responses: Responses, at_once: int) -> tuple[Tensor, Tensor]:
    """Mean (H,) and second moments (H, H) of the states that the first responses' tokens follow."""
    rows = torch.arange(min(ROWS, len(responses)), device=policy.device)
    sums, products, count = [], [], 0
    for some in map(responses.select, rows.split(at_once)):
        states = policy.output_states(some)[some.mask].float()
        sums.append(states.sum(0))
        products.append(states.T @ states)
        count += len(states)
    return torch.stack(sums).sum(0) / count, torch.stack(products).sum(0) / count
