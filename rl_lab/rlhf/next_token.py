"""Next-token loss of texts under any causal language model."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rl_lab.rlhf.language_model import positions


def next_token_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[Tensor, int]:
    """Sum of -log P(token | those before it), the end token included, unknown words left out.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        texts: at least one; each is cut to the model's context.

    Returns:
        The sum in nats, a scalar, and the number of tokens predicted.
    """
    context = positions(model.config) or 1024
    end = tokenizer.eos_token_id
    rows = [[*tokenizer(text).input_ids, end][:context] for text in texts]
    rows = [row[:-1] if row[-2:] == [end, end] else row for row in rows]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), end)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = True
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1]
    targets = ids[:, 1:]
    counted = mask[:, 1:]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id != end:
        counted = counted & (targets != tokenizer.unk_token_id)
    losses = functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
    return torch.where(counted, losses, 0).sum(), int(counted.sum())


@torch.no_grad()
def mean_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
) -> float:
    """Mean next-token loss of texts, in nats a token."""
    total, tokens = 0.0, 0
    for batch in _batches(sorted(texts, key=len)):
        loss, count = next_token_loss(model, tokenizer, batch)
        total, tokens = total + loss.item(), tokens + count
    return total / max(tokens, 1)


CHARACTERS_AT_ONCE = 8_000
"""Of a batch of texts, padding included: logits of a whole vocabulary for each token are large."""


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut texts, shortest first, into batches of at most so many characters, or of one text."""
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) + 1) * len(text) > CHARACTERS_AT_ONCE:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
