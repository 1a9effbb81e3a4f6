"""TRL's RewardTrainer, made to learn shares of votes and to read each text of a batch once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    EuroBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from trl import RewardTrainer

from reward_models import bradley_terry, model_files
from reward_models.text import pad_right
from rl_lab.errors import UserError

# Scores are free up to a constant; a small pull to mean zero (Eisenstein et al., 2023,
# arXiv:2312.09244) makes members comparable, which an ensemble's minimum needs.
CENTRE = 0.01
FORWARDS = 4  # forward passes an optimiser step, short texts in the first, long ones in the last


@dataclass
class Comparisons:
    """Makes a batch of pairs: each distinct text once, and which of them are compared.

    All comparisons of a few texts in one batch cost one reading of each text, and overfit less
    than the same pairs scattered over an epoch (Ouyang et al., 2022, section 3.5).
    """

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate.

        Returns:
            `forwards`: batches of `input_ids` and `attention_mask` (texts, tokens), ordered by
            length; `chosen`, `rejected`: (pairs,) places in their concatenation; `share`: (pairs,).
        """
        sides = [[tuple(row[side]) for row in rows] for side in ("chosen_ids", "rejected_ids")]
        # By length first, for little padding; then by tokens, so that the order is always the same.
        texts = sorted({text for side in sides for text in side}, key=lambda ids: (len(ids), ids))
        place = {text: index for index, text in enumerate(texts)}
        forwards = []
        for part in np.array_split(np.arange(len(texts)), min(FORWARDS, len(texts))):
            input_ids, attention_mask = pad_right(
                [texts[index] for index in part], self.pad_token_id, torch.device("cpu")
            )
            forwards.append({"input_ids": input_ids, "attention_mask": attention_mask})
        return {
            "forwards": forwards,
            "chosen": torch.tensor([place[text] for text in sides[0]]),
            "rejected": torch.tensor([place[text] for text in sides[1]]),
            "share": torch.tensor([row["share"] for row in rows], dtype=torch.float32),
        }


class GroupSampler(Sampler[int]):
    """Every pair once an epoch, those of a group next to each other, groups in random order."""

    def __init__(self, groups: Sequence[int], seed: int) -> None:
        """Keep which pairs belong together.

        Args:
            groups: of each pair.
            seed: of the orders.
        """
        members: dict[int, list[int]] = {}
        for index, group in enumerate(groups):
            members.setdefault(group, []).append(index)
        self._groups = list(members.values())
        self._size = len(groups)
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        for group in self._rng.permutation(len(self._groups)):
            yield from self._groups[group]


class PreferenceTrainer(RewardTrainer):
    """TRL's, with the share of votes as label, each text read once, and groups kept together."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        assert isinstance(train_dataset, Dataset)
        return GroupSampler(train_dataset["group"], self.args.seed)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Bradley-Terry loss of a batch from `Comparisons`, and its accuracy for the log."""
        scores = torch.cat(
            [model(**part, use_cache=False).logits.squeeze(-1) for part in inputs["forwards"]]
        )
        logits = bradley_terry.preference_logits(
            scores[inputs["chosen"]], scores[inputs["rejected"]]
        )
        loss = bradley_terry.preference_loss(logits, inputs["share"])
        accuracy = bradley_terry.preference_accuracy(logits.detach())
        self._metrics["train"]["accuracy"].append(accuracy.item())
        return loss + CENTRE * scores.square().mean()


def load_base(base: Path | str, reading: str, device: str) -> PreTrainedModel:
    """Load a language model with a new scalar head instead of its own.

    Args:
        base: directory or hub id.
        reading: the recipe's. Bidirectional, a Llama becomes a EuroBERT (Boizard et al., 2025,
            arXiv:2503.05500): the same layers without the causal mask, and a mean over tokens. A
            reward is asked for when the text is complete, so nothing need hide what comes later.
        device: where it will be trained.

    Raises:
        UserError: it cannot be read, or its architecture has no such form.
    """
    try:
        model_files.check(base)
        config = AutoConfig.from_pretrained(base, trust_remote_code=False, num_labels=1)
        if reading == "bidirectional" or (reading == "auto" and config.model_type == "llama"):
            config = _bidirectional(config)
        model_files.check_weights(base, config, AutoModelForSequenceClassification)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            base,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            # On a CPU, for short texts, a third faster to train than the fused attention.
            attn_implementation="eager" if device == "cpu" else None,
            output_loading_info=True,
        )
    except Exception as error:  # also what a configuration's own checks raise
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"reward.base: cannot start from {str(base)!r}: {reason}") from None
    # N(0, 1 / (d + 1)) (Stiennon et al., 2020, arXiv:2009.01325). With the 0.02 of
    # transformers a small model spends its first quarter waiting for the head to grow.
    for name, weight in model.named_parameters():
        if name in loading["missing_keys"] and weight.ndim == 2:
            torch.nn.init.normal_(weight, std=(weight.shape[1] + 1) ** -0.5)
    return model


def _bidirectional(config: PreTrainedConfig) -> EuroBertConfig:
    """Return the configuration of the EuroBERT that takes a Llama's weights."""
    if config.model_type != "llama":
        raise ValueError(
            f"reward.reading is bidirectional, which needs a llama, and this is a "
            f"{config.model_type}; causal works with any"
        )
    known = set(EuroBertConfig().to_dict()) - {"model_type", "architectures"}
    shared = {key: value for key, value in config.to_dict().items() if key in known}
    # Untied from the embeddings, for there is no language-model head to tie them to.
    return EuroBertConfig(**shared | {"classifier_pooling": "mean", "tie_word_embeddings": False})
