"""Bits per character: how well a model predicts text, whatever its tokens are.

A word that is no token costs `<unk>` and its spelling besides, so that a model with few words
cannot look good by knowing little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rl_lab.rlhf import tokenizer as tokenizers
from rl_lab.rlhf.ngram import NGram
from rl_lab.rlhf.packing import Rows, pack

SPELLING_ORDER = 5
SPELLING_WORDS = 50_000
# What a character costs that no unknown word had: all of Unicode, each as likely.
_NEW_CHARACTER = math.log(0x110000)


class Spelling:
    """A character n-gram model of the words that are no tokens; it knows where a word ends."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> None:
        """Learn from the unknown words of texts."""
        words = tokenizers.unknown_words(tokenizer, texts)[:SPELLING_WORDS]
        # Symbols: 0 and 1 begin and end a word, 2 is any character that is not here.
        self._symbols = {c: i for i, c in enumerate(sorted(set("".join(words))), 3)}
        words = words or [""]
        self._ngram = NGram(self._encode(words), SPELLING_ORDER, 3 + len(self._symbols))

    def nats(self, words: Sequence[str]) -> float:
        """Return -log P of all the words' spellings together."""
        if not words:
            return 0.0
        encoded = self._encode(words)
        new = sum(symbol == 2 for word in encoded for symbol in word)
        return float(self._ngram.nats(encoded).sum()) + new * _NEW_CHARACTER

    def _encode(self, words: Sequence[str]) -> list[list[int]]:
        return [[0, *(self._symbols.get(character, 2) for character in word), 1] for word in words]


@dataclass(frozen=True)
class Sample:
    """Texts on which models are measured."""

    sequences: list[list[int]]
    rows: Rows
    characters: int
    spelling: float
    """Nats for the spelling of the words that are no tokens; the same for every model."""

    unknown_share: float
    """Of the tokens between begin and end, how many are `<unk>`."""

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerFast,
        spelling: Spelling,
        context: int,
    ) -> "Sample":
        """Prepare texts: characters are counted as the tokenizer takes them (case folded, ...)."""
        sequences = tokenizers.encode(tokenizer, texts)
        unknown = tokenizers.unknown_words(tokenizer, texts)
        return cls(
            sequences,
            pack(sequences, context, tokenizer.pad_token_id),
            sum(len(tokenizers.normalize(tokenizer, text)) for text in texts),
            spelling.nats(unknown),
            len(unknown) / sum(len(sequence) - 2 for sequence in sequences),
        )

    def bits_per_character(self, nats: float) -> float:
        """Convert what all tokens cost together. The end of a text costs, but is no character."""
        return (nats + self.spelling) / math.log(2) / self.characters

    @torch.no_grad()
    def measure(self, model: PreTrainedModel, batch_tokens: int, device: str) -> float:
        """Return the model's bits per character; the model is left in evaluation mode."""
        model.eval()
        context = self.rows.tokens.shape[1]
        nats = 0.0
        for batch in torch.arange(len(self.rows)).split(max(1, batch_tokens // context)):
            logits, labels = forward(model, self.rows, batch, device)[:2]
            nats += functional.cross_entropy(logits.float(), labels, reduction="sum").item()
        return self.bits_per_character(nats)


def forward(
    model: PreTrainedModel, rows: Rows, batch: torch.Tensor, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predict each next token of some packed rows.

    Args:
        model: predicts.
        rows: of which it predicts some, each sequence on its own.
        batch: (rows,) which.
        device: where the model is.

    Returns:
        Logits (tokens, vocabulary) and targets (tokens,) wherever there is a next token, and the
        auxiliary loss (), which is zero unless the model routes between experts.
    """
    routed = getattr(model.config, "output_router_logits", None) is not None
    outputs = model(
        input_ids=rows.tokens[batch].to(device),
        position_ids=rows.positions[batch].to(device),
        use_cache=False,
        **({"output_router_logits": True} if routed else {}),
    )
    labels = rows.labels(batch).to(device)
    here = labels != -100
    auxiliary = torch.zeros((), device=device)
    if routed:
        auxiliary = model.config.router_aux_loss_coef * outputs.aux_loss
    return outputs.logits[:, :-1][here], labels[here], auxiliary
