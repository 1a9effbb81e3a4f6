"""Out of memory: less at once, the same result."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lab import checkpoint
from rl_lab.errors import UserError
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.memory import AtOnce, ran_out
from rl_lab.rlhf.policy import Policy
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.sampling import sample
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer
from rl_lab.run import Run
from tests.rlhf.conftest import Tiny, torch_threads
from tests.rlhf.interruptions import Killed, events, kill_after_snapshot, timeless
from tests.rlhf.test_train_ppo import newest, trained

ON_A_CPU = (
    "[enforce fail at alloc_cpu.cpp:120] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
)


class Small(Tiny):
    """A machine with too little memory."""

    too_much: Callable[[int], bool] = staticmethod(lambda rows: rows > 3)
    error: BaseException = torch.OutOfMemoryError("CUDA out of memory.")

    def policy(self, ppo: PPO) -> Policy:
        policy = super().policy(ppo)

        def allocate(module: Any, _: Any, inputs: dict[str, Any]) -> None:
            if self.too_much(len(inputs["input_ids"])):
                raise self.error

        policy.model.register_forward_pre_hook(allocate, with_kwargs=True)
        return policy


def policy_of(run: Run) -> torch.Tensor:
    return trained(newest(run).tensors["policy"])


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(ON_A_CPU), MemoryError()],
    ids=["gpu", "cpu", "python"],
)
def test_it_goes_on_with_what_fits(tiny: Tiny, tmp_path: Path, error: BaseException) -> None:
    small = Small(tmp_path)
    small.error = error
    _, run, records = small.train(small.settings(micro_batch=8), "small")
    _, fitting, others = tiny.train(tiny.settings(micro_batch=2), "fitting")
    torch.testing.assert_close(policy_of(run), policy_of(fitting), atol=1e-6, rtol=0)
    assert len(timeless(records)) == len(timeless(others))
    said = events(records, "memory")
    assert [text.partition(",")[0] for text in said] == [
        "out of memory with 8 responses sampled at once; from now on it is 4",
        "out of memory with 4 responses sampled at once; from now on it is 2",
        "out of memory with 8 responses computed at once; from now on it is 4",
        "out of memory with 4 responses computed at once; from now on it is 2",
    ]


def test_threads_together_take_no_more_than_fits(tiny: Tiny, tmp_path: Path) -> None:
    small, lock = Small(tmp_path), threading.Lock()
    inside = 0

    def policy_of_two(ppo: PPO) -> Policy:
        policy = Tiny.policy(small, ppo)

        def enter(_: Any, __: Any, inputs: dict[str, Any]) -> None:
            nonlocal inside
            with lock:
                inside += len(inputs["input_ids"])
                too_many = inside > 2
            if too_many:
                leave(None, (), inputs, None)
                raise small.error

        def leave(_: Any, __: Any, inputs: dict[str, Any], ___: Any) -> None:
            nonlocal inside
            with lock:
                inside -= len(inputs["input_ids"])

        policy.model.register_forward_pre_hook(enter, with_kwargs=True)
        policy.model.register_forward_hook(leave, with_kwargs=True)
        return policy

    small.policy = policy_of_two  # type: ignore[method-assign]
    with torch_threads(4):
        _, run, _ = small.train(small.settings(micro_batch=8, updates=1), "small")
    _, fitting, _ = tiny.train(tiny.settings(micro_batch=2, updates=1), "fitting")
    torch.testing.assert_close(policy_of(run), policy_of(fitting), atol=2e-5, rtol=0)


def test_a_minibatch_begins_again_where_half_of_its_gradient_was_there(
    tiny: Tiny, tmp_path: Path
) -> None:
    small, calls = Small(tmp_path), 0

    def second_micro_batch(rows: int) -> bool:
        nonlocal calls
        calls += torch.is_grad_enabled()
        return torch.is_grad_enabled() and calls == 2

    small.too_much = second_micro_batch
    _, run, records = small.train(small.settings(micro_batch=4, updates=1), "small")
    _, fitting, _ = tiny.train(tiny.settings(micro_batch=2, updates=1), "fitting")
    assert len(events(records, "memory")) == 1
    torch.testing.assert_close(policy_of(run), policy_of(fitting), atol=2e-5, rtol=0)


def test_sampling_begins_again_where_tokens_had_been_drawn(tiny: Tiny, tmp_path: Path) -> None:
    small, calls = Small(tmp_path), 0

    def third_token(rows: int) -> bool:
        nonlocal calls
        calls += rows == 16
        return rows == 16 and calls == 3

    small.too_much = third_token
    _, run, records = small.train(small.settings(updates=1), "small")
    _, fitting, _ = tiny.train(tiny.settings(updates=1), "fitting")
    assert len(events(records, "memory")) == 1
    torch.testing.assert_close(policy_of(run), policy_of(fitting), atol=1e-6, rtol=0)


def test_what_fits_is_remembered_over_a_kill(tmp_path: Path) -> None:
    small = Small(tmp_path)
    ppo = small.settings(micro_batch=8, updates=3)
    _, through, whole = small.train(ppo, "through")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after_snapshot(2, patch)
        small.train(ppo, "cut")
    before = len(events(small.train(ppo, "cut")[2], "memory"))
    assert before == len(events(whole, "memory"))
    cut = Run(tmp_path / "cut")
    assert torch.equal(policy_of(cut), policy_of(through))
    snapshot, _ = checkpoint.latest(cut.checkpoints)
    assert snapshot is not None
    assert snapshot.state["memory"] == {"sampled": 2, "micro_batch": 2}


def test_with_one_response_too_many_it_says_what_to_do(tmp_path: Path) -> None:
    small = Small(tmp_path)
    small.too_much = lambda rows: True
    with pytest.raises(UserError, match="one response at a time; use a shorter"):
        small.train(small.settings())


def test_other_errors_are_not_taken_for_it() -> None:
    def work(rows: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        AtOnce(8, "computed", print).fit(8, work)


def test_a_real_allocation_that_fails_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.float32)
    assert ran_out(caught.value)


@given(
    count=st.integers(1, 9), at_once=st.integers(1, 9), seed=st.integers(0, 99),
    top_k=st.sampled_from([None, 3]),
)  # fmt: skip
@settings(max_examples=25)
def test_sampled_in_parts_responses_are_the_same(
    count: int, at_once: int, seed: int, top_k: int | None
) -> None:
    model = tiny_model(len(tiny_tokenizer()))
    prompts = [[2, *[3 + (row + place) % 3 for place in range(row % 4)]] for row in range(count)]
    sampling = Sampling(6, (1,), (0, 2), top_k=top_k)
    whole_random, parts_random = (torch.Generator().manual_seed(seed) for _ in range(2))
    whole = sample(model, prompts, sampling, 0, whole_random)
    parts = sample(model, prompts, sampling, 0, parts_random, at_once)
    for name in ("prompts", "prompt_mask", "tokens", "mask", "terminated"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    torch.testing.assert_close(whole.log_probs, parts.log_probs)
    assert torch.equal(whole_random.get_state(), parts_random.get_state())
    if top_k is not None:
        assert whole.allowed is not None
        assert parts.allowed is not None
        assert torch.equal(whole.allowed[whole.mask], parts.allowed[whole.mask])
