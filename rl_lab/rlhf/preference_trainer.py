"""TRL's RewardTrainer, made to learn shares of votes and to read each text of a batch once.

Its snapshots are the lab's own, for those of transformers are pickles. transformers finds in one
what it reads by itself, `trainer_state.json`; everything else is put back by the methods here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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
from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.rlhf import snapshots
from rl_lab.rlhf.llama_eurobert import same_layers
from rl_lab.rlhf.snapshots import Snapshots

# Scores are free up to a constant; a small pull to mean zero (Eisenstein et al., 2023,
# arXiv:2312.09244) makes members comparable, which an ensemble's minimum needs.
CENTRE = 0.01
TRAINER_STATE = "trainer_state"
"""The file of that name is transformers' own: where training stands."""
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
            length; `chosen`, `rejected`: (pairs,) places in their concatenation; `share`, `margin`:
            (pairs,).
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
            **{
                name: torch.tensor([row[name] for row in rows], dtype=torch.float32)
                for name in ("share", "margin")
            },
        }


class GroupSampler(Sampler[int]):
    """Every pair once an epoch, those of a group next to each other, groups in random order."""

    def __init__(self, groups: Sequence[int], seed: int, epochs_done: int = 0) -> None:
        """Keep which pairs belong together.

        Args:
            groups: of each pair.
            seed: of the orders.
            epochs_done: orders that were drawn before a resume.
        """
        members: dict[int, list[int]] = {}
        for index, group in enumerate(groups):
            members.setdefault(group, []).append(index)
        self._groups = list(members.values())
        self._size = len(groups)
        self._rng = np.random.default_rng(seed)
        for _ in range(epochs_done):
            self._rng.permutation(len(self._groups))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        for group in self._rng.permutation(len(self._groups)):
            yield from self._groups[group]


class PreferenceTrainer(RewardTrainer):
    """TRL's, with the share of votes as label, each text read once, and groups kept together.

    A margin is learned as TRL does: it is what scores should differ by at least.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR

    def __init__(self, *arguments: Any, to: Snapshots, first_step: int, **options: Any) -> None:
        """Make a trainer.

        Args:
            arguments: TRL's.
            to: takes the snapshots.
            first_step: steps of the run before this training's first.
            options: TRL's.
        """
        self._to, self._first_step = to, first_step
        self._resumed: Snapshot | None = None
        super().__init__(*arguments, **options)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        assert isinstance(train_dataset, Dataset)
        epochs_done = 0
        if self._resumed is not None:
            steps_an_epoch = math.ceil(len(train_dataset) / self.args.per_device_train_batch_size)
            epochs_done = self._resumed.state[TRAINER_STATE]["global_step"] // steps_an_epoch
        return GroupSampler(train_dataset["group"], self.args.seed, epochs_done)

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
        chosen, rejected = scores[inputs["chosen"]], scores[inputs["rejected"]]
        logits = bradley_terry.preference_logits(chosen, rejected, inputs["margin"])
        loss = bradley_terry.preference_loss(logits, inputs["share"])
        accuracy = bradley_terry.preference_accuracy((chosen - rejected).detach())
        self._metrics["train"]["accuracy"].append(accuracy.item())
        return loss + CENTRE * scores.square().mean()

    # --- snapshots: called by transformers where it would write and read its pickles -------------

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        optimizer_tensors, optimizer_rest = checkpoint.flatten(self.optimizer.state_dict())
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors,
            "random": snapshots.random_state(str(self.args.device)),
        }
        state = {
            TRAINER_STATE: asdict(self.state),
            "optimizer": optimizer_rest,
            "scheduler": self.lr_scheduler.state_dict(),
            "since_log": {
                "step": self._globalstep_last_logged,
                "loss": self._tr_loss.item(),
                "metrics": dict(self._metrics["train"]),
            },
        }
        step = self._first_step + self.state.global_step
        self._to.write(Snapshot(step, tensors, {}, state))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._resumed = checkpoint.load(Path(resume_from_checkpoint))
        self.model.load_state_dict(self._resumed.tensors["model"])

    def _load_optimizer_and_scheduler(self, checkpoint_path: str | None) -> None:
        if self._resumed is not None:
            tensors, state = self._resumed.tensors["optimizer"], self._resumed.state
            self.optimizer.load_state_dict(checkpoint.unflatten(tensors, state["optimizer"]))
            self.lr_scheduler.load_state_dict(state["scheduler"])

    def _load_scaler(self, checkpoint_path: str | None) -> None:
        """There is none: bfloat16 needs no scaling."""

    def _load_rng_state(self, checkpoint_path: str | None) -> None:
        """Put back random numbers, and what has been summed since the log's last line.

        transformers calls this last, when the batches seen are skipped and the sums are set to 0.
        """
        assert self._resumed is not None
        snapshots.set_random_state(str(self.args.device), self._resumed.tensors["random"])
        sums = self._resumed.state["since_log"]
        self._globalstep_last_logged = sums["step"]
        self._tr_loss += sums["loss"]
        self._metrics["train"].update(sums["metrics"])


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
    # Untied from the embeddings, for there is no language-model head to tie them to.
    return same_layers(EuroBertConfig, config, classifier_pooling="mean", tie_word_embeddings=False)
