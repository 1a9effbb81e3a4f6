"""SB3's numbers into the run's MetricLog, through SB3's own seam for it (`KVWriter`)."""

from typing import Any

import numpy as np
import psutil
from stable_baselines3.common.logger import KVWriter, Logger

from rl_lab.metrics import MetricLog
from rl_lab.phases import PhaseClock


class MetricLogWriter(KVWriter):
    """Writes what SB3 logs, where the time went and what the process uses, as one line."""

    def __init__(self, log: MetricLog, clock: PhaseClock) -> None:
        self._log = log
        self._clock = clock
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the measurement

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        numbers = {
            name: float(value)
            for name, value in key_values.items()
            if isinstance(value, int | float | np.number)
        }
        for phase, seconds in self._clock.totals().items():
            numbers[f"phase/{phase}"] = round(seconds, 3)
        numbers["system/cpu_percent"] = self._process.cpu_percent()
        numbers["system/memory_mb"] = round(self._process.memory_info().rss / 2**20, 1)
        self._log.log(step, numbers)

    def close(self) -> None:
        """Nothing: whoever opened the MetricLog closes it."""


def sb3_logger(log: MetricLog, clock: PhaseClock) -> Logger:
    """An SB3 logger that writes to `log` only: no folder in the temp directory, no printing."""
    return Logger(folder=None, output_formats=[MetricLogWriter(log, clock)])
