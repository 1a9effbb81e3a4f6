"""Frozen matrices in the type of autocast: the same bits, and nothing else is turned."""

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rl_lab.rlhf.frozen import keep_frozen
from rl_lab.rlhf.tiny import tiny_model


def logits(model: PreTrainedModel) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(torch.arange(6)[None]).logits


def test_results_under_autocast_are_the_same_to_the_bit() -> None:
    model = tiny_model(6).requires_grad_(False)
    kept = copy.deepcopy(model)
    keep_frozen(kept, torch.bfloat16)
    linear = [module for module in kept.modules() if isinstance(module, nn.Linear)]
    assert {module.weight.dtype for module in linear} == {torch.bfloat16}
    assert kept.get_input_embeddings().weight.dtype == torch.float32
    assert torch.equal(logits(model), logits(kept))


def test_what_is_trained_stays_as_it_is() -> None:
    model = tiny_model(6)
    before = dict(model.named_parameters())
    keep_frozen(model, torch.bfloat16)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_without_autocast_nothing_changes_and_tied_matrices_stay_tied() -> None:
    model = tiny_model(6).requires_grad_(False)
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    keep_frozen(model, torch.float32)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
