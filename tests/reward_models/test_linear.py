"""Linear reward models: what they learn, in which unit, and that they come back as they were."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from reward_models.ensemble import load_member
from reward_models.linear import (
    LinearRewardModel,
    LinearText,
    TooFewPiecesError,
    fit_preferences,
)
from reward_models.text import Turn, plain

WORDS = ("good", "bad", "film", "plot", "dull", "fine")
WORTH = np.array([1.0, -1.0, 0.0, 0.0, -0.5, 0.5])


def votes(pairs: int, seed: int) -> tuple[list[str], list[str], np.ndarray]:
    """Pairs of texts of one length, and the chance that the first is preferred."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(WORDS), size=(2, pairs, 4))
    sides = [[" ".join(WORDS[word] for word in text) for text in side] for side in drawn]
    worth = WORTH[drawn].sum(-1)
    return sides[0], sides[1], expit(worth[0] - worth[1])


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_a_difference_of_scores_is_the_log_odds_of_a_vote(kind: str) -> None:
    model = LinearRewardModel(fit_preferences(kind, *votes(4000, seed=0)))
    first, second, chance = votes(500, seed=1)
    nothing = [""] * 500
    predicted = expit((model(nothing, first) - model(nothing, second)).numpy())
    # Tf-idf is of texts' directions, so not quite linear in the counts that people voted by.
    assert np.abs(predicted - chance).mean() < 0.05
    assert ((predicted > 0.5) == (chance > 0.5))[chance != 0.5].mean() > 0.95


def test_people_who_disagree_keep_two_texts_close() -> None:
    def gap(share: float) -> float:
        scores = fit_preferences("words", ["good"] * 50, ["bad"] * 50, [share] * 50).scores
        good, bad = scores(["good", "bad"])
        return float(good - bad)

    assert gap(0.5) == pytest.approx(0, abs=1e-6)
    # The penalty pulls log-odds towards 0, the more the fewer pairs there are.
    assert 0.8 * np.log(0.75 / 0.25) < gap(0.75) < np.log(0.75 / 0.25)
    assert gap(0.25) == pytest.approx(-gap(0.75), abs=1e-4)


def test_the_texts_it_was_fitted_on_score_0_on_average() -> None:
    """As other members' do: else the least of an ensemble would always be one and the same."""
    texts, others, shares = votes(300, seed=0)
    texts = [f"{text} good" for text in texts]  # something that only moves the mean
    scores = fit_preferences("words", texts, others, shares).scores({*texts, *others})
    assert scores.mean() == pytest.approx(0, abs=1e-9)


def test_characters_know_words_that_no_pair_has() -> None:
    model = fit_preferences("characters", ["boring"] * 9 + ["bored"] * 9, ["fine"] * 18, [1.0] * 18)
    unseen, neutral = model.scores(["boredom", "xyz"])
    assert unseen > neutral


def test_prompt_and_completion_are_one_text() -> None:
    model = LinearRewardModel(fit_preferences("words", ["not good"], ["good"], [1.0]))
    whole, parts = model(["", "not"], ["not good", " good"]).tolist()
    assert whole == parts
    assert model([], []).shape == (0,)


def test_a_conversation_is_what_was_said() -> None:
    turn: Turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert plain(turn) + plain("c") == "a\nb\nc"


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_what_is_saved_scores_the_same(kind: str, tmp_path: Path) -> None:
    texts, others, shares = votes(200, seed=0)
    model = fit_preferences(kind, texts, others, shares)
    model.save(tmp_path)
    np.testing.assert_array_equal(LinearText.load(tmp_path).scores(texts), model.scores(texts))
    member = load_member(tmp_path)
    assert isinstance(member, LinearRewardModel)
    assert torch.equal(member([""] * 200, texts), torch.tensor(model.scores(texts)).float())


def test_texts_without_words_are_no_model() -> None:
    with pytest.raises(TooFewPiecesError, match="no words in common"):
        fit_preferences("words", ["!"], ["?"], [1.0])
