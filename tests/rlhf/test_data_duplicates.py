"""Near-duplicates are those that a comparison of all pairs finds."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.rlhf.data.duplicates import connected, duplicate_groups, words


def jaccard(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        found = words(text)
        sets.append({tuple(found[at : at + 3]) for at in range(max(1, len(found) - 2))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def partition(groups: list[int]) -> set[frozenset[int]]:
    return {
        frozenset(place for place, group in enumerate(groups) if group == label) for label in groups
    }


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_groups_are_those_of_all_pairs_compared(threshold: float) -> None:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(60):  # families: a text and versions with a word changed, added or cut off
        base = [f"w{number}" for number in rng.integers(0, 200, rng.integers(1, 30))]
        texts.append(" ".join(base))
        for _ in range(rng.integers(0, 4)):
            changed = list(base)
            changed[rng.integers(len(base))] = "other"
            texts += [" ".join(changed), " ".join([*base, "more"]), " ".join(base[1:])]
    expected = connected(
        [
            [place, *((a, b) for a, b in close if place in (a, b))]
            for close in [[
                (a, b) for a, b in combinations(range(len(texts)), 2)
                if jaccard(texts[a], texts[b]) >= threshold
            ]]
            for place in range(len(texts))
        ]
    )  # fmt: skip
    assert len(set(expected)) < len(texts)
    assert partition(duplicate_groups(texts, threshold)) == partition(expected)


def test_case_and_punctuation_make_no_difference() -> None:
    texts = ["Avoid it.", "something else entirely", "AVOID IT!!!", "** / **", "** / **", "***"]
    assert duplicate_groups(texts, 1) == [0, 1, 0, 3, 3, 5]
    assert duplicate_groups(texts, 0.8) == [0, 1, 0, 3, 3, 5]


@given(st.lists(st.text(max_size=20)))
def test_any_texts_are_grouped_under_the_first_of_each_group(texts: list[str]) -> None:
    groups = duplicate_groups(texts, 0.8)
    assert len(groups) == len(texts)
    assert all(groups[group] == group <= place for place, group in enumerate(groups))
    assert all(
        groups[a] == groups[b]
        for a, b in combinations(range(len(texts)), 2)
        if texts[a] == texts[b]
    )


def test_connected_goes_through_other_rows() -> None:
    assert connected([["a"], ["b"], ["c", "b"], ["a", "d"], ["d", "c"], ["e"], []]) == [
        0, 0, 0, 0, 0, 5, 6,
    ]  # fmt: skip
