"""Ending runs where it hurts, and looking whether anything was lost.

A subject is trained once undisturbed. Then it is trained again and again in processes of their own
that are killed, or asked to stop, at random moments, each going on where the one before it ended;
whatever finishes must be what the undisturbed run is, bit for bit. Processes are forked from one
that has imported everything, so that the random moments fall into training, not into imports.
"""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rl_lab import checkpoint
from rl_lab.metrics import read_metrics
from rl_lab.run import Run
from rl_lab.sameness import run_differences
from rl_lab.signals import StopRequest

FORK = multiprocessing.get_context("fork")


def newest_snapshot(run: Run) -> int:
    """Step of a run's newest snapshot; 0 without one."""
    return max(checkpoint.steps(run.checkpoints), default=0)


@dataclass(frozen=True)
class Subject:
    """Something that is trained."""

    name: str
    make: Callable[[str], Run]
    """Makes a run directory of this name, not trained yet."""
    train: Callable[[Run, StopRequest], object]
    """Trains it from wherever it stands."""
    parts: tuple[str, ...] = ("",)
    """The run directories in it that have snapshots: itself, or its stages."""
    interval: int = 0
    """Steps between snapshots, and those of one update: the most that may be lost."""
    safe: Callable[[Run], int] = newest_snapshot
    """The step that a part goes on from."""

    def parts_of(self, run: Run) -> list[Run]:
        """Those that are there yet."""
        found = [Run(run.path / part) for part in self.parts]
        return [part for part in found if part.metrics_file.exists()]


@dataclass
class Findings:
    """What was seen of one subject."""

    ended: int = 0
    """Processes ended before their run was done."""
    snapshots: int = 0
    """Snapshots found after that."""
    unreadable: int = 0
    """Of them, those that could not be read."""
    most_lost: int = 0
    """Steps logged beyond the newest snapshot, at most."""
    finished: int = 0
    """Runs that finished after all."""
    different: Counter[str] = field(default_factory=Counter)
    """What differed in them from the undisturbed run, and how often."""


def go(subject: Subject, run: Run) -> multiprocessing.process.BaseProcess:
    """Train in a forked process; what it prints goes to the run's console.log."""

    def child() -> None:
        log = os.open(run.path / "console.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        with StopRequest() as stop:
            subject.train(run, stop)

    process = FORK.Process(target=child)
    process.start()
    return process


def undisturbed(subject: Subject) -> tuple[Run, float]:
    """Train a subject to its end; return its run and the seconds that took."""
    run = subject.make(f"{subject.name}-undisturbed")
    began = time.monotonic()
    process = go(subject, run)
    process.join()
    seconds = time.monotonic() - began
    if run.state != "finished":
        sys.exit(f"{subject.name} does not finish: {(run.path / 'console.log').read_text()}")
    return run, seconds


def kill(process: multiprocessing.process.BaseProcess) -> None:
    """End a process at once."""
    process.kill()


def terminate(process: multiprocessing.process.BaseProcess) -> None:
    """Ask a process to stop, as a scheduler does."""
    process.terminate()


def interrupt_twice(process: multiprocessing.process.BaseProcess) -> None:
    """Press Ctrl-C, and again."""
    assert process.pid is not None
    for _ in range(2):
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        time.sleep(0.05)


def disturb(
    subject: Subject,
    end: Callable[[multiprocessing.process.BaseProcess], None],
    times: int,
    reference: tuple[Run, float],
    draw: random.Random,
) -> Iterator[Findings]:
    """End a subject's training so many times, at random moments; yield what was found so far."""
    whole, seconds = reference
    findings = Findings()
    while findings.ended < times:
        run = subject.make(f"{subject.name}-{end.__name__}-{findings.finished}")
        while run.state != "finished":
            process = go(subject, run)
            if findings.ended < times:
                process.join(draw.uniform(0, 0.6 * seconds))
            else:
                process.join()
            if process.is_alive():
                end(process)
                process.join()
                findings.ended += 1
                _look(subject, run, findings)
                yield findings
            elif run.state != "finished":
                sys.exit(f"{run.name}: {(run.path / 'console.log').read_text()}")
        findings.finished += 1
        for one, other in zip(subject.parts_of(run), subject.parts_of(whole), strict=True):
            findings.different.update(run_differences(one, other))
        shutil.rmtree(run.path)
        yield findings


def _look(subject: Subject, run: Run, findings: Findings) -> None:
    """Look at what a process left when it was ended."""
    for part in subject.parts_of(run):
        for path in checkpoint.directories(part.checkpoints):
            findings.snapshots += 1
            try:
                checkpoint.verify(path)
            except checkpoint.CheckpointError:
                findings.unreadable += 1
        if part.status["state"] != "finished":
            records = read_metrics(part.metrics_file)
            logged = max((record["step"] for record in records), default=0)
            findings.most_lost = max(findings.most_lost, logged - subject.safe(part))


# --- damage --------------------------------------------------------------------------------------


def cut(path: Path, draw: random.Random) -> None:
    """Lose the end of a file."""
    size = path.stat().st_size
    os.truncate(path, draw.randrange(size))


def flip(path: Path, draw: random.Random) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def remove(path: Path, draw: random.Random) -> None:
    """Lose a file."""
    del draw
    path.unlink()


DAMAGES = (cut, flip, remove)


def damage_each_file(newest: Path, draw: random.Random) -> Iterator[tuple[str, str, bool]]:
    """Damage every file of a snapshot in every way, and mend it again.

    Yields:
        The file's name, the damage, and whether it was noticed: the snapshot is passed over, in a
        sentence, and an older one is used in its place if there is one.
    """
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        for damage in DAMAGES:
            damage(path, draw)
            snapshot, passed_over = checkpoint.latest(newest.parent)
            older = snapshot is None or snapshot.step < int(newest.name)
            yield path.name, damage.__name__, older and len(passed_over) == 1
            path.write_bytes(content)
