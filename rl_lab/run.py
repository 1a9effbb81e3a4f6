"""Run: one directory, the same shape whatever was trained.

    <runs>/<name>/
        recipe.yaml       the resolved recipe; training it again repeats the run
        provenance.json   what made it: command, commit, versions, threads, hardware
        status.json       state, step, heartbeat, best; replaced atomically
        metrics.jsonl     see rl_lab.metrics
        checkpoints/      see rl_lab.checkpoint
        best/             the best model by evaluation return, in the same form
        evaluation.json   what `rl-lab evaluate` measured
        videos/, report.html, report.json

A run that says `running` may have died; `Run.state` tells by asking for its lock, which the
operating system releases with the process that held it, however that process ended.
"""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rl_lab import recipes
from rl_lab.cost import Meter
from rl_lab.errors import UserError, nearest
from rl_lab.files import StorageError, is_file, write_atomically, write_json, writing
from rl_lab.plain_json import read_object
from rl_lab.provenance import provenance


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 2**63


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_best(value: Any) -> bool:
    numbers = [value.get(key) for key in ("return", "step")] if isinstance(value, dict) else [None]
    return all(isinstance(number, int | float) for number in numbers)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "state": _is_text, "stage": _is_text, "unit": _is_text, "host": _is_text,
    "reason": _is_text_or_null, "step": _is_count, "budget": _is_count, "pid": _is_count,
    "created": _is_time, "started": _is_time, "heartbeat": _is_time, "wall": _is_time,
    "cpu_seconds": _is_time, "energy_joules": _is_time,
    "best": _is_best,
}  # fmt: skip
"""What each key of a status must be to be believed."""

STATES = ("created", "running", "finished", "stopped", "failed", "died")


def runs_directory() -> Path:
    """Where runs are kept: `$RL_LAB_RUNS`, or `runs` in the working directory."""
    return Path(os.environ.get("RL_LAB_RUNS", "runs"))


class Run:
    """One run directory. Whoever trains holds its lock; anybody may read it at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.best = path / "best"
        self.videos = path / "videos"
        self.evaluation_file = path / "evaluation.json"
        self.report_file = path / "report.html"
        self._lock_file = path / "lock"
        self._meter: Meter | None = None

    @property
    def name(self) -> str:
        return self.path.name

    # --- making and finding ----------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        name: str,
        recipe: recipes.Section,
        command: list[str],
        seed: int,
        threads: int,
        parent: Path | None = None,
    ) -> "Run":
        """Make the directory of a new run with its recipe, provenance and status.

        Args:
            name: of the directory.
            recipe: resolved.
            command: the command line that asked for it.
            seed: what everything random follows from.
            threads: CPU threads of torch and numpy.
            parent: where to make it; None: in the runs directory.

        Raises:
            UserError: the name is taken or unusable, or the directory cannot be made.
            StorageError: nothing can be written into it; it is removed again.
        """
        check_name(name)
        run = cls((parent or runs_directory()) / name)
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(
                f"run {str(run.path)!r} exists; choose another --name, or continue it with --resume"
            ) from None
        except OSError as error:
            raise UserError(f"cannot make run directory {run.path}: {error.strerror}") from None
        try:
            write_atomically(run.recipe_file, recipes.dump(recipe))
            write_json(run.path / "provenance.json", provenance(command, seed, threads))
            run.update_status(state="created", step=0, created=time.time())
        except StorageError:
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        return run

    @classmethod
    def open(cls, name: str) -> "Run":
        """Find a run by path, or by name in the runs directory.

        Raises:
            UserError: there is none.
        """
        for path in (Path(name), runs_directory() / name):
            if is_file(path / "recipe.yaml"):
                return cls(path)
        hint = nearest(Path(name).name, [run.name for run in all_runs()])
        raise UserError(
            f"no run {name!r} here or in {runs_directory()}{hint or '; `rl-lab runs` lists them'}"
        )

    # --- status ----------------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        """The content of status.json: state, step, heartbeat, best, cpu_seconds, reason, ..."""
        status = read_object(self.path / "status.json")
        sound = {
            key: value for key, value in status.items() if key not in _KINDS or _KINDS[key](value)
        }
        return {"state": "created", "step": 0, "created": 0.0} | sound

    @property
    def evaluations(self) -> dict[str, Any]:
        """What `rl-lab evaluate` measured so far, by model and way of acting."""
        return read_object(self.evaluation_file)

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the run."""
        return read_object(self.path / "provenance.json")

    def update_status(self, **changes: Any) -> None:
        """Change some keys of status.json; the heartbeat is set to now.

        While this process trains the run, what it costs is kept up as well (`rl_lab.cost`).

        Raises:
            StorageError: it cannot be written; the old one stays.
        """
        spent = self._meter.reading() if self._meter else {}
        status = self.status | changes | spent | {"heartbeat": time.time()}
        write_json(self.path / "status.json", status)

    def start(self, budget: int, step: int, best: dict[str, float] | None) -> None:
        """Say that this process trains the run now; the caller holds the lock.

        Args:
            budget: steps at which the run ends.
            step: where it starts: 0, or its checkpoint's step.
            best: `return` and `step` of the best evaluation up to there.

        From here on, the status counts what this process and its children take, after what others
        took for the run before it (`rl_lab.cost`).
        """
        self._meter = self._meter or Meter(self.status)  # one that rolls back starts twice
        self.update_status(
            state="running",
            step=step,
            best=best,
            reason=None,
            budget=budget,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=time.time(),
        )

    @property
    def state(self) -> str:
        """One of STATES. A run that says it is running while nobody holds its lock has died."""
        status = self.status
        state = status.get("state")
        if state not in STATES:
            return "created"
        if state == "running" and status.get("host") == socket.gethostname() and not self.locked():
            # Read again: the run may have ended properly between the two looks.
            state = self.status.get("state")
            return "died" if state == "running" else str(state)
        return str(state)

    # --- lock ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run while writing to it.

        The lock is the operating system's (flock): it goes with the process that holds it, however
        that ends. Its file holds the number of that process.

        Raises:
            UserError: another process holds it, or the file system has no locks.
            StorageError: the run cannot be written.
        """
        with writing(self._lock_file):
            file = self._lock_file.open("ab", buffering=0)
        with file:
            # Whoever asks for the state holds the lock for a moment, so one refusal says little.
            for _ in range(20):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.02)
                except OSError as error:  # some network file systems
                    raise UserError(
                        f"run {str(self.path)!r} cannot be locked: {error.strerror}; set "
                        "RL_LAB_RUNS to a directory on another file system"
                    ) from None
            else:
                pid = self._lock_file.read_text() or "?"
                raise UserError(
                    f"run {str(self.path)!r} is being trained by another process (pid {pid})"
                )
            with writing(self._lock_file):
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            yield

    def locked(self) -> bool:
        """Whether a living process on this machine is training this run."""
        try:
            with self._lock_file.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is no lock, or it is not ours to read
            return False
        return False

    @property
    def trainer(self) -> int | None:
        """Number of the process on this machine that is training this run; None: nobody is."""
        if not self.locked():
            return None
        text = self._lock_file.read_text(encoding="utf-8", errors="replace")
        return int(text) if text.isascii() and text.isdigit() else None


def check_name(name: str) -> None:
    """Refuse a run name that is no plain directory name.

    Raises:
        UserError: it is empty, too long, hidden, or holds anything but letters, digits, `._-`; it
            ends in a dot, or is a device's on Windows, where the directory could not be copied.
    """
    if name.endswith(".") or _is_a_device(name):
        raise UserError(
            f"run name {name!r} cannot be used: Windows knows no directory of that name; "
            "choose another"
        )
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"run name {name!r} cannot be used: 1 to 100 letters, digits, '.', '_' or '-', "
            "not starting with '.' or '-'"
        )


def _is_a_device(name: str) -> bool:
    """Whether Windows takes the name for a device's."""
    return re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name) is not None


def fresh_names(recipe: str, seeds: list[int]) -> list[str]:
    """Return a run name for each seed, all of one new group: `cartpole-2-seed0`, ..."""
    recipe = re.sub(r"[^A-Za-z0-9._-]", "-", recipe).lstrip(".-")[:80] or "run"
    if _is_a_device(f"{recipe}-"):
        recipe = f"run-{recipe}"
    group, count = recipe, 1
    while any((runs_directory() / f"{group}-seed{seed}").exists() for seed in seeds):
        count += 1
        group = f"{recipe}-{count}"
    return [f"{group}-seed{seed}" for seed in seeds]


def all_runs() -> list[Run]:
    """Every run in the runs directory, oldest first."""
    runs = [Run(path.parent) for path in runs_directory().glob("*/recipe.yaml")]
    return sorted(runs, key=lambda run: (run.status.get("created", 0), run.name))
