"""Archives from a stranger: only the one member asked for is read, and only so much of it."""

import hashlib
import io
import json
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rl_lab import checkpoint
from rl_lab.arrays import load_npz
from rl_lab.checkpoint import CheckpointError
from rl_lab.errors import UserError
from rl_lab.rlhf.data import downloads
from rl_lab.rlhf.data.downloads import member_of_tar, member_of_zip


def tar_of(*members: tuple[str, bytes, bytes]) -> bytes:
    """A .tar.gz of (name, type, content or link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content.decode()
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, b"/etc/passwd"), (tarfile.SYMTYPE, b"../x"), (tarfile.LNKTYPE, b"other"),
        (tarfile.FIFOTYPE, b""), (tarfile.CHRTYPE, b""), (tarfile.BLKTYPE, b""),
        (tarfile.DIRTYPE, b""),
    ],
)  # fmt: skip
def test_only_a_regular_member_of_a_tar_is_read(kind: bytes, target: bytes) -> None:
    archive = tar_of(("other", tarfile.REGTYPE, b"secret"), ("a", kind, target))
    with pytest.raises(UserError, match="holds no file 'a'"):
        member_of_tar(archive, "a", 1000)


def test_nothing_is_ever_written_and_names_are_only_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    names = ["../escaped", "/tmp/escaped", "a/../../escaped", "..\\escaped"]
    tar = tar_of(*((name, tarfile.REGTYPE, b"x") for name in names), ("a", tarfile.REGTYPE, b"y"))
    packed = zip_of(*((name, b"x") for name in names), ("a", b"y"))
    assert member_of_tar(tar, "a", 10) == b"y"
    assert member_of_zip(packed, "a", 10) == b"y"
    assert [path.name for path in tmp_path.rglob("*")] == ["inside"]


def test_of_two_members_of_one_name_none_or_the_first_is_read() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        packed = zip_of(("a", b"1"), ("a", b"2"))
    with pytest.raises(UserError, match="holds no file"):
        member_of_zip(packed, "a", 10)
    tar = tar_of(("a", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2"))
    assert member_of_tar(tar, "a", 10) == b"1"


@pytest.mark.parametrize("read", [member_of_tar, member_of_zip])
@pytest.mark.parametrize("cut", [0, 1, 20, -9, -1])
def test_a_damaged_archive_is_a_sentence(read: Callable[..., bytes], cut: int) -> None:
    whole = tar_of(("b", tarfile.REGTYPE, bytes(2000))) if read is member_of_tar else zip_of(
        ("b", bytes(2000))
    )  # fmt: skip
    for archive in (whole[:cut], whole[:10] + b"\xff" * 20 + whole[30:], b"\x80\x04."):
        with pytest.raises(UserError, match="the archive"):
            read(archive, "a", 10)


def test_a_zip_bomb_costs_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, tar = zip_of(("a", bytes(200_000_000))), tar_of(
        ("b", tarfile.REGTYPE, bytes(50_000_000)), ("a", tarfile.REGTYPE, b"x")
    )  # fmt: skip
    monkeypatch.setattr(downloads, "MOST_UNPACKED", 1_000_000)
    tracemalloc.start()
    with pytest.raises(UserError, match="at most 1,000 bytes"):
        member_of_zip(packed, "a", 1000)
    with pytest.raises(UserError, match="unpacks to too much"):
        member_of_tar(tar, "a", 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


# --- .npz ----------------------------------------------------------------------------------------


def npy(shape: str, dtype: str = "<f8", content: bytes = b"") -> bytes:
    """An array file whose header says whatever it is told to."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


BAD_NPZ: dict[str, tuple[bytes, str]] = {
    "objects, which are pickled": (objects(), "Python objects"),
    "objects in a field": (
        zip_of(("a.npy", npy("(1,)").replace(b"'<f8'", b"[('x', '|O')]"))),
        "Python objects|header",
    ),
    "10^15 numbers": (zip_of(("a.npy", npy("(1000000000000000,)", content=bytes(8)))), "claims"),
    "a shape that overflows": (zip_of(("a.npy", npy("(4294967296, 4294967296)"))), "claims"),
    "a negative shape": (zip_of(("a.npy", npy("(-1,)", content=bytes(8)))), "claims"),
    "too few numbers": (zip_of(("a.npy", npy("(3,)", content=bytes(8)))), "claims"),
    "too many numbers": (zip_of(("a.npy", npy("(0,)", content=bytes(8)))), "claims"),
    "code for a header": (zip_of(("a.npy", npy("__import__('os').getpid()"))), "malformed"),
    "no array": (zip_of(("a.npy", b"hello, this is text")), "magic"),
    "an empty member": (zip_of(("a.npy", b"")), "magic|EOF|no whole"),
    "a bomb": (zip_of(("a.npy", npy("(25000000,)", content=bytes(200_000_000)))), "would unpack"),
    "no zip": (b"PK\x03\x04 and no more", "no whole archive"),
    "a bare array": (npy("(1,)", content=bytes(8)), "no whole archive"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_a_bad_npz_is_refused_before_it_takes_memory(name: str, tmp_path: Path) -> None:
    content, words = BAD_NPZ[name]
    (tmp_path / "a.npz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=words):
        load_npz(tmp_path / "a.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    # In a checkpoint, by somebody who can hash.
    snapshot = tmp_path / f"{1:012d}"
    snapshot.mkdir()
    (tmp_path / "a.npz").rename(snapshot / "a.npz")
    hashes = {"a.npz": hashlib.sha256(content).hexdigest()}
    (snapshot / "manifest.json").write_text(json.dumps({"step": 1, "sha256": hashes}))
    with pytest.raises(CheckpointError, match=r"a\.npz cannot be read"):
        checkpoint.load(snapshot)


def test_members_of_one_name_are_refused(tmp_path: Path) -> None:
    one = npy("(1,)", content=bytes(8))
    with pytest.warns(UserWarning, match="Duplicate"):
        (tmp_path / "a.npz").write_bytes(zip_of(("a.npy", one), ("a.npy", one)))
    with pytest.raises(ValueError, match="two members have one name"):
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_kind_of_array_comes_back(save: Callable[..., None], tmp_path: Path) -> None:
    arrays = {
        "scalar": np.float64(3.5), "none": np.zeros((0, 3)), "flags": np.array([True, False]),
        "words": np.array(["a", "bc"]), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "uint8": np.arange(200, dtype=np.uint8).reshape(2, 10, 10),
        "time": np.array(["2020-01-01"], dtype="datetime64[s]"),
    }  # fmt: skip
    save(tmp_path / "a.npz", **arrays)
    loaded = load_npz(tmp_path / "a.npz")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype


def test_a_hashed_tensor_file_or_state_that_is_none_is_a_damaged_snapshot(tmp_path: Path) -> None:
    for name, content in (("a.safetensors", b"\xff" * 20), ("a.json", b"[" * 100_000)):
        path = tmp_path / name / f"{1:012d}"
        path.mkdir(parents=True)
        (path / name).write_bytes(content)
        hashes = {name: hashlib.sha256(content).hexdigest()}
        (path / "manifest.json").write_text(json.dumps({"step": 1, "sha256": hashes}))
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.load(path)
