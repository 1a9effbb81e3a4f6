"""Best-of-n against brute force, diversity by hand, gains and win rates of known scores."""

import itertools
import math

import numpy as np
import pytest

from rl_lab.rlhf import evaluate
from rl_lab.rlhf.best_of_n import expected_best, kl_bound
from rl_lab.rlhf.diversity import distinct, repetition


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_expected_best_is_the_mean_over_every_choice(n: int) -> None:
    random = np.random.default_rng(0)
    proxy, gold = random.normal(size=(4, 5)), random.normal(size=(4, 5))
    known = [
        np.mean([gold[row, max(chosen, key=lambda i: proxy[row, i])]
                 for chosen in itertools.combinations(range(5), n)])
        for row in range(4)
    ]  # fmt: skip
    assert expected_best(proxy, gold, n) == pytest.approx(known)


def test_kl_of_best_of_n() -> None:
    """Sampling uniformly from [0, 1], best-of-n has density n x^(n-1): its KL in closed form."""
    assert kl_bound(1) == 0
    for n in (2, 4, 16):
        x = (np.arange(100_000) + 0.5) / 100_000
        density = n * x ** (n - 1)
        assert kl_bound(n) == pytest.approx(np.mean(density * np.log(density)), abs=1e-3)
    assert kl_bound(64) == pytest.approx(math.log(64) - 63 / 64)


def test_distinct_and_repetition() -> None:
    assert distinct(["a b c", "a b d"], 2) == 3 / 4
    assert distinct(["A b", "a B"], 1) == 2 / 4
    assert distinct([""], 2) == 1
    assert repetition(["a b a b a", "a b c"]) == pytest.approx((0.5 + 0) / 2)


def test_gain_is_in_sds_of_the_reference_and_win_rate_counts_ties_half() -> None:
    reference = np.array([0.0, 1.0, 2.0, 3.0])
    gain = evaluate._gain(reference + 0.5, reference)
    assert gain["sd"] == pytest.approx(0.5 / reference.std())
    win = evaluate._win_rate(reference + np.array([1, 1, -1, 0]), reference)
    assert win["mean"] == pytest.approx(2.5 / 4)
    assert evaluate._gain(np.ones(4), np.ones(4))["sd"] == 0
