"""Several runs side by side, a process each, so many at a time."""

import signal
import subprocess
import sys
from collections.abc import Sequence

from rl_lab.files import writing
from rl_lab.run import Run

# -P: a module in the working directory is never imported instead of an installed one.
LAB = [sys.executable, "-P", "-m", "rl_lab.cli"]


class Workers:
    """Trains runs that `Run.create` made; each process is `rl-lab train --resume RUN --quiet`.

    A worker has a session of its own: Ctrl-C in the terminal reaches only this process, which
    passes it on once. What a worker prints goes to `console.log` in its run directory.
    """

    def __init__(self, runs: Sequence[Run], jobs: int, options: Sequence[str] = ()) -> None:
        self._waiting = list(runs)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._jobs = jobs
        self._options = list(options)
        self.failed: list[Run] = []
        self._runs = {run.name: run for run in runs}

    def poll(self) -> bool:
        """Collect workers that ended, start those that may; return whether any is left."""
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                if code not in (0, 130, 143):
                    self.failed.append(self._runs[name])
        while self._waiting and len(self._running) < self._jobs:
            run = self._waiting.pop(0)
            self._running[run.name] = _start(run, self._options)
        return bool(self._running)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Start no more, and ask those that run to save and end, by the signal that asked us."""
        self._waiting.clear()
        for process in self._running.values():
            process.send_signal(number)

    def kill(self) -> None:
        """End those that run, at once, and wait until they are gone."""
        self._waiting.clear()
        for process in self._running.values():
            process.kill()
            process.wait()


def _start(run: Run, options: list[str]) -> subprocess.Popen[bytes]:
    command = [*LAB, "train", "--resume", str(run.path), "--quiet", *options]
    console = run.path / "console.log"
    with writing(console), console.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
