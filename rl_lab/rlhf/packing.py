"""Sequences of different lengths, packed into rows of one length, so that no step computes padding.

Every sequence keeps its own positions, from 0. transformers reads the restarts and masks attention
between sequences (its `find_packed_sequence_indices`, with no attention mask and no cache), so
nothing leaks from one to the next in models that attend; a recurrent model (Mamba) would leak.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Packed rows: token ids and positions, both (rows, context) int64."""

    tokens: Tensor
    positions: Tensor

    def labels(self, rows: Tensor | slice) -> Tensor:
        """Targets of next-token prediction, (chosen rows, context - 1); -100 where there is none.

        Label t is token t + 1, unless a sequence (or padding) begins there.
        """
        tokens, positions = self.tokens[rows, 1:], self.positions[rows, 1:]
        return tokens.masked_fill(positions == 0, -100)

    def __len__(self) -> int:
        return len(self.tokens)


def pack(sequences: Sequence[Sequence[int]], context: int, pad: int) -> Rows:
    """Pack sequences into rows, best fit first; the order of rows follows that of sequences.

    A sequence longer than a row is cut; each piece repeats the last token of the one before it, so
    every token but a sequence's first is predicted exactly once.

    Args:
        sequences: token ids, begin and end tokens included; none is empty.
        context: tokens a row, at least 2.
        pad: fills what is left of a row; each such token is at position 0, alone.
    """
    rows: list[list[Sequence[int]]] = []
    # open_rows[room]: rows with exactly that many tokens left.
    open_rows: list[list[int]] = [[] for _ in range(context + 1)]
    for sequence in sequences:
        for start in range(0, max(len(sequence) - 1, 1), context - 1):
            piece = sequence[start : start + context]
            room = next((room for room in range(len(piece), context) if open_rows[room]), context)
            if room == context:
                rows.append([])
                row = len(rows) - 1
            else:
                row = open_rows[room].pop()
            rows[row].append(piece)
            open_rows[room - len(piece)].append(row)

    tokens = torch.full((len(rows), context), pad)
    positions = torch.zeros((len(rows), context), dtype=torch.int64)
    for index, row_pieces in enumerate(rows):
        flat = [token for piece in row_pieces for token in piece]
        place = [position for piece in row_pieces for position in range(len(piece))]
        tokens[index, : len(flat)] = torch.tensor(flat)
        positions[index, : len(place)] = torch.tensor(place)
    return Rows(tokens, positions)
