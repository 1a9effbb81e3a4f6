"""Rules: what they reward, and that any text gets a finite score in [0, 1]."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import REWARD_MODELS, rules


def test_length_window_falls_off_on_both_sides() -> None:
    lengths = [0, 3, 5, 40, 45, 200]
    scores = rules.length_window([""] * 6, ["word " * n for n in lengths])
    assert scores[2] == scores[3] == 1.0
    assert 0 < scores[0] < scores[1] < 1
    assert 0 <= scores[5] < scores[4] < 1


def test_repetition_costs() -> None:
    scores = rules.distinct_bigrams([""] * 3, ["funny, funny, funny, funny", "a b c d", "one"])
    assert scores == [pytest.approx(1 / 3), 1.0, 1.0]


def test_sentence_ends() -> None:
    completions = ["It works.", 'He said "no!" ', "and then the", ""]
    assert rules.ends_sentence([""] * 4, completions) == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", REWARD_MODELS)
@given(texts=st.lists(st.text(), max_size=5))
def test_any_text_gets_a_score(name: str, texts: list[str]) -> None:
    scores = REWARD_MODELS[name]([""] * len(texts), texts)
    assert len(scores) == len(texts)
    assert all(0 <= score <= 1 for score in scores)
