"""Snapshots: read back bit for bit, refused when any file is not as written."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_lab import checkpoint
from rl_lab.checkpoint import CheckpointError, Snapshot
from rl_lab.files import recover


def snapshot(step: int = 7) -> Snapshot:
    shared = torch.arange(6.0)
    return Snapshot(
        step=step,
        tensors={"policy": {"a": shared.view(2, 3), "b": shared, "c": torch.ones(3, 2).T}},
        arrays={"moments": {"mean": np.array([1.0, 2.0]), "count": np.array(3)}},
        state={"counters": {"steps": step}},
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, snapshot())
    loaded = checkpoint.load(path)
    assert loaded.step == 7
    for name, tensor in snapshot().tensors["policy"].items():
        assert torch.equal(loaded.tensors["policy"][name], tensor)
    assert np.array_equal(loaded.arrays["moments"]["mean"], [1.0, 2.0])
    assert loaded.state == {"counters": {"steps": 7}}


def test_nothing_is_pickled(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, snapshot())
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".npz", ".json"}
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoint.save(tmp_path, Snapshot(8, arrays={"x": {"o": np.array([{}])}}))
    assert [path.name for path in tmp_path.iterdir()] == ["000000000007"]  # and nothing half done


def test_snapshots_are_in_order_and_those_not_kept_are_removed(tmp_path: Path) -> None:
    for step in (100, 3, 20):
        checkpoint.save(tmp_path, snapshot(step))
    assert checkpoint.steps(tmp_path) == [3, 20, 100]
    checkpoint.prune(tmp_path, [100, 3])
    assert checkpoint.steps(tmp_path) == [3, 100]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def replace_by_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_link(file: Path) -> None:
    elsewhere = file.parent.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGE = [
    truncate, flip, grow, empty, Path.unlink, replace_by_directory, replace_by_link,
    replace_by_pipe,
]  # fmt: skip
FILES = ["policy.safetensors", "moments.npz", "counters.json", "manifest.json"]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damage_to_any_file_is_found_and_an_older_snapshot_used(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    checkpoint.save(tmp_path, snapshot(1))
    newest = checkpoint.save(tmp_path, snapshot(2))
    damage(newest / name)
    # A damaged manifest may seem to be damage to a file whose hash it holds.
    with pytest.raises(CheckpointError, match=None if name == "manifest.json" else name):
        checkpoint.load(newest)
    found, passed_over = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == checkpoint.newest_whole(tmp_path) == 1
    assert len(passed_over) == 1


@given(st.data())
def test_a_manifest_with_any_bit_flipped_is_found_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = checkpoint.save(tmp_path_factory.mktemp("s"), snapshot())
    content = bytearray((path / "manifest.json").read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    (path / "manifest.json").write_bytes(content)
    with contextlib.suppress(CheckpointError):
        loaded = checkpoint.load(path)
        assert loaded.step == 7
        assert loaded.state == snapshot().state
        assert set(loaded.tensors) == {"policy"}
        assert set(loaded.arrays) == {"moments"}


def test_a_file_that_cannot_be_read_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, snapshot())

    def refuse(_: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint, "_sha256", refuse)
    found, (sentence,) = checkpoint.latest(tmp_path)
    assert found is None
    assert "cannot be read: Permission denied" in sentence


def test_a_snapshot_under_another_step_is_not_taken_for_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(1)).rename(tmp_path / f"{9:012d}")
    assert checkpoint.latest(tmp_path) == (
        None, [f"{tmp_path / '000000000009'}: manifest.json says that it is step 1"],
    )  # fmt: skip


def test_what_is_not_listed_is_not_read(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, snapshot())
    (path / ".DS_Store").write_bytes(b"\0")
    (path / "more.json").write_text("no json")
    assert checkpoint.load(path).state == snapshot().state


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"step": 7}', '{"step": "7", "sha256": {}}', '{"step": true, "sha256": {}}',
     '{"step": 7, "sha256": []}', "[" * 100_000, " " * 2**21 + '{"step": 7, "sha256": {}}'],
)  # fmt: skip
def test_a_damaged_manifest_is_found(tmp_path: Path, content: str) -> None:
    path = checkpoint.save(tmp_path, snapshot())
    (path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match="manifest"):
        checkpoint.load(path)


def test_a_manifest_cannot_reach_outside_its_directory(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, snapshot())
    (tmp_path / "counters.json").write_bytes((path / "counters.json").read_bytes())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["../counters.json"] = manifest["sha256"]["counters.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside"):
        checkpoint.load(path)


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot())
    changed = snapshot()
    changed.state["counters"] = {"steps": 99}
    checkpoint.save(tmp_path, changed)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000007"]
    assert checkpoint.load(checkpoint.directories(tmp_path)[0]).state == changed.state


def test_no_snapshot_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") == (None, [])


def test_an_optimiser_state_survives_flattening() -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors, structure = checkpoint.flatten(optimizer.state_dict())
    structure = json.loads(json.dumps(structure))
    restored = checkpoint.unflatten(tensors, structure)
    fresh = torch.optim.Adam(layer.parameters(), lr=0.5)
    fresh.load_state_dict(restored)
    assert fresh.param_groups[0]["lr"] == 0.1
    for old, new in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert torch.equal(old["exp_avg"], new["exp_avg"])
        assert torch.equal(old["step"], new["step"])


def test_a_kill_while_a_snapshot_is_replaced_or_removed_leaves_only_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename and removal is, once, the last thing that the process did."""

    class KilledError(BaseException):
        pass

    calls = 0

    def dying(call: Callable[..., Any], at: int) -> Callable[..., Any]:
        def counted(*arguments: Any, **settings: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                raise KilledError
            return call(*arguments, **settings)

        return counted

    state = {"notes": {"value": 1}}
    for at in range(12):
        parent = tmp_path / str(at)
        for step in (1, 2):
            checkpoint.save(parent, Snapshot(step, state=state))
        calls, killed = 0, False
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", dying(Path.rename, at))
            patched.setattr(shutil, "rmtree", dying(shutil.rmtree, at))
            try:
                checkpoint.save(parent, Snapshot(2, state=state))
                checkpoint.save(parent, Snapshot(3, state=state))
                checkpoint.prune(parent, [3])
            except KilledError:
                killed = True
        recover(parent)
        for path in checkpoint.directories(parent):
            checkpoint.verify(path)
        assert checkpoint.steps(parent)[-1] >= 2
        assert {path.name[0] for path in parent.iterdir()} == {"0"}
    assert not killed  # the last round went through
