"""What steps a language model's parameters in pretraining: AdamW, or Muon beside it."""

from typing import Literal

import torch
from transformers import PreTrainedModel


def optimizers_for(
    model: PreTrainedModel, kind: Literal["adamw", "muon"], weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Return what steps the parameters: AdamW, or Muon for the matrices inside the blocks.

    Muon orthogonalises the update of a matrix (K. Jordan, *Muon*, 2024); scaled to AdamW's size
    (J. Liu et al., *Muon is scalable for LLM training*, 2025) both share one learning rate.
    Embeddings, the output layer and vectors stay with AdamW. Vectors are not decayed.
    """
    ends = {id(end.weight) for end in (model.get_input_embeddings(), model.get_output_embeddings())}
    matrices, outer, vectors = [], [], []
    for parameter in model.parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif kind == "muon" and parameter.ndim == 2 and id(parameter) not in ends:
            matrices.append(parameter)
        else:
            outer.append(parameter)
    groups = [
        {"params": outer, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    ]
    if matrices:
        optimizers.append(
            torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return optimizers
