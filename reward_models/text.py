"""A learned reward model of texts: a sequence classifier with one label, loaded and asked.

The model brings its own tokenizer and template, which need not be the policy's: a text reaches it
as text. What stands around a text (begin and end tokens) is in the tokenizer's own files, so that a
model is asked about texts in the form in which it was trained on them.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from reward_models import model_files
from reward_models.side_by_side import side_by_side, workers

Message = dict[str, str]
"""One turn of a conversation: `role` and `content`."""
Turn = str | list[Message]
"""A prompt or a completion: plain text, or messages."""


class TextRewardModel:
    """Calls `(prompts, completions) -> (batch,)` scores; higher is better."""

    def __init__(
        self,
        source: str | Path,
        device: str = "cpu",
        *,
        batch: int = 32,
        bf16: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        """Load a model. Weights are read from safetensors only, and no remote code is run.

        Args:
            source: a local directory or a hub id.
            device: where it computes.
            batch: texts of one forward pass; a small model on a CPU makes as many passes at once as
                torch has threads.
            bf16: compute in bfloat16 (autocast). Scores then carry 2 to 3 digits.
            max_tokens: of prompt and completion together; beyond it the beginning is cut off, for
                the score stands on the last token. None: what the model's positions allow.

        Raises:
            ValueError: it is no reward model (not one label, no trained head), or has no tokenizer
                or padding token.
        """
        with quiet():
            self.model, self.tokenizer = _load(str(source))
        self.model.eval().requires_grad_(False).to(torch.device(device))
        self.device = torch.device(device)
        self.batch = batch
        self.bf16 = bf16
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        self.max_tokens = max_tokens or positions

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Turn], completions: Sequence[Turn]) -> Tensor:
        """Score completions.

        Args:
            prompts: (batch,) what was asked; "" where there is nothing.
            completions: (batch,) what was answered.

        Returns:
            (batch,) float32 scores on `device`, of no fixed scale or zero.

        Raises:
            ValueError: unequal lengths, an empty text, or messages for a model without a template.
        """
        pairs = zip(prompts, completions, strict=True)
        sequences = [encode(self.tokenizer, *pair, max_tokens=self.max_tokens) for pair in pairs]
        scores = torch.empty(len(sequences), device=self.device)
        # Texts of like length share a batch: less padding, and no score depends on its neighbours.
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        batches = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]

        def score(chosen: list[int]) -> Tensor:
            return self._score([sequences[index] for index in chosen])

        results = side_by_side(score, batches, workers(self.model))
        for chosen, of_chosen in zip(batches, results, strict=True):
            scores[torch.tensor(chosen, device=self.device)] = of_chosen
        return scores

    def _score(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """(batch,) scores of token ids, in one forward pass."""
        input_ids, attention_mask = pad_right(sequences, self.tokenizer.pad_token_id, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.squeeze(-1).float()


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Turn,
    completion: Turn,
    max_tokens: int | None = None,
) -> list[int]:
    """Token ids of a prompt and its completion, as a reward model reads them.

    Plain: the tokenizer's own specials around prompt + completion, joined as they are. With a
    conversation on either side: the tokenizer's chat template; a plain prompt is what the user
    said, a plain completion what the assistant answered.

    Args:
        tokenizer: the reward model's.
        prompt: what was asked.
        completion: what was answered.
        max_tokens: a longer text is cut, on the tokenizer's `truncation_side`, a longer
            conversation at its beginning; None: nothing is.

    Raises:
        ValueError: nothing to encode, or messages and no chat template that takes them.
    """
    if isinstance(prompt, str) and isinstance(completion, str):
        text = prompt + completion
        if not text.strip():
            raise ValueError("an empty text cannot be scored")
        cut: dict[str, Any] = (
            {} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
        )
        return list(tokenizer(text, **cut)["input_ids"])
    if not tokenizer.chat_template:
        raise ValueError(
            "the reward model's tokenizer has no chat template, so it cannot read messages"
        )
    messages = _messages(prompt, "user") + _messages(completion, "assistant")
    try:
        ids = list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))
    except TemplateError as error:  # as of roles it does not know, or that do not alternate
        raise ValueError(f"the reward model's chat template refuses: {error}") from None
    return ids if max_tokens is None else ids[-max_tokens:]


def pad_right(
    sequences: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pad token ids to one length, on the right: positions then start at 0 in every model.

    Returns:
        (batch, tokens) ids, and (batch, tokens) mask with 1 on real tokens.
    """
    longest = max(map(len, sequences))
    input_ids = [[*sequence, *[pad_token_id] * (longest - len(sequence))] for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
    return torch.tensor(input_ids, device=device), torch.tensor(mask, device=device)


def _messages(turn: Turn, role: str) -> list[Message]:
    return [{"role": role, "content": turn}] if isinstance(turn, str) else list(turn)


def plain(turn: Turn) -> str:
    """What was said, whoever said it; each message of a conversation is a line of its own."""
    if isinstance(turn, str):
        return turn
    return "".join(f"{message['content']}\n" for message in turn)


def read(source: str) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Read what a reward model says of itself, without its weights.

    Args:
        source: a local directory or a hub id.

    Raises:
        ValueError: it is no reward model (not one label), or has no tokenizer or padding token.
    """
    try:
        model_files.check(source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # `tokenizers`, and a configuration's own checks, raise no other
        raise ValueError(f"no reward model at {source!r}: {_first_line(error)}") from None
    if config.num_labels != 1:
        raise ValueError(
            f"{source!r} is no reward model: it has {config.num_labels} labels, "
            "a reward model has one"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {source!r} has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    return config, tokenizer


def _load(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    config, tokenizer = read(source)
    try:
        model_files.check_weights(source, config, AutoModelForSequenceClassification)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True,
            trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load reward model {source!r}: {_first_line(error)}") from None
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ValueError(f"{source!r} is no reward model: it has no trained weights for {missing}")
    tokenizer.truncation_side = "left"
    # Which token is the last one, and so carries the score, is told by the padding token.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars, and from telling that a new head is new."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
