"""Jobs by Slurm, through submitit: each is a batch job of its own.

submitit hands jobs over as pickles, in a directory beside the runs that is made for this engine and
is its user's alone; no other is read.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from rl_lab.engines.remote_commands import RemoteCommands
from rl_lab.engines.workers import Job, Process
from rl_lab.errors import UserError
from rl_lab.extras import install_command
from rl_lab.files import writing
from rl_lab.text import inert

OPTIONS: dict[str, type] = {
    "partition": str, "account": str, "qos": str, "constraint": str, "time": int, "memory": int,
    "gpus": int, "cluster": str,
}  # fmt: skip
"""time: minutes a job may take; memory: GB it may use; gpus: that it wants; cluster: `slurm`, or
`local` to try the engine on this machine, without Slurm. The others mean what sbatch means."""

NAMES = {
    "partition": "slurm_partition", "account": "slurm_account", "qos": "slurm_qos",
    "constraint": "slurm_constraint", "time": "timeout_min", "memory": "mem_gb",
    "gpus": "gpus_per_node",
}  # fmt: skip
"""What submitit calls them."""

A_DAY = 24 * 60
SECONDS_TO_SAVE = 120
"""Between the signal that a job's time is nearly up, and its end."""


class SlurmEngine:
    """Submits each job with as many CPUs as it wants threads."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """See that there is a Slurm.

        Args:
            options: of OPTIONS.

        Raises:
            UserError: submitit is missing, or this machine cannot submit.
        """
        # Runs save at SIGTERM, so let that be what comes before the time limit.
        os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "TERM"
        os.environ["PYTHONSAFEPATH"] = "1"  # nothing in the working directory is imported there
        try:
            import submitit
        except ImportError:
            raise UserError(
                f"--engine slurm needs the extra 'slurm': {install_command('slurm')}"
            ) from None
        self._submitit: Any = submitit
        self._cluster = options.get("cluster", "slurm")
        if self._cluster not in ("slurm", "local"):
            raise UserError("--engine-option cluster: should be slurm or local")
        if self._cluster == "slurm" and shutil.which("sbatch") is None:
            raise UserError("--engine slurm: there is no sbatch here; is this a login node?")
        self._parameters = {"timeout_min": A_DAY, "slurm_signal_delay_s": SECONDS_TO_SAVE}
        self._parameters |= {NAMES[key]: value for key, value in options.items() if key in NAMES}
        self._folder: Path | None = None

    def start(self, job: Job, commands: list[list[str]]) -> tuple[Process, list[list[str]]]:
        """Submit all commands of a job as one.

        Raises:
            UserError: Slurm refuses it.
            StorageError: the directory for handing over cannot be made.
        """
        if self._folder is None:
            beside = job.run.path.absolute().parent
            with writing(beside):
                self._folder = Path(tempfile.mkdtemp(dir=beside, prefix=".slurm-"))
        executor = self._submitit.AutoExecutor(folder=self._folder, cluster=self._cluster)
        executor.update_parameters(name=job.run.name, cpus_per_task=job.threads, **self._parameters)
        try:
            submitted = executor.submit(RemoteCommands(job, commands))
        except self._submitit.core.utils.FailedJobError as error:
            raise UserError(f"Slurm refuses {str(job.run.path)!r}: {error}") from None
        return _Submitted(submitted, job, local=self._cluster == "local"), []


class _Submitted:
    """A batch job as a process is dealt with."""

    def __init__(self, submitted: Any, job: Job, local: bool) -> None:
        self._submitted, self._job, self._local = submitted, job, local
        self._stopped = False

    def poll(self) -> int | None:
        """The exit code of the job's commands; None while it waits or works."""
        if not self._submitted.done():
            if self._stopped and self._local:
                self._terminate()  # again: one that has only begun may have missed it
            return None
        if self._stopped:
            return 128 + signal.SIGTERM
        try:
            return int(self._submitted.result())
        except Exception as error:  # whatever was raised there, or became of it
            lines = str(error).splitlines() or [type(error).__name__]
            print(f"note: {inert(self._job.run.path)}: {inert(lines[0])}", file=sys.stderr)
            return 1

    def send_signal(self, number: int) -> None:
        """Have the commands asked to save and end, whatever signal asked us."""
        del number
        self._stopped = True
        if self._local:  # submitit's `cancel` would leave it one second
            self._terminate()
        else:
            self._submitted.cancel()  # Slurm sends SIGTERM, and half a minute later SIGKILL

    def _terminate(self) -> None:
        os.kill(int(self._submitted.job_id), signal.SIGTERM)

    def kill(self) -> None:
        """End it, as soon as Slurm does."""
        self._stopped = True
        if self._local:  # submitit's `cancel` is SIGINT, which what runs in the background ignores
            self._kill_family()
        else:
            self._submitted.cancel()

    def _kill_family(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            job = psutil.Process(int(self._submitted.job_id))
            job.suspend()  # so that it starts no other meanwhile
            for process in (*job.children(recursive=True), job):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def wait(self) -> int:
        """Wait for its end."""
        self._submitted.wait()
        return self.poll() or 0
