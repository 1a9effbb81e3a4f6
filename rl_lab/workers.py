"""Several jobs side by side, a process each, so many at a time."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rl_lab.files import writing
from rl_lab.run import Run

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

    def poll(self) -> bool:
        """Collect workers that ended, start those that may; return whether any is left."""
        running, self._running = self._running, []
        for job, later, process in running:
            code = process.poll()
            if code is None:
                self._running.append((job, later, process))
            elif code == 0 and later:
                self._start(job, later)
            elif code not in (0, 130, 143):
                self.failed.append(job.run)
        while self._waiting and len(self._running) < self._at_a_time:
            job = self._waiting.pop(0)
            self._start(job, job.commands)
        return bool(self._running)

    def _start(self, job: Job, commands: list[list[str]]) -> None:
        process, later = self._engine.start(job, commands)
        self._running.append((job, later, process))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Start no more, and ask those that run to save and end, by the signal that asked us."""
        self._waiting.clear()
        for _, later, process in self._running:
            later.clear()
            process.send_signal(number)

    def kill(self) -> None:
        """End those that run, at once, and wait until they are gone."""
        self._waiting.clear()
        for _, _, process in self._running:
            process.kill()
            process.wait()
