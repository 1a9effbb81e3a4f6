"""Snapshots: read back bit for bit, refused when any file is not as written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rl_lab import checkpoint
from rl_lab.checkpoint import CheckpointError, Snapshot


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


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("name", ["policy.safetensors", "moments.npz", "counters.json"])
def test_damage_to_any_file_is_found_and_an_older_snapshot_used(
    tmp_path: Path, name: str, damage: str
) -> None:
    checkpoint.save(tmp_path, snapshot(1))
    newest = checkpoint.save(tmp_path, snapshot(2))
    content = bytearray((newest / name).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        (newest / name).write_bytes(content)
    elif damage == "truncate":
        (newest / name).write_bytes(content[:-1])
    else:
        (newest / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(newest)
    found, passed_over = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(passed_over) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 1}', '{"step": "1", "sha256": {}}'])
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


def test_a_link_is_no_part_of_a_snapshot(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, snapshot())
    (path / "counters.json").rename(tmp_path / "elsewhere.json")
    (path / "counters.json").symlink_to(tmp_path / "elsewhere.json")
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
