"""A job's commands on whatever machine an engine puts them."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rl_lab.engines.workers import Job
from rl_lab.signals import StopRequest

SECONDS_BETWEEN_LOOKS = 0.2


class RemoteCommands:
    """Does the commands of a job, one after the other, when an engine calls it in its process.

    A SIGTERM or SIGINT to that process, or an exception of the engine's, asks the command at work
    to save and end, and waits for that; no further one is begun.
    """

    def __init__(self, job: Job, commands: Sequence[Sequence[str]]) -> None:
        self._commands = [list(command) for command in commands]
        self._console = job.run.path.absolute() / "console.log"
        self._directory = Path.cwd()  # paths in the commands may start here

    def __call__(self) -> int:
        """Do them; return the exit code of the first that fails, or else 0."""
        code = 0
        with StopRequest() as stop:
            for command in self._commands:
                if code != 0 or stop.signal is not None:
                    break
                with self._console.open("ab") as output:
                    process = subprocess.Popen(
                        command, cwd=self._directory, start_new_session=True,
                        stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    )  # fmt: skip
                code = _end_of(process, stop)
        return stop.exit_code if stop.signal is not None else code


def _end_of(process: subprocess.Popen[bytes], stop: StopRequest) -> int:
    """Wait for a command's exit code; asked to stop, pass that on, once."""
    asked = False
    try:
        while (code := process.poll()) is None:
            if stop.signal is not None and not asked:
                asked = True
                process.terminate()
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return code
