"""Jobs on a Ray cluster: that of RAY_ADDRESS, or one begun on this machine for as long as needed.

Ray's telemetry and its dashboard stay off.
"""

import logging
import os
import signal
import sys
from typing import Any

from rl_lab.errors import UserError
from rl_lab.extras import install_command
from rl_lab.remote_commands import RemoteCommands
from rl_lab.text import inert
from rl_lab.workers import Job, Process

OPTIONS: dict[str, type] = {"cpus": int, "gpus": int}
"""cpus: of a cluster begun here, as many as there are if not given; gpus: that each job wants."""


class RayEngine:
    """Puts each job on a node that has as many CPUs free as it wants threads."""

    def __init__(self, cpus: int | None = None, gpus: int = 0) -> None:
        """Connect to the cluster, or begin one.

        Raises:
            UserError: Ray is missing, or there is no cluster at RAY_ADDRESS, or none can be begun.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Jobs that ask Ray for no GPU still see what there is: recipes choose their device.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise UserError(
                f"--engine ray needs the extra 'ray': {install_command('ray')}"
            ) from None
        self._ray: Any = ray
        self._gpus = gpus
        address = os.environ.get("RAY_ADDRESS")
        if address and cpus:
            raise UserError("--engine-option cpus is for a cluster begun here, not for RAY_ADDRESS")
        size: dict[str, Any] = {} if address else {"num_cpus": cpus, "include_dashboard": False}
        try:
            ray.init(
                ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, **size
            )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = (
                f"no cluster at RAY_ADDRESS={address!r}" if address else "none can be begun here"
            )
            raise UserError(f"--engine ray: {where}: {error}") from None
        self._most = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])

    def start(self, job: Job, commands: list[list[str]]) -> tuple[Process, list[list[str]]]:
        """Queue all commands of a job as one task.

        Raises:
            UserError: no node is large enough for it, ever.
        """
        if job.threads > self._most:
            raise UserError(
                f"run {str(job.run.path)!r} wants {job.threads} threads, and no node of the Ray "
                f"cluster has more than {self._most:.0f} CPUs"
            )
        # A job that dies with its node is not done again unasked: the next `benchmark` does.
        task = self._ray.remote(num_cpus=job.threads, num_gpus=self._gpus, max_retries=0)(_do)
        return _Task(self._ray, task.remote(RemoteCommands(job, commands)), job), []


def _do(commands: RemoteCommands) -> int:
    return commands()


class _Task:
    """A task as a process is dealt with."""

    def __init__(self, ray: Any, task: Any, job: Job) -> None:
        self._ray, self._task, self._job = ray, task, job

    def poll(self) -> int | None:
        """The exit code of the job's commands; None while it waits or works."""
        if not self._ray.wait([self._task], timeout=0)[0]:
            return None
        try:
            return int(self._ray.get(self._task))
        except self._ray.exceptions.TaskCancelledError:
            return 128 + signal.SIGTERM
        except self._ray.exceptions.RayError as error:
            lines = str(error).splitlines() or [type(error).__name__]
            print(f"note: {inert(self._job.run.path)}: Ray: {inert(lines[0])}", file=sys.stderr)
            return 1

    def send_signal(self, number: int) -> None:
        """Have the commands asked to save and end, whatever signal asked us."""
        del number
        self._ray.cancel(self._task, force=False)

    def kill(self) -> None:
        """End it at once."""
        self._ray.cancel(self._task, force=True)

    def wait(self) -> int:
        """Wait for its end."""
        self._ray.wait([self._task])
        return self.poll() or 0
