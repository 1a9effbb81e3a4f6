"""The n-gram baseline: a probability, Kneser-Ney's, and one that learns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.rlhf.ngram import NGram

BEGIN, SYMBOLS = 0, 5
sequences = st.lists(
    st.lists(st.integers(1, SYMBOLS - 1), min_size=1, max_size=8).map(lambda s: [BEGIN, *s]),
    min_size=1, max_size=12,
)  # fmt: skip


@given(train=sequences, context=st.lists(st.integers(1, SYMBOLS - 1), max_size=5),
       order=st.integers(2, 4))  # fmt: skip
def test_what_comes_next_sums_to_one_whatever_was_seen(
    train: list[list[int]], context: list[int], order: int
) -> None:
    model = NGram(train, order, SYMBOLS)
    nats = [model.nats([[BEGIN, *context, symbol]])[-1] for symbol in range(SYMBOLS)]
    assert np.exp(-np.array(nats)).sum() == pytest.approx(1, abs=1e-9)


def test_kneser_ney_by_hand() -> None:
    # Bigrams: 0-1 twice, 0-2 once, 1-2 twice, 2-1 once: counts of 1 twice and of 2 twice, so
    # discount 2 / (2 + 4) = 1/3. Symbol 1 comes after {0, 2}, symbol 2 after {0, 1}: no count is
    # 1, so the single symbols' discount is its bound, 0.1.
    model = NGram([[0, 1, 2], [0, 1, 2], [0, 2, 1]], 2, 3)
    alone = (2 - 0.1) / 4 + 0.1 * 2 / 3 / 4
    after_begin = (2 - 1 / 3) / 3 + (1 / 3) * 2 / 3 * alone
    after_one = (2 - 1 / 3) / 2 + (1 / 3) * 1 / 2 * alone
    assert np.exp(-model.nats([[0, 1, 2]])) == pytest.approx([after_begin, after_one])


def test_sequences_do_not_see_each_other() -> None:
    model = NGram([[0, 1, 2, 3], [0, 4, 4]], 3, SYMBOLS)
    apart = np.concatenate([model.nats([[0, 1, 2]]), model.nats([[0, 4, 3]])])
    assert model.nats([[0, 1, 2], [0, 4, 3]]) == pytest.approx(apart)


def test_a_longer_memory_pays_where_the_text_has_one() -> None:
    # A symbol is the sum of the two before it, modulo 4, but for one in five drawn at random:
    # knowing both costs 0.59 nats, knowing one nearly ln 4 = 1.39.
    rng = np.random.default_rng(0)

    def draw() -> list[int]:
        sequence = [1, 2]
        while len(sequence) < 30:
            both = (sequence[-1] + sequence[-2]) % 4
            sequence.append(int(rng.integers(4)) if rng.random() < 0.2 else both)
        return [BEGIN, *(1 + symbol for symbol in sequence)]

    train, heldout = [draw() for _ in range(500)], [draw() for _ in range(50)]
    short, long = (NGram(train, order, SYMBOLS).nats(heldout).mean() for order in (2, 3))
    assert long < 0.7
    assert short > 1.2
