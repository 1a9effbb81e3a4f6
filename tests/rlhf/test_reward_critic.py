"""A critic that starts as the reward model values a text by what has been written so far."""

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EuroBertConfig,
    EuroBertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
)

from reward_models.ensemble import Ensemble
from reward_models.linear import LinearRewardModel, fit_preferences
from rl_lab.errors import UserError
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.policy import Critic
from rl_lab.rlhf.reward_critic import critic_of_reward
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.rlhf.sampling import Responses, sample
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer
from tests.rlhf.conftest import InMemory, Tiny

SIZES: dict[str, Any] = {
    "vocab_size": 6, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "num_labels": 1, "pad_token_id": 0,
    "rms_norm_eps": 1e-4, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip


def a_linear_one() -> LinearRewardModel:
    """One that knows no states, and so is passed over."""
    return LinearRewardModel(fit_preferences("words", ["good"], ["bad"], [1.0]))


def both_ways() -> EuroBertForSequenceClassification:
    torch.manual_seed(1)
    config = EuroBertConfig(**SIZES, classifier_pooling="mean", initializer_range=0.5)
    return EuroBertForSequenceClassification(config).eval()


def critic_of(*models: torch.nn.Module) -> Critic:
    ensemble = Ensemble([a_linear_one(), *map(InMemory, models)])
    return critic_of_reward(Rewards({"r": Term(ensemble)}), tiny_tokenizer()).eval()


def responses_to(prompts: list[list[int]]) -> Responses:
    generator = torch.Generator().manual_seed(0)
    return sample(tiny_model(6), prompts, Sampling(5, (1,), (0, 2)), 0, generator)


@torch.no_grad()
def values_of(critic: Critic, responses: Responses) -> torch.Tensor:
    return critic(critic.states(responses, torch.empty(0)))


@torch.no_grad()
def test_a_value_is_the_score_of_the_text_so_far_read_causally() -> None:
    model = both_ways()
    responses = responses_to([[2, 3], [2, 4, 5, 3, 4]])  # the first is padded
    values = values_of(critic_of(model), responses)
    # The same without padding and without anything to come, one unfinished text at a time.
    reader = LlamaModel(LlamaConfig(**SIZES)).eval()
    reader.load_state_dict(model.model.state_dict())
    for row in range(len(responses)):
        prompt = responses.prompts[row][responses.prompt_mask[row]]
        for length in range(int(responses.mask[row].sum()) + 1):
            text = torch.cat([prompt, responses.tokens[row, :length]])
            mean = reader(input_ids=text[None]).last_hidden_state.mean(1)
            score = model.classifier(model.activation(model.dense(mean)))
            assert values[row, length].item() == pytest.approx(score.item(), abs=1e-5)


@torch.no_grad()
def test_of_a_causal_reward_model_it_is_the_score_itself() -> None:
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(LlamaConfig(**SIZES, initializer_range=0.5)).eval()
    responses = responses_to([[2, 3], [2, 4, 5, 3, 4]])
    values = values_of(critic_of(model), responses)
    for row in range(len(responses)):
        prompt = responses.prompts[row][responses.prompt_mask[row]]
        length = int(responses.mask[row].sum())
        text = torch.cat([prompt, responses.tokens[row, :length]])
        score = model(input_ids=text[None]).logits
        assert values[row, length].item() == pytest.approx(score.item(), abs=1e-5)


def test_the_first_reward_model_that_can_is_taken_and_left_as_it_was() -> None:
    torch.manual_seed(2)
    bert = BertForSequenceClassification(
        BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                   intermediate_size=8, num_labels=1)
    )  # fmt: skip
    model = both_ways()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    critic = critic_of(bert, model)
    assert torch.equal(critic.head.weight, model.classifier.weight)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(UserError, match="a bert, reads whole texts"):
        critic_of(bert)


def test_with_head_only_a_critics_trunk_stays_and_is_run_once_a_rollout(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = tiny.settings(critic={"kind": "separate", "head_only": True})
    before = tiny.policy(ppo).critic
    after, _, _ = tiny.train(ppo, "known")
    assert {name for name in after.trained_tensors() if name.startswith("critic.")} == {
        "critic.head.weight", "critic.head.bias"
    }  # fmt: skip
    assert not torch.equal(before.head.weight, after.critic.head.weight)
    assert before.trunk is not None
    assert after.critic.trunk is not None
    for old, new in zip(before.trunk.parameters(), after.critic.trunk.parameters(), strict=True):
        assert torch.equal(old, new)
    # States that are kept for the update are those that it would work out.
    monkeypatch.setattr(Critic, "frozen", False)
    again, _, _ = tiny.train(ppo, "worked-out")
    for name, tensor in after.trained_tensors().items():
        torch.testing.assert_close(tensor, again.trained_tensors()[name], atol=1e-6, rtol=0)


def test_with_head_only_the_value_loss_leaves_a_shared_trunk_alone(tiny: Tiny) -> None:
    def policy_after(coefficient: float) -> torch.Tensor:
        critic = {"head_only": True, "coefficient": coefficient}
        ppo = tiny.settings(updates=1, epochs=1, minibatch=16, max_grad_norm=1e9, critic=critic)
        policy, _, _ = tiny.train(ppo, f"coefficient-{coefficient}")
        return torch.cat([tensor.detach().flatten() for tensor in policy.model.parameters()])

    assert torch.equal(policy_after(0.1), policy_after(10.0))
