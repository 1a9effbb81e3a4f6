"""Lean layers of a Llama: the weights, their names and the results are those of transformers."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.lean_llama import LeanAttention, LeanNorm, make_lean
from rl_lab.rlhf.policy import Critic, Policy
from rl_lab.rlhf.sampling import Responses, sample

SAMPLING = Sampling(10, (1, 7, 9, 20, 33), (0, 2))


def pair(heads: int, key_heads: int) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A Llama, and the same one made lean."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=key_heads, max_position_embeddings=64,
        initializer_range=0.1, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    lean = copy.deepcopy(model)
    make_lean(lean)
    return model, lean


def responses_of(model: PreTrainedModel) -> Responses:
    """Padded on both sides."""
    prompts = [list(range(3, 3 + length)) for length in (1, 4, 9)] * 3
    return sample(model, prompts, SAMPLING, 0, torch.Generator().manual_seed(0))


def evaluate(model: PreTrainedModel, responses: Responses, dtype: torch.dtype) -> Tensor:
    """Log-probabilities; the gradient of a weighted sum of them is left on the weights."""
    policy = Policy(model, Critic(32), dtype)
    log_probs = policy(responses, SAMPLING).log_probs
    (log_probs * torch.linspace(-1, 1, log_probs.numel()).view_as(log_probs)).sum().backward()
    return log_probs


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("dtype", "near", "near_gradient"), [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 0.1, 0.1)]
)
def test_results_and_gradients_are_the_same(
    key_heads: int, dtype: torch.dtype, near: float, near_gradient: float
) -> None:
    model, lean = pair(4, key_heads)
    kinds = {type(module) for module in lean.modules()}
    assert {LeanNorm, LeanAttention} <= kinds
    responses = responses_of(model)
    known, found = (evaluate(either, responses, dtype) for either in (model, lean))
    torch.testing.assert_close(found, known, atol=near, rtol=0)
    theirs = dict(model.named_parameters())
    assert theirs.keys() == dict(lean.named_parameters()).keys()
    for name, parameter in lean.named_parameters():
        gradient = theirs[name].grad
        assert (parameter.grad - gradient).norm() < near_gradient * gradient.norm(), name


def test_what_is_sampled_is_the_same() -> None:
    model, lean = pair(4, 2)
    known, found = responses_of(model), responses_of(lean)
    assert torch.equal(known.tokens, found.tokens)
    torch.testing.assert_close(known.log_probs, found.log_probs, atol=1e-5, rtol=0)
    assert len(set(known.mask.sum(1).tolist())) > 2
