"""Sampling: what is drawn follows the distribution that training is told it was drawn from."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.rlhf.sampling import (
    Sampling,
    draw,
    left_pad,
    log_distribution,
    sample,
    truncation,
)
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer


def test_draws_follow_the_probabilities() -> None:
    random = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(40_000, -1)
    drawn = draw(probabilities, torch.rand(40_000, 1, generator=random))[:, 0]
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert shares[1] == 0
    torch.testing.assert_close(shares, probabilities[0], atol=0.01, rtol=0)


@given(st.integers(0, 10_000), st.integers(2, 300))
def test_what_has_no_probability_is_never_drawn(seed: int, size: int) -> None:
    random = torch.Generator().manual_seed(seed)
    possible = torch.rand(64, size, generator=random) < 0.3
    possible[:, seed % size] = True
    probabilities = torch.where(possible, torch.rand(64, size, generator=random) + 1e-6, 0)
    chance = torch.rand(64, 1, generator=random)
    drawn = draw(probabilities / probabilities.sum(-1, keepdim=True), chance)
    assert probabilities.gather(1, drawn).min() > 0


def test_temperature_and_bans_are_part_of_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 5.0])
    found = log_distribution(logits, Sampling(1, (1,), banned_ids=(2,), temperature=0.5))
    assert found.exp().tolist() == pytest.approx([1 / (1 + math.e**2), 1 / (1 + math.e**-2), 0])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 1}, [False, True, False, False]),
        ({"top_k": 2}, [False, True, True, False]),
        ({"top_k": 9}, [True] * 4),
        ({"top_p": 0.5}, [False, True, False, False]),
        ({"top_p": 0.51}, [False, True, True, False]),
        ({"top_p": 1.0}, [True] * 4),
        ({"top_k": 3, "top_p": 0.99}, [True, True, True, False]),
    ],
)
def test_truncation_keeps_the_likeliest(settings: dict[str, Any], kept: list[bool]) -> None:
    log_probs = torch.tensor([[0.15, 0.5, 0.25, 0.1]]).log()
    assert truncation(log_probs, Sampling(1, (1,), **settings)).tolist() == [kept]


def test_prompts_are_padded_on_the_left() -> None:
    ids, mask = left_pad([[5], [6, 7, 8]], 9)
    assert ids.tolist() == [[9, 9, 5], [6, 7, 8]]
    assert mask.tolist() == [[False, False, True], [True, True, True]]


def test_a_response_ends_with_its_first_end_token_and_keeps_it() -> None:
    tokenizer = tiny_tokenizer()
    stops = (1, 3)
    responses = sample(
        tiny_model(len(tokenizer)), [[2, 4], [2, 4, 5]] * 20, Sampling(3, stops, (0, 2)), 0,
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    ended = 0
    for tokens, mask, terminated in zip(
        responses.tokens.tolist(),
        responses.mask.tolist(),
        responses.terminated.tolist(),
        strict=True,
    ):
        real = [token for token, is_real in zip(tokens, mask, strict=True) if is_real]
        assert mask == sorted(mask, reverse=True)
        assert not set(real[:-1]) & set(stops)
        assert (real[-1] in stops) == terminated
        assert terminated or len(real) == 3
        assert not set(real) & {0, 2}
        ended += terminated
    assert 0 < ended < 40
    assert (responses.log_probs[~responses.mask] == 0).all()


def test_sampled_log_probabilities_are_those_of_truncated_sampling() -> None:
    tokenizer = tiny_tokenizer()
    sampling = Sampling(4, (1,), (0, 2), temperature=0.8, top_k=1)
    responses = sample(
        tiny_model(len(tokenizer)), [[2, 4]], sampling, 0, torch.Generator().manual_seed(0)
    )
    # One token is left at each step, so it was certain.
    assert responses.log_probs.abs().max() < 1e-6
    assert responses.allowed is not None
    assert (responses.allowed.sum(-1) == 1).all()


def test_a_part_of_the_responses_is_cut_to_its_own_size() -> None:
    tokenizer = tiny_tokenizer()
    prompts = [[2, 4], [2, 4, 5, 3, 3]] * 8
    responses = sample(
        tiny_model(len(tokenizer)), prompts, Sampling(8, (1,), (0, 2)), 0,
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    for row in range(len(prompts)):
        part = responses.select(torch.tensor([row]))
        assert part.prompts.tolist() == [prompts[row]]
        assert part.mask.all()
        assert part.tokens.shape[1] == responses.mask[row].sum()
