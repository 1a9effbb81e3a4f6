"""An n-gram model with interpolated Kneser-Ney smoothing: what a language model has to beat.

S. F. Chen and J. Goodman, *An empirical study of smoothing techniques for language modeling*
(1999), section 4.1.6, with one absolute discount an order, n1 / (n1 + 2 n2), after Ney et al.

A gram of k symbols is known by its rank among all pairs (first symbol, rank of the other k - 1),
so each order is one sorted array, and a million positions are looked up at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """Grams of one length, and their contexts: the grams one symbol shorter that they extend."""

    keys: Ints
    """(grams,) first symbol * number of shorter grams + rank of the other symbols; sorted."""
    suffixes: Ints
    """(grams,) rank of the gram without its first symbol."""
    contexts: Ints
    """(grams,) rank of the gram without its last symbol."""
    counts: Floats
    """(grams,) how often it was seen."""
    initial: NDArray[np.bool_]
    """(grams,) whether it begins a sequence, so that nothing can come before it."""


class NGram:
    """P(symbol | those before it in its sequence), from counts of grams up to some length."""

    def __init__(self, sequences: Sequence[Sequence[int]], order: int, symbols: int) -> None:
        """Count.

        Args:
            sequences: symbols; each sequence begins with one that is given, never predicted.
            order: symbols of the longest gram, the predicted one included; at least 2.
            symbols: how many there are; each is in [0, symbols).
        """
        stream, positions = _join(sequences)
        self._symbols = symbols
        self._orders: list[_Order] = []
        size, grams = symbols, stream
        for length in range(2, order + 1):
            ends = np.flatnonzero(positions >= length - 1)
            keys, first, ranks, counts = np.unique(
                stream[ends - length + 1] * size + grams[ends],
                return_index=True, return_inverse=True, return_counts=True,
            )  # fmt: skip
            first = ends[first]
            self._orders.append(
                _Order(
                    keys,
                    suffixes=grams[first],
                    contexts=grams[first - 1],
                    counts=counts.astype(np.float64),
                    initial=positions[first] == length - 1,
                )
            )
            grams = np.full(len(stream), -1)
            grams[ends] = ranks
            size = len(keys)
        self._smooth()

    def _smooth(self) -> None:
        """Turn counts into Kneser-Ney's: below the top, in how many contexts a gram was seen."""
        self._levels: list[tuple[Floats, float, Floats, Floats]] = []
        for index, order in enumerate(self._orders):
            counts = order.counts
            if index + 1 < len(self._orders):
                longer = self._orders[index + 1].suffixes
                preceded = np.bincount(longer, minlength=len(counts)).astype(np.float64)
                counts = np.where(order.initial, counts, preceded)
            shorter = len(self._orders[index - 1].keys) if index else self._symbols
            totals = np.bincount(order.contexts, counts, shorter).astype(np.float64)
            types = np.bincount(order.contexts, minlength=shorter).astype(np.float64)
            self._levels.append((counts, _discount(counts), totals, types))

        seen = np.bincount(self._orders[0].suffixes, minlength=self._symbols).astype(np.float64)
        discount, total = _discount(seen), seen.sum()
        spare = discount * (seen > 0).sum() / self._symbols
        self._single = (np.maximum(seen - discount, 0) + spare) / total

    def nats(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """Return -log P of every symbol but each sequence's first, end to end."""
        stream, positions = _join(sequences)
        probability = self._single[stream]
        size, grams = self._symbols, stream
        for length, (order, level) in enumerate(zip(self._orders, self._levels, strict=True), 2):
            counts, discount, totals, types = level
            # Where the context was seen: the gram's own share, and the rest to the shorter gram.
            contexts = np.concatenate(([-1], grams[:-1]))
            ends = np.flatnonzero((positions >= length - 1) & (contexts >= 0))
            ends = ends[totals[contexts[ends]] > 0]
            ranks = np.full(len(stream), -1)
            keys = stream[ends - length + 1] * size + grams[ends]
            known = grams[ends] >= 0
            ranks[ends[known]] = _find(order.keys, keys[known])
            own = np.where(ranks[ends] >= 0, np.maximum(counts[ranks[ends]] - discount, 0), 0)
            context = contexts[ends]
            backoff = discount * types[context] * probability[ends]
            probability[ends] = (own + backoff) / totals[context]
            size, grams = len(order.keys), ranks
        return -np.log(probability[positions > 0])


def _join(sequences: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Lay sequences end to end; return the symbols and each one's place in its own sequence."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    stream = np.fromiter(
        (symbol for sequence in sequences for symbol in sequence), np.int64, lengths.sum()
    )
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return stream, np.arange(len(stream)) - starts


def _discount(counts: Floats) -> float:
    """What is taken off every count, kept off 0 and 1 where there are few counts to tell by."""
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    return float(np.clip(once / max(once + 2 * twice, 1), 0.1, 0.9))


def _find(sorted_keys: Ints, keys: Ints) -> Ints:
    """Return each key's rank, -1 where it is absent."""
    ranks = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[ranks] == keys, ranks, -1)
