"""PPO cut short at any moment goes on to the same bits."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from rl_lab import checkpoint
from rl_lab.rlhf.tiny import tiny_model
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest
from tests.rlhf.conftest import Tiny
from tests.rlhf.interruptions import (
    Killed,
    ask,
    at_step,
    damage,
    events,
    kill,
    kill_after_snapshot,
    timeless,
)
from tests.rlhf.test_train_ppo import newest, trained, weights

STEPS = 4
"""Optimiser steps an update."""


def assert_same(one: Run, other: Run) -> None:
    tensors = [newest(run).tensors for run in (one, other)]
    for name in tensors[0]:
        for key, tensor in tensors[0][name].items():
            assert torch.equal(tensor, tensors[1][name][key]), key
    assert (one.path / "samples.jsonl").read_bytes() == (other.path / "samples.jsonl").read_bytes()
    assert one.status["best"] == other.status["best"]


@pytest.mark.parametrize(
    ("moment", "changes"),
    [
        ("killed", {}),
        ("killed after a snapshot", {}),
        ("stopped", {}),
        ("stopped", {"lora": {"rank": 2}}),
        ("stopped", {"critic": {"kind": "separate"}}),
        ("stopped", {"critic": {"kind": "separate", "head_only": True}}),
        ("stopped", {"kl": {"target": 0.5, "adaptation": 1.0}, "scores": {"normalize": True}}),
        ("stopped", {"refresh_reference": 1}),
        ("stopped", {"token_bias": {}}),
    ],
    ids=["killed", "killed after a snapshot", "stopped", "lora", "separate critic",
         "frozen critic", "adaptive", "refreshed reference", "token bias"],
)  # fmt: skip
def test_it_goes_on_to_the_same_bits(
    tiny: Tiny, moment: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "token_bias" in changes:  # whose output layer was the embedding before
        of_words = tiny_model(6)
        of_words.config.tie_word_embeddings = True
        of_words.tie_weights()
        monkeypatch.setattr("tests.rlhf.conftest.tiny_model", lambda _: copy.deepcopy(of_words))
    ppo = tiny.settings(updates=5, checkpoint_every=2, **changes)
    start = trained(tiny.policy(ppo).trained_tensors())
    through, whole, lines = tiny.train(ppo, "through")
    stop = StopRequest()
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        if moment == "killed after a snapshot":
            kill_after_snapshot(1, patch)
        else:
            do = ask(stop) if moment == "stopped" else kill
            stack.enter_context(at_step(2 * STEPS + 2, do))  # half way through the third update
        with pytest.raises((Killed, Stopped)):
            tiny.train(ppo, "cut", stop=stop)
    cut, run, records = tiny.train(ppo, "cut")
    at = 3 if moment == "stopped" else 2
    assert events(records, "resumed") == [f"from update {at}"]
    assert timeless(records) == timeless(lines)
    assert torch.equal(weights(through), weights(cut))
    assert_same(whole, run)
    assert (trained(newest(run).tensors["policy"]) - start).abs().max() > 1e-4


def test_stopped_before_its_first_update_it_looks_once(tiny: Tiny) -> None:
    ppo = tiny.settings()
    _, whole, lines = tiny.train(ppo, "through")
    stop = StopRequest()
    stop.signal = 2
    with pytest.raises(Stopped):
        tiny.train(ppo, "cut", stop=stop)
    _, run, records = tiny.train(ppo, "cut")
    assert timeless(records) == timeless(lines)
    assert_same(whole, run)


def test_a_damaged_snapshot_is_passed_over(tiny: Tiny, tmp_path: Path) -> None:
    ppo = tiny.settings(updates=4)
    _, whole, lines = tiny.train(ppo, "through")
    with at_step(3 * STEPS + 1, kill), pytest.raises(Killed):
        tiny.train(ppo, "cut")
    snapshots = Run(tmp_path / "cut").checkpoints
    assert checkpoint.steps(snapshots) == [2, 3]
    damage(snapshots / f"{3:012d}")
    _, run, records = tiny.train(ppo, "cut")
    assert events(records, "resumed") == ["from update 2"]
    assert "SHA-256 differs" in events(records, "note")[0]
    assert timeless(records) == timeless(lines)
    assert_same(whole, run)
