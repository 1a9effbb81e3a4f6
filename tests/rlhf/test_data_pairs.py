"""Pairs say what the raters said, and ceilings what chance leaves of it."""

from collections import defaultdict
from itertools import chain

import numpy as np
import pytest

from rl_lab.rlhf.data.ceiling import human_ceiling
from rl_lab.rlhf.data.pairs import (
    Pair,
    block_groups,
    compare,
    heldout_pairs,
    prefix_groups,
    random_groups,
    random_places,
    training_pairs,
)
from rl_lab.rlhf.data.ratings import Rated, split_blocks


def test_raters_of_one_block_vote_in_person() -> None:
    one, other = Rated("one", (2, 1, 0, 3), 7), Rated("other", (1, 1, 1, 0), 7)
    for pair in (compare(one, other), compare(other, one)):
        assert pair is not None
        assert (pair.prompt, pair.chosen, pair.rejected) == ("", "one", "other")
        assert pair.margin == 0.75
        assert pair.share == 0.625  # two votes for, one tie, one against


def test_across_blocks_every_rater_is_set_against_every_other() -> None:
    pair = compare(Rated("one", (2, 1), 0), Rated("other", (1, 0, 0), 1))
    assert pair is not None
    assert pair.margin == pytest.approx(1.5 - 1 / 3, abs=1e-4)
    assert pair.share == pytest.approx((5 + 0.5) / 6, abs=1e-4)  # five of six, and one tie


def test_what_nobody_can_decide_makes_no_pair() -> None:
    assert compare(Rated("one", (1, 1), 0), Rated("other", (2, 0), 0)) is None  # equal means
    # Two of three raters prefer the other, one rater the one by far.
    assert compare(Rated("one", (4, 0, 0), 0), Rated("other", (0, 1, 1), 0)) is None


def test_a_prompt_is_cut_from_both() -> None:
    one, other = Rated("The film is good", (3,), 0), Rated("The film is not", (1,), 1)
    pair = compare(one, other, "The film")
    assert pair is not None
    assert (pair.prompt, pair.chosen, pair.rejected) == ("The film", " is good", " is not")
    assert pair.row() == {
        "prompt": "The film", "chosen": " is good", "rejected": " is not",
        "share": 1.0, "margin": 2.0, "group": None,
    }  # fmt: skip


def simulated(texts: int, raters: int, rng: np.random.Generator) -> list[Rated]:
    """Texts of known quality: ratings are whole numbers around it."""
    quality = rng.normal(0, 1.5, texts)
    ratings = np.clip(np.rint(quality[:, None] + rng.normal(0, 1, (texts, raters))), -4, 4)
    starts = ["The film is", "The film has", "It", "A"]
    return [
        Rated(f"{starts[place % 4]} word{place} again", tuple(map(int, row)), place // 30)
        for place, row in enumerate(ratings)
    ]


def test_training_pairs_are_of_three_kinds_and_none_twice() -> None:
    rng = np.random.default_rng(0)
    rated = simulated(300, 15, rng)
    block = {one.text: one.block for one in rated}
    drawn = training_pairs(rated, 800, rng)
    counts = [len(kind.pairs) for kind in drawn.values()]
    assert 100 <= counts[0] < 128  # whole groups of at most 28 pairs
    assert 100 <= counts[1] < 128
    assert 800 <= sum(counts) < 828
    for pair in drawn["same raters"].pairs:
        assert block[str(pair.chosen)] == block[str(pair.rejected)]
    for pair in drawn["same beginning"].pairs:
        assert pair.prompt in {"The film is", "The film has", "The film"}
        for side in (pair.chosen, pair.rejected):
            assert str(pair.prompt) + str(side) in block
            assert str(side).startswith(" ")
    groups: dict[int | None, list[Pair]] = defaultdict(list)
    for pair in (pair for kind in drawn.values() for pair in kind.pairs):
        assert pair.share is not None
        assert 0.5 < pair.share <= 1
        groups[pair.group].append(pair)
    for pairs in groups.values():
        assert len({pair.prompt for pair in pairs}) == 1
        sides = {frozenset((str(pair.chosen), str(pair.rejected))) for pair in pairs}
        assert len(sides) == len(pairs) <= 28
        assert len(frozenset().union(*sides)) <= 8


def test_few_texts_give_the_pairs_there_are() -> None:
    rated = [Rated("a b c", (1,), 0), Rated("d e f", (2,), 1)]
    assert len(heldout_pairs(rated, 100, np.random.default_rng(0)).pairs) == 1
    assert list(random_places(1, 10, np.random.default_rng(0))) == []
    assert list(block_groups(rated, np.random.default_rng(0))) == []


def test_the_longest_shared_beginning_is_the_prompt() -> None:
    texts = ["a b c d e", "a b c d f", "a b x y z"]
    texts += ["a b p q r"]
    drawn = prefix_groups(texts, np.random.default_rng(0))
    found = {prompt: sorted(group) for group, prompt in drawn}
    assert found == {"a b c d": [0, 1], "a b": [2, 3]}


def test_a_pass_of_random_groups_has_every_text_once() -> None:
    groups = random_groups(20, np.random.default_rng(0))
    first = [next(groups)[0] for _ in range(3)]
    assert sorted(chain.from_iterable(first)) == list(range(20))
    assert next(groups)[0] != first[0]


def test_a_split_keeps_blocks_whole_and_polarities_even() -> None:
    rated = [
        Rated(f"{block} {place}", (1 if block < 40 else -1,), block)
        for block in range(60)
        for place in range(30)
    ]
    train, heldout = split_blocks(rated, 0.25, np.random.default_rng(0))
    assert not {one.block for one in train} & {one.block for one in heldout}
    assert len({one.block for one in heldout if one.mean > 0}) == 10
    assert len({one.block for one in heldout if one.mean < 0}) == 5
    assert len(train) + len(heldout) == len(rated)


def test_ceilings_are_what_fresh_panels_agree_on() -> None:
    """Simulated raters, whose true order is known, agree as often as the ceilings say."""
    rng = np.random.default_rng(0)
    quality = rng.normal(0, 1.5, 1500)
    panel = quality[:, None] + rng.normal(0, 1.5, (1500, 20))
    rated = [Rated("", tuple(row), place // 30) for place, row in enumerate(panel)]
    rows = human_ceiling(rated, rng)
    i, j = rng.integers(0, 1500, (2, 200_000))
    truth, seen = quality[i] - quality[j], panel.mean(axis=1)[i] - panel.mean(axis=1)[j]
    margin = np.abs(seen)
    for row in rows:
        low, high = row["margin"]
        inside = (margin >= low) & (margin < high) & (i != j)
        assert row["full"] == pytest.approx(np.mean(truth[inside] * seen[inside] > 0), abs=0.03)
        assert row["share"] == pytest.approx(inside.mean(), abs=0.01)
    halves = (quality[:, None] + rng.normal(0, 1.5 / np.sqrt(10), (1500, 2))).T
    half_margin = np.abs(halves[1][i] - halves[1][j])
    agreed = (halves[0][i] - halves[0][j]) * (halves[1][i] - halves[1][j]) > 0
    for row in rows:
        low, high = row["margin"]
        inside = (half_margin >= low) & (half_margin < high) & (i != j)
        assert row["half"] == pytest.approx(agreed[inside].mean(), abs=0.03)
