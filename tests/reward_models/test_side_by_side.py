"""Side by side: results in their order, the caller's settings in each piece, errors as they are."""

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from reward_models import side_by_side as module
from reward_models.side_by_side import cut, side_by_side, workers


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_pieces_are_done_at_the_same_time_and_given_in_their_order() -> None:
    all_there = threading.Barrier(3, timeout=30)  # breaks unless three of them are at work

    def work(piece: int) -> tuple[int, int]:
        all_there.wait()
        return piece * piece, torch.get_num_threads()

    assert list(side_by_side(work, range(6), 3)) == [(piece * piece, 1) for piece in range(6)]
    assert torch.get_num_threads() == 3


def test_alone_a_piece_has_all_threads_and_the_callers_own() -> None:
    found = list(
        side_by_side(lambda _: (threading.get_ident(), torch.get_num_threads()), [1, 2], 1)
    )
    assert found == [(threading.get_ident(), 3)] * 2


@pytest.mark.parametrize("at_once", [1, 3])
def test_pieces_are_done_with_the_callers_gradients_and_precision(at_once: int) -> None:
    weight = torch.ones(4, 4, requires_grad=True)

    def work(_: int) -> tuple[bool, torch.dtype]:
        product = weight @ weight
        return product.requires_grad, product.dtype

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert set(side_by_side(work, range(4), at_once)) == {(False, torch.bfloat16)}
    assert set(side_by_side(work, range(4), at_once)) == {(True, torch.float32)}


@pytest.mark.parametrize("at_once", [1, 3])
def test_an_error_in_a_piece_is_the_callers(at_once: int) -> None:
    def work(piece: int) -> int:
        if piece == 2:
            raise MemoryError("of piece 2")
        return piece

    results = side_by_side(work, range(9), at_once)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(MemoryError, match="of piece 2"):
        next(results)
    assert torch.get_num_threads() == 3


def test_only_small_models_on_a_cpu_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers(nn.Linear(4, 4)) == 3
    assert workers(nn.Linear(4, 4, device="meta")) == 1  # as on a GPU
    monkeypatch.setattr(module, "SMALL", 19)
    assert workers(nn.Linear(4, 4)) == 1


@pytest.mark.parametrize(("kind", "many"), [("default", 3), ("dynamic", 1)])
def test_a_model_that_changes_in_its_forward_pass_is_asked_one_thing_at_a_time(
    kind: str, many: int
) -> None:
    factor = {"factor": 2.0} if kind == "dynamic" else {}
    rope = {"rope_type": kind, "rope_theta": 10_000.0} | factor
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, rope_parameters=rope,
    )  # fmt: skip
    assert workers(LlamaForCausalLM(config)) == many


def test_a_model_that_keeps_its_states_in_itself_is_asked_one_thing_at_a_time() -> None:
    config = RecurrentGemmaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, lru_width=8,
    )  # fmt: skip
    assert workers(RecurrentGemmaForCausalLM(config)) == 1
    assert workers(nn.ModuleList([nn.Linear(4, 4), RecurrentGemmaForCausalLM(config)])) == 1


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 6))
def test_pieces_at_work_together_hold_no_more_rows_than_fit(
    count: int, size: int, many: int
) -> None:
    pieces, at_once = cut(torch.arange(count), size, many)
    assert torch.cat(pieces).tolist() == list(range(count))
    assert 1 <= at_once <= many
    lengths = sorted((len(piece) for piece in pieces), reverse=True)
    assert sum(lengths[:at_once]) <= size
    assert len(pieces) >= min(many, count, size)  # as many as are wanted, where there are rows


def test_results_do_not_pile_up_before_a_caller_who_is_slower() -> None:
    begun: list[int] = []
    results = side_by_side(lambda piece: begun.append(piece) or piece, range(30), 3)
    for taken, result in enumerate(results, start=1):
        assert result == taken - 1
        assert len(begun) <= taken + 3
