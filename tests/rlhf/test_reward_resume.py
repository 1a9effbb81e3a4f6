"""The reward stage cut short at any moment goes on to the same bits."""

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl_lab import checkpoint
from rl_lab.errors import UserError
from rl_lab.metrics import MetricLog, read_metrics
from rl_lab.rlhf.jsonl import write_jsonl
from rl_lab.rlhf.recipe import Reward
from rl_lab.rlhf.train_reward import train_reward
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest
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
from tests.rlhf.test_train_reward import make_pairs, save_base

STEPS = 42
"""Of a member."""
EVERY = 7
"""Steps between snapshots."""
SETTINGS: dict[str, Any] = {
    "epochs": 3, "batch": 8, "learning_rate": 5e-3, "max_tokens": 16, "checkpoint_every": EVERY,
    "reading": "causal",
}  # fmt: skip
"""Of 112 pairs (14 batches an epoch): a line in the log every second step."""


Through = Callable[[int], Path]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_jsonl(path / "pairs-train.jsonl", make_pairs(60, seed=0)[:112])
    write_jsonl(path / "pairs-heldout.jsonl", make_pairs(20, seed=1))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout, which draws from torch's global random numbers."""
    path = tmp_path_factory.mktemp("base")
    save_base(path, attention_dropout=0.2)
    return path


@pytest.fixture(scope="module")
def through(data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Through:
    """A stage of so many members that nothing interrupted."""

    @functools.cache
    def run(members: int) -> Path:
        path = tmp_path_factory.mktemp("through")
        train(path, data, base, members)
        return path

    return run


def train(
    path: Path, data: Path, base: Path, members: int = 1, stop: StopRequest | None = None
) -> None:
    path.mkdir(exist_ok=True)
    run = Run(path)
    with MetricLog(run.metrics_file) as log:
        train_reward(Reward(members=members, **SETTINGS), data, base, run, log,
                     stop or StopRequest(), seed=0, device="cpu")  # fmt: skip


def assert_same(one: Path, other: Path, members: int) -> None:
    for member in range(members):
        files = sorted(path.name for path in (one / "members" / str(member)).iterdir())
        assert "model.safetensors" in files
        assert files == sorted(path.name for path in (other / "members" / str(member)).iterdir())
        for name in files:
            place = Path("members") / str(member) / name
            assert (one / place).read_bytes() == (other / place).read_bytes(), place
    assert len(list((other / "members").iterdir())) == members
    lines = [timeless(read_metrics(path / "metrics.jsonl")) for path in (one, other)]
    assert lines[0] == lines[1]
    assert len(lines[0]) > STEPS // 2 * members
    assert (one / "report.json").read_bytes() == (other / "report.json").read_bytes()
    pickles = [path for kind in ("*.pt", "*.pth", "*.bin") for path in other.rglob(kind)]
    assert not pickles


@pytest.mark.parametrize(
    ("moment", "members", "at"),
    [
        ("stopped", 1, 9),
        ("killed", 1, 9),
        ("killed after a snapshot", 2, 30),
        ("stopped", 2, STEPS + 25),
        ("killed", 2, STEPS + 25),
    ],
)
def test_it_goes_on_to_the_same_bits(
    tmp_path: Path, data: Path, base: Path, through: Through, moment: str, members: int, at: int
) -> None:
    """In the first epoch, in the third, from the end of the second; in both members."""
    cut, stop = tmp_path / "cut", StopRequest()
    number, step = divmod(at, STEPS)
    before = number * STEPS + step // EVERY * EVERY  # the snapshot before
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        if moment == "killed after a snapshot":
            kill_after_snapshot(number * (STEPS // EVERY - 1) + step // EVERY, patch)
        else:
            stack.enter_context(at_step(at, ask(stop) if moment == "stopped" else kill))
        with pytest.raises((Killed, Stopped)):
            train(cut, data, base, members, stop)
    kept = at if moment == "stopped" else before
    assert checkpoint.steps(Run(cut).checkpoints)[-1] == kept
    finished = sorted(cut.glob("members/*"))
    assert len(finished) == number
    times = [path.stat().st_mtime_ns for path in finished]
    train(cut, data, base, members)
    assert [path.stat().st_mtime_ns for path in finished] == times
    assert events(read_metrics(cut / "metrics.jsonl"), "resumed") == [f"from step {kept}"]
    assert_same(through(members), cut, members)


def test_stopped_at_a_members_last_step_it_goes_on_with_the_next(
    tmp_path: Path, data: Path, base: Path, through: Through
) -> None:
    stop, cut = StopRequest(), tmp_path / "cut"
    with at_step(STEPS, ask(stop)), pytest.raises(Stopped):
        train(cut, data, base, 2, stop)
    assert len(list(cut.glob("members/*"))) == 1
    train(cut, data, base, 2)
    assert_same(through(2), cut, 2)


def test_killed_while_a_member_is_saved_it_is_trained_again_from_its_snapshot(
    tmp_path: Path, data: Path, base: Path, through: Through
) -> None:
    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained",
                      lambda *_, **__: kill())  # fmt: skip
        train(cut, data, base)
    assert not (cut / "members" / "0").exists()
    train(cut, data, base)
    assert_same(through(1), cut, 1)


@pytest.mark.parametrize("lines", [1, 2])
def test_killed_while_its_judgement_is_logged_no_line_is_there_twice(
    tmp_path: Path, data: Path, base: Path, through: Through, lines: int
) -> None:
    cut = tmp_path / "cut"
    log_line, logged = MetricLog.log, 0

    def log_then_die(self: MetricLog, step: int, numbers: dict[str, float]) -> None:
        nonlocal logged
        judged = any(name.startswith("eval/") for name in numbers)
        if judged and logged == lines:
            raise Killed
        logged += judged
        log_line(self, step, numbers)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MetricLog, "log", log_then_die)
        train(cut, data, base, 2)
    train(cut, data, base, 2)
    assert_same(through(2), cut, 2)


def test_a_damaged_snapshot_is_passed_over(
    tmp_path: Path, data: Path, base: Path, through: Through
) -> None:
    cut = tmp_path / "cut"
    with at_step(24, kill), pytest.raises(Killed):
        train(cut, data, base)
    damage(Run(cut).checkpoints / f"{21:012d}")
    train(cut, data, base)
    records = read_metrics(cut / "metrics.jsonl")
    assert events(records, "resumed") == ["from step 14"]
    assert "SHA-256 differs" in events(records, "note")[0]
    assert_same(through(1), cut, 1)


def test_no_pickle_is_read(tmp_path: Path, data: Path, base: Path) -> None:
    """What lies beside a snapshot, made by somebody else, is not opened."""
    cut = tmp_path / "cut"
    with at_step(10, kill), pytest.raises(Killed):
        train(cut, data, base)
    snapshot = Run(cut).checkpoints / f"{7:012d}"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt",
                 "training_args.bin", "pytorch_model.bin"):  # fmt: skip
        (snapshot / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.load", lambda *_, **__: pytest.fail("a pickle was read"))
        train(cut, data, base)
    assert json.loads((cut / "report.json").read_text())


def test_a_gradient_that_is_no_number_is_not_learned_from(
    data: Path, base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wild"
    wild = Reward(**SETTINGS | {"members": 1, "learning_rate": 1e8, "checkpoint_every": 1})
    run = Run(path)
    path.mkdir()
    run.metrics_file.touch()
    with (
        MetricLog(run.metrics_file) as log,
        pytest.raises(UserError, match=r"lower reward\.learning_rate"),
    ):
        train_reward(wild, data, base, run, log, StopRequest(), seed=0, device="cpu")
    assert not (path / "members" / "0").exists()
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    assert all(tensor.isfinite().all() for tensor in snapshot.tensors["model"].values())
