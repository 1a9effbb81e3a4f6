"""Several jobs side by side, a process each, so many at a time."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rl_lab.errors import UserError
from rl_lab.files import StorageError, writing
from rl_lab.run import Run
from rl_lab.text import inert

# -P: a module in the working directory is never imported instead of an installed one.
LAB = [sys.executable, "-P", "-m", "rl_lab.cli"]


@dataclass(frozen=True)
class Job:
    """What is to be done about a run that `Run.create` made."""

    run: Run
    commands: list[list[str]]
    """One after the other, as long as each ends well; they print into the run's console.log."""
    threads: int = 1
    """Cores it wants."""


def training(run: Run, options: Sequence[str] = ()) -> list[str]:
    """The command that trains a run from where it is."""
    return [*LAB, "train", "--resume", str(run.path), "--quiet", *options]


def end_leftovers(runs: Sequence[Run]) -> None:
    """Ask workers to save and end that a parent left behind when it was killed, and wait for them.

    Args:
        runs: those they may be training.

    Raises:
        UserError: one is being trained on another machine, out of reach.
    """
    left = [run for run in runs if run.locked()]
    for run in left:
        host = run.status.get("host", socket.gethostname())
        if host != socket.gethostname():  # a lock of a shared file system; its number means nothing
            raise UserError(
                f"run {str(run.path)!r} is being trained on {host}; end that job, or wait for it"
            )
        pid = run.trainer
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
    while any(run.locked() for run in left):
        time.sleep(0.1)


class Process(Protocol):
    """Something at work, with those of `subprocess.Popen`'s methods that are needed of it."""

    def poll(self) -> int | None:
        """Its exit code; None while it works."""

    def send_signal(self, number: int) -> None:
        """Pass a signal on to the commands."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self) -> int:
        """Wait for its end and return its exit code."""


class Engine(Protocol):
    """Where jobs are done."""

    def start(self, job: Job, commands: list[list[str]]) -> tuple[Process, list[list[str]]]:
        """Begin with commands of a job; return what began, and the commands to begin after it.

        Raises:
            StorageError: the run's console.log cannot be written.
        """


class Here:
    """Jobs in processes of this machine.

    A worker has a session of its own: Ctrl-C in the terminal reaches only this process, which
    passes it on once.
    """

    def start(self, job: Job, commands: list[list[str]]) -> tuple[Process, list[list[str]]]:
        """Begin the first command."""
        console = job.run.path / "console.log"
        with writing(console), console.open("ab") as output:
            process = subprocess.Popen(
                commands[0],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        return process, commands[1:]


class Workers:
    """Has jobs done; what went wrong with one is nothing to the others."""

    def __init__(self, jobs: Sequence[Job], at_a_time: int, engine: Engine | None = None) -> None:
        self._waiting = list(jobs)
        self._at_a_time = at_a_time
        self._engine = engine or Here()
        self._running: list[tuple[Job, list[list[str]], Process]] = []
        self.failed: list[Run] = []
        self.stopping = False
        """Whether all were asked to end, and none is started any more."""

    def add(self, job: Job) -> None:
        """Have one more job done, after those that wait."""
        if not self.stopping:
            self._waiting.append(job)

    @property
    def free(self) -> bool:
        """Whether a job that is added now would be started at once."""
        busy = len(self._waiting) + len(self._running)
        return busy < self._at_a_time and not self.stopping

    @property
    def runs(self) -> list[Run]:
        """Those that are being worked on, as of the last `poll`."""
        return [job.run for job, _, _ in self._running]

    def at_work(self, run: Run) -> bool:
        """Whether something is left to be done about a run, as of the last `poll`."""
        jobs = [*self._waiting, *(job for job, _, _ in self._running)]
        return any(job.run.path == run.path for job in jobs)

    def poll(self) -> bool:
        """Collect workers that ended, start those that may; return whether any is left."""
        for entry in list(self._running):
            job, later, process = entry
            code = process.poll()
            if code is None:
                continue
            self._running.remove(entry)
            if code == 0 and later:
                self._start(job, later)
            elif code not in (0, 130, 143):
                self.failed.append(job.run)
        while self._waiting and len(self._running) < self._at_a_time:
            job = self._waiting.pop(0)
            self._start(job, job.commands)
        return bool(self._running)

    def _start(self, job: Job, commands: list[list[str]]) -> None:
        try:
            process, later = self._engine.start(job, commands)
        except StorageError as error:  # its directory is gone, or the disk is full
            print(f"note: {inert(error)}", file=sys.stderr)
            self.failed.append(job.run)
            return
        self._running.append((job, later, process))

    def end(self, run: Run) -> None:
        """Ask one run to save and end; nothing more is done about it."""
        self._waiting = [job for job in self._waiting if job.run.path != run.path]
        for job, later, process in self._running:
            if job.run.path == run.path:
                later.clear()
                process.send_signal(signal.SIGTERM)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Start no more, and ask those that run to save and end, by the signal that asked us."""
        self.stopping = True
        self._waiting.clear()
        for _, later, process in self._running:
            later.clear()
            process.send_signal(number)

    def kill(self) -> None:
        """End those that run, at once, and wait until they are gone."""
        self.stopping = True
        self._waiting.clear()
        for _, _, process in self._running:
            process.kill()
            process.wait()
