"""Sampling: what is drawn follows the distribution that training is told it was drawn from."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.rlhf import sampling as sampling_module
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.sampling import Chances, Responses, draw, left_pad, sample
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


def test_the_output_layer_is_given_states_without_gaps() -> None:
    """For states with gaps torch may copy the layer's weights once for each row."""
    model = tiny_model(len(tiny_tokenizer()))
    given_states = []
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, states: given_states.append(states[0])
    )
    sample(model, [[2, 4, 5]] * 3, Sampling(2, (1,), (0, 2)), 0, torch.Generator())
    assert given_states[0].shape[:2] == (3, 1)
    assert all(states.is_contiguous() for states in given_states)


def test_numbers_are_those_of_their_step_in_whatever_order_they_are_asked_for() -> None:
    rows = torch.arange(5)
    alone = Chances(5, torch.Generator().manual_seed(0))
    wanted = [alone.at(step, rows) for step in range(200)]
    together, all_there = Chances(5, torch.Generator().manual_seed(0)), threading.Barrier(8)

    def ask(_: int) -> bool:
        all_there.wait()
        return all(torch.equal(together.at(step, rows), wanted[step]) for step in range(200))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


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


def test_what_is_finished_leaves_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(len(tokenizer))
    computed = []
    model.register_forward_pre_hook(
        lambda _, __, given: computed.append(len(given["input_ids"])), with_kwargs=True
    )
    prompts = [[2, 4], [2, 4, 5, 3, 3]] * 16

    def sampled(stay: float) -> Responses:
        monkeypatch.setattr(sampling_module, "STAY", stay)
        computed.clear()
        sampling = Sampling(12, (1,), (0, 2), top_p=0.99)
        return sample(model, prompts, sampling, 0, torch.Generator().manual_seed(0))

    apart = sampled(stay=0.0)
    assert set(computed) == {32}
    together = sampled(stay=1.0)
    assert computed[0] == 32
    assert computed[-1] == int(together.mask[:, -1].sum()) < 32
    for name in ("tokens", "mask", "terminated", "allowed"):
        # Beyond a response's end nothing was drawn, so nothing was cut off either.
        one, other = (getattr(responses, name) for responses in (apart, together))
        if name == "allowed":
            one, other = one[apart.mask], other[together.mask]
        assert torch.equal(one, other)
    torch.testing.assert_close(apart.log_probs, together.log_probs)


def test_of_attention_beside_states_of_a_fixed_size_nothing_leaves() -> None:
    from transformers import FalconH1Config, FalconH1ForCausalLM

    config = FalconH1Config(
        vocab_size=9, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4,
        mamba_d_state=4, mamba_d_head=8, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model, ends = FalconH1ForCausalLM(config).eval(), Sampling(12, stop_ids=(1, 2, 3, 4))
    with torch.no_grad():
        responses = sample(model, [[5, 6]] * 12, ends, 0, torch.Generator().manual_seed(0))
    assert len(responses.mask.sum(1).unique()) > 2  # many had gone before the last
