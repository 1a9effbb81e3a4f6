"""A critic that starts as the reward model: it knows from the first update what is praised.

The value of a state is the score to be expected at the end of the text begun. A reward model that
reads causally gives one at every token. One that reads both ways is read causally here, its mean
taken over the tokens so far: so read, one of `movie-reviews` explains 0.40 of the variance of the
scores to come before it has learned from any; a head fitted on the policy's own states, 0.16.
"""

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.ensemble import Ensemble
from reward_models.text import TextRewardModel
from rl_lab.errors import UserError
from rl_lab.rlhf.llama_eurobert import same_layers
from rl_lab.rlhf.policy import Critic
from rl_lab.rlhf.rewards import Rewards


def critic_of_reward(terms: Rewards, tokenizer: PreTrainedTokenizerBase) -> Critic:
    """Make a critic of the first reward model that can be one; the reward model is not changed.

    Args:
        terms: of the reward.
        tokenizer: the policy's, whose token numbers the reward model must share.

    Raises:
        UserError: none can.
    """
    ensembles = [term.score for term in terms.terms.values() if isinstance(term.score, Ensemble)]
    members = [member for ensemble in ensembles for member in ensemble.members]
    why = "no term of the reward is a transformer"
    for one in (member for member in members if isinstance(member, TextRewardModel)):
        why = _no_critic(one.model, one.tokenizer, tokenizer)
        if not why:
            return _critic_of(copy.deepcopy(one.model).requires_grad_(True))
    raise UserError(f"ppo.critic.kind reward: {why}; use shared or separate")


class MeanSoFar(nn.Module):
    """A both-ways reader's layers read causally: at each token, the mean of the states so far."""

    def __init__(self, model: Any) -> None:
        """Take over a EuroBERT classifier whose scores stand on the mean of its states.

        Args:
            model: its layers are those of a Llama (see preference_trainer), and are shared.
        """
        super().__init__()
        with torch.device("meta"):
            self.layers = LlamaModel(same_layers(LlamaConfig, model.config))
        self.layers.load_state_dict(model.base_model.state_dict(), assign=True)
        # Not saved with the weights, so nothing to assign: the angles of the positions.
        self.layers.rotary_emb = type(self.layers.rotary_emb)(self.layers.config)
        self.dense, self.activation = model.dense, model.activation

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, use_cache: bool
    ) -> SimpleNamespace:
        """(B, L) token ids -> `last_hidden_state` (B, L, H), what the head reads."""
        states = self.layers(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            use_cache=use_cache,
        ).last_hidden_state  # fmt: skip
        real = attention_mask[..., None].float()
        means = (states.float() * real).cumsum(1) / real.cumsum(1).clamp(min=1)
        return SimpleNamespace(last_hidden_state=self.activation(self.dense(means)))


def _critic_of(model: Any) -> Critic:
    """A critic of a reward model's own layers and head."""
    both_ways = model.config.model_type == "eurobert"
    theirs: nn.Linear = model.classifier if both_ways else model.score
    trunk = MeanSoFar(model) if both_ways else model.base_model
    critic = Critic(theirs.in_features, trunk)
    with torch.no_grad():
        critic.head.weight.copy_(theirs.weight)
        if theirs.bias is not None:
            critic.head.bias.copy_(theirs.bias)
    return critic


def _no_critic(
    model: PreTrainedModel, theirs: PreTrainedTokenizerBase, policys: PreTrainedTokenizerBase
) -> str:
    """Say why a reward model cannot value the policy's unfinished texts; "" if it can."""
    kind = model.config.model_type
    means = kind == "eurobert" and getattr(model.config, "classifier_pooling", "") == "mean"
    last = hasattr(model, "score")  # so transformers call the head that reads the last token
    if not (means or last):
        return f"the reward model, a {kind}, reads whole texts and cannot value half of one"
    numbers = theirs.get_vocab()
    if any(numbers.get(token) != number for token, number in policys.get_vocab().items()):
        return "the reward model's tokenizer has other numbers for the policy's tokens"
    return ""
