"""Reward terms: summed by weight, found by name, refused with a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.errors import UserError
from rl_lab.rlhf.ppo_recipe import PPO, RewardTerm
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.reward_functions import function_of
from rl_lab.rlhf.rewards import Rewards, RunningMoments, Term, build

PROMPTS = [Prompt("one", [1]), Prompt("two", [2])]


def test_terms_are_weighted_summed_and_kept_apart() -> None:
    rewards = Rewards(
        {
            "length": Term(lambda prompts, texts: [len(text) for text in texts], weight=0.5),
            "asked": Term(lambda prompts, texts: [len(prompt) for prompt in prompts], weight=-1),
            "each": Term(
                lambda p, c, tokens: [[1.0] * len(t) for t in tokens], 2.0, per_token=True
            ),
        }
    )
    scored = rewards(PROMPTS, ["aaaa", ""], [["a", "b"], ["<eos>"]])
    assert scored.terms["length"].tolist() == [4, 0]
    assert scored.terms["each"].tolist() == [2, 1]
    assert scored.total.tolist() == [4 * 0.5 - 3 + 2 * 2, -3 + 2 * 1]
    assert scored.of_tokens.tolist() == [[2, 2], [2, 0]]
    assert scored.at_end.tolist() == [-1, -3]


def test_where_tokens_earn_everything_nothing_is_left_for_the_end() -> None:
    # Sums of 0.1 round: a difference of two of them would be noise, and normalised a reward.
    each = Term(lambda p, c, tokens: [[0.1] * len(t) for t in tokens], 0.3, per_token=True)
    scored = Rewards({"each": each})(PROMPTS, ["", ""], [["a"] * 17, ["a"] * 5])
    assert scored.at_end.tolist() == [0, 0]
    assert scored.total.tolist() == pytest.approx([0.51, 0.15])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rewards": {"proxy": {"model": "m"}}}, "rewards.proxy: .* give the term another name"),
        ({"rewards": {"score": {"model": "m"}}}, "rewards.score"),
        (
            {
                "rewards": {"t": {"function": "f.py:f", "per_token": True}},
                "scores": {"normalize": True},
            },
            "every reward term here is per_token",
        ),
    ],
)
def test_recipes_whose_rewards_would_not_be_what_they_say(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        PPO(**changes)


@pytest.mark.parametrize(
    "line", ["score = lambda prompts, completions: [1.0, 2.0]", "from math import dist as score"]
)
def test_a_function_may_be_assigned_or_imported(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.py").write_text(f"{line}\n")
    function_of(f"{tmp_path / 'mine.py'}:score", "key")


def test_what_is_no_function_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("score = 3\n")
    with pytest.raises(UserError, match=r"'score' of .* is no function"):
        function_of(f"{tmp_path / 'mine.py'}:score", "key")


def test_a_file_gives_its_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(prompts, completions):\n    return [1.0] * len(completions)\n")
    rewards = build({"mine": RewardTerm(function=f"{file}:score")}, None, "cpu", False)
    assert rewards(PROMPTS, ["a", "b"], [["a"], ["b"]]).total.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lenght-window", "did you mean 'length-window'"),
        ("missing.py:f", "there is no file 'missing.py'"),
        ("os:system", "neither a rule"),
    ],
)
def test_no_such_function(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        function_of(name, "ppo.rewards.r.function")


def test_a_file_without_the_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("x = 1\n")
    with pytest.raises(UserError, match="has no function 'score'"):
        function_of(f"{file}:score", "key")


def test_an_error_in_the_file_is_a_sentence_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def score(prompts, completions):\n    return [1 / 0]\n")
    score = function_of("mine.py:score", "ppo.rewards.r.function")
    with pytest.raises(UserError, match=r"r\.function: mine\.py, line 2: ZeroDivisionError: div"):
        score(["a"], ["b"])
    Path("other.py").write_text("import nowhere\n\ndef score(prompts, completions): ...\n")
    with pytest.raises(UserError, match=r"other\.py, line 1: ModuleNotFoundError"):
        function_of("other.py:score", "ppo.rewards.r.function")


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ppo\.rewards\.r\.model"):
        build({"r": RewardTerm(model=str(tmp_path))}, None, "cpu", False)


@given(st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=8), min_size=1, max_size=8))
def test_running_moments_are_those_of_all_numbers(batches: list[list[float]]) -> None:
    moments = RunningMoments()
    for batch in batches:
        moments.add(torch.tensor(batch, dtype=torch.float64))
    everything = torch.tensor([x for batch in batches for x in batch], dtype=torch.float64)
    assert moments.mean == pytest.approx(everything.mean().item(), abs=1e-9)
    std = everything.std(correction=0).item()
    assert moments.std == pytest.approx(std if moments.squares > 0 else 1, rel=1e-6, abs=1e-6)
