"""The natural-gradient step on single tokens: its numbers by hand, and what it may not change."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
)

from rl_lab.errors import UserError
from rl_lab.rlhf import ppo_math, token_bias
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.not_finite import NotFiniteError
from rl_lab.rlhf.policy import Policy
from rl_lab.rlhf.ppo_recipe import KL, PPO, TokenBias
from rl_lab.rlhf.ppo_stage import save_model
from rl_lab.rlhf.tiny import tiny_model
from rl_lab.rlhf.token_bias import mean_advantages, shared_direction
from tests.rlhf.conftest import Tiny
from tests.rlhf.test_train_ppo import newest, trained

BIAS: dict[str, Any] = {"kl": KL(coefficient=0.2), "token_bias": TokenBias()}


def test_mean_advantages_by_hand() -> None:
    advantages = torch.tensor([3.0, 1.0, 0.0, 0.0])  # 2, 0, -1, -1 from their mean
    tokens = torch.tensor([4, 4, 1, 2])
    found = mean_advantages(advantages, tokens, 5, prior=0.0)
    torch.testing.assert_close(found, torch.tensor([0.0, -1.0, -1.0, 0.0, 1.0]))
    # Two choices of advantage 0 are added to each: a token seen once is believed a third.
    found = mean_advantages(advantages, tokens, 5, prior=2.0)
    torch.testing.assert_close(found, torch.tensor([0.0, -1 / 3, -1 / 3, 0.0, 0.5]))


def test_the_shared_direction_of_states_that_have_a_part_in_common() -> None:
    torch.manual_seed(0)
    common = torch.randn(16)
    common /= common.norm()
    states = 3 * common + 0.2 * torch.randn(5000, 16)
    direction = shared_direction(states.mean(0), states.T @ states / len(states))
    lengths = states @ direction
    assert lengths.mean().item() == pytest.approx(1, abs=1e-5)
    assert lengths.std().item() < 0.1
    torch.testing.assert_close(direction, common / 3, atol=0.02, rtol=0)


def tied_model() -> LlamaForCausalLM:
    model = tiny_model(6)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return model


def test_an_output_layer_of_its_own_is_no_embedding() -> None:
    model = tied_model()
    token_bias.own_output_layer(model)
    head = model.get_output_embeddings().weight
    assert head is not model.get_input_embeddings().weight
    assert torch.equal(head, model.get_input_embeddings().weight)
    token_bias.own_output_layer(model)
    assert model.get_output_embeddings().weight is head


def test_a_model_that_scales_or_caps_its_logits_is_refused() -> None:
    small: dict[str, Any] = {
        "vocab_size": 6, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 1.0,
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    scales = GraniteForCausalLM(GraniteConfig(**small, logits_scaling=8.0))
    caps = Gemma2ForCausalLM(Gemma2Config(**small, head_dim=16, final_logit_softcapping=5.0))
    for model, name in ((scales, "granite"), (caps, "gemma2")):
        with pytest.raises(UserError, match=f"ppo.token_bias: the logits of a {name}"):
            token_bias.own_output_layer(model)


ONE_STEP: dict[str, Any] = {
    "updates": 1, "rollouts": 256, "minibatch": 256, "micro_batch": 64, "epochs": 1,
    "learning_rate": 1e-12, "schedule": "constant", "kl": KL(coefficient=0.2),
    "token_bias": TokenBias(gae_lambda=1.0),
}  # fmt: skip
"""All of training in one such step."""


def watch(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> list[tuple[Any, ...]]:
    """Note of each step: which tensors it changed, how logits moved, what it said; and of what."""
    steps: list[tuple[Any, ...]] = []
    step = token_bias.step

    def watched(ppo: PPO, policy: Any, rollout: Any, *rest: Any) -> dict[str, float]:
        responses = rollout.responses
        before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
        with torch.no_grad():
            logits = policy(responses, tiny.sampling).logits
            numbers = step(ppo, policy, rollout, *rest)
            moved = (policy(responses, tiny.sampling).logits - logits)[responses.mask]
        changed = [n for n, tensor in policy.state_dict().items() if (tensor != before[n]).any()]
        steps.append(((changed, moved, numbers), responses))
        return numbers

    monkeypatch.setattr(token_bias, "step", watched)
    return steps


def test_the_step_moves_tokens_by_their_advantages_and_nothing_else(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = watch(monkeypatch, tiny)
    _, _, records = tiny.train(tiny.settings(**ONE_STEP))
    (((changed, moved, numbers), _),) = steps
    assert changed == ["model.lm_head.weight"]
    a, b, c = moved[:, 3:].unbind(1)
    assert a.mean() > 0.1 + max(b.mean(), c.mean())  # `a` is what it is paid for
    # What was never chosen stays; what was moves by about as much wherever it stands.
    assert moved[:, [0, 2]].abs().max() == 0
    assert a.std() < 0.5 * a.mean()
    said = [record["train/token_bias"] for record in records if "train/token_bias" in record]
    assert said == list(numbers.values())


def test_micro_batches_do_not_change_the_step(tiny: Tiny) -> None:
    _, whole, _ = tiny.train(tiny.settings(micro_batch=8, **BIAS), "whole")
    _, parts, _ = tiny.train(tiny.settings(micro_batch=2, **BIAS), "parts")
    one, other = (trained(newest(run).tensors["policy"]) for run in (whole, parts))
    torch.testing.assert_close(one, other, atol=5e-5, rtol=0)


def test_the_saved_model_is_the_policy(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = tiny.settings(**BIAS)
    monkeypatch.setattr("tests.rlhf.conftest.tiny_model", lambda _: tied_model())
    policy, run, _ = tiny.train(ppo)
    save_model(policy, tiny.tokenizer, run.path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(run.path / "model", trust_remote_code=False,
                                                  use_safetensors=True)  # fmt: skip
    ids = torch.tensor([[2, 3, 4, 5]])
    assert torch.equal(loaded(ids).logits, policy.model(ids).logits)
    head, embedding = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert not torch.equal(head, embedding)


def test_while_only_the_critic_learns_no_token_moves(tiny: Tiny) -> None:
    ppo = tiny.settings(updates=2, critic={"warmup_updates": 2}, **BIAS)
    start = tiny.policy(ppo).model.get_output_embeddings().weight
    policy, _, _ = tiny.train(ppo)
    assert torch.equal(policy.model.get_output_embeddings().weight, start)


def test_a_move_in_nats_is_one_of_what_is_sampled(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits are divided by the temperature, so they move by that many times the nats."""
    steps = watch(monkeypatch, tiny)
    for temperature in (0.5, 2.0):
        tiny.sampling = Sampling(6, (1,), (0, 2), temperature)
        tiny.train(tiny.settings(**ONE_STEP), str(temperature))
        (_, moved, numbers), responses = steps.pop()
        chosen = moved.gather(1, responses.tokens[responses.mask][:, None])
        nats = chosen.abs().mean().item() / temperature
        assert nats == pytest.approx(numbers["train/token_bias"], rel=0.2)


def test_no_token_moves_by_more_than_a_nat(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = watch(monkeypatch, tiny)
    tiny.train(tiny.settings(**(ONE_STEP | {"kl": KL(coefficient=1e-6)})))
    (((_, moved, numbers), _),) = steps
    assert numbers["train/token_bias"] == 1.0
    assert moved.abs().max() < 2.0  # along states that are not all of one length


def test_without_discount_a_prize_at_the_end_is_worth_as_much_to_each_token(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    discounts = []
    advantages = ppo_math.generalized_advantages

    def watched(*arguments: Any) -> Any:
        discounts.append(arguments[4])
        return advantages(*arguments)

    monkeypatch.setattr(ppo_math, "generalized_advantages", watched)
    tiny.train(tiny.settings(**(ONE_STEP | {"gamma": 0.9})))
    assert discounts == [0.9, 0.9]  # of PPO and of the step


@pytest.mark.parametrize("why", ["ended early by its KL", "a step left out", None])
def test_an_update_that_was_cut_short_goes_no_further(
    tiny: Tiny, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BIAS | {"updates": 1}
    if why == "ended early by its KL":
        settings |= {"kl": KL(coefficient=0.2, stop_update=1e-12), "learning_rate": 1e-2}
    elif why == "a step left out":
        settings |= {"health": {"on_nan": "skip"}}
        norms = iter([torch.tensor(torch.nan), *[torch.tensor(1.0)] * 3])
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: next(norms))
    steps = watch(monkeypatch, tiny)
    _, _, records = tiny.train(tiny.settings(**settings))
    (made,) = [r["train/optimizer_steps"] for r in records if "train/optimizer_steps" in r]
    assert (made < 4) == (why is not None)
    assert len(steps) == (why is None)


def test_states_that_are_no_numbers_change_nothing(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = torch.full((1, 1, 32), torch.nan)
    monkeypatch.setattr(
        Policy, "output_states", lambda self, some: nan.expand(*some.mask.shape, 32)
    )
    start = tiny.policy(tiny.settings(**ONE_STEP)).model.get_output_embeddings().weight
    with pytest.raises(NotFiniteError, match="the step on single tokens was not made"):
        tiny.train(tiny.settings(**ONE_STEP))
    ppo = tiny.settings(**(ONE_STEP | {"health": {"on_nan": "skip"}}))
    policy, _, _ = tiny.train(ppo, "skipping")
    torch.testing.assert_close(policy.model.get_output_embeddings().weight, start)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kl": {"coefficient": 0.0}}, "kl.coefficient above 0"),
        ({"kl": {"place": "loss", "estimator": "exact"}}, "kl.place reward"),
        ({"kl": {"estimator": "k3"}}, "kl.estimator k1"),
        ({"lora": {}}, "which lora keeps"),
        ({"token_bias": {"rate": 0.0}}, "greater than 0"),
    ],
)
def test_what_does_not_fit_together_is_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PPO(**({"token_bias": {}} | changes))
