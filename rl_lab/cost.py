"""What training costs: processor time, and energy, measured or estimated from it.

Energy is that of the processor (and memory, where it tells) alone: no GPU, no power supply, no
cooling. Linux tells it of the whole machine (RAPL, through powercap); a run is given the share of
it that it had of the processor time. Where nothing tells, as on most virtual machines or without
the right to read it, processor time is taken times WATTS_PER_CORE.
"""

import multiprocessing
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

WATTS_PER_CORE = 12.0
"""Of a busy core of an unknown processor: Green Algorithms (Lannelongue et al., 2021, Advanced
Science 8:2100707), data/v3.0/TDP_cpu.csv, row "Any". Others lie between 4 and 24."""

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Cost:
    """What a run, or several, took. None: it was not recorded."""

    wall_seconds: float | None
    cpu_seconds: float | None
    """Of all its processes and threads."""
    joules: float | None
    how: Literal["measured", "estimated", "in part estimated"] | None
    """Where `joules` come from."""


class Meter:
    """Counts what this process and its children take from now on, on top of what was before."""

    def __init__(self, before: Mapping[str, Any], powercap: Path = POWERCAP) -> None:
        """Begin to count.

        Args:
            before: the run's status: `cpu_seconds` and `energy_joules` of earlier starts, if any.
            powercap: where the kernel shows its energy counters.
        """
        self._cpu_before = float(before.get("cpu_seconds", 0.0))
        self._joules: float | None = float(before.get("energy_joules", 0.0))
        self._counters = _Counters(powercap)
        if (self._cpu_before and "energy_joules" not in before) or not self._counters.readable:
            self._joules = None  # what was measured of a part would pass for the whole
        self._cpu_at_start = self._cpu = own_cpu_seconds()
        self._busy = _busy_seconds()

    def reading(self) -> dict[str, float]:
        """`cpu_seconds`, and `energy_joules` where it can be measured: of the run so far."""
        cpu = own_cpu_seconds()
        found = {"cpu_seconds": round(self._cpu_before + cpu - self._cpu_at_start, 3)}
        if self._joules is not None:
            joules, busy = self._counters.joules_since(), _busy_seconds()
            if joules is None:
                self._joules = None
            elif busy > self._busy:
                self._joules += joules * min((cpu - self._cpu) / (busy - self._busy), 1.0)
                self._cpu, self._busy = cpu, busy
        if self._joules is not None:
            found["energy_joules"] = round(self._joules, 3)
        return found


def own_cpu_seconds() -> float:
    """Seconds of processor time of this process and its children, those that ended included."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    living = 0.0
    for child in multiprocessing.active_children():
        try:
            taken = psutil.Process(child.pid).cpu_times()
        except psutil.Error:  # it ended just now, and is among those that did
            continue
        living += taken.user + taken.system
    return living + sum(usage.ru_utime + usage.ru_stime for usage in ended)


def _busy_seconds() -> float:
    """Seconds that all cores of the machine were at work since it started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


class _Counters:
    """The kernel's energy counters of processors and memory, which start again at their ends."""

    def __init__(self, powercap: Path) -> None:
        self._last: dict[Path, int] = {}
        for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's are called so, too
            name = _read(zone / "name") or ""
            energy = _number(zone / "energy_uj")
            # Cores are part of a package already; so is everything of a platform ("psys").
            if energy is not None and (name.startswith("package") or name == "dram"):
                self._last[zone] = energy
        self.readable = bool(self._last)

    def joules_since(self) -> float | None:
        """What was used since the last call; None where a counter can no longer be read."""
        total = 0
        for zone, last in self._last.items():
            now, end = _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
            if now is None or (now < last and end is None):
                return None
            total += now - last if now >= last else now - last + (end or 0)
            self._last[zone] = now
        return total / 1e6


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text and text.isdecimal() else None


# --- of what was recorded ------------------------------------------------------------------------


def of_status(status: Mapping[str, Any], wall_seconds: float | None) -> Cost:
    """What a run's status tells of its cost; estimated where energy was not measured."""
    cpu, joules = status.get("cpu_seconds"), status.get("energy_joules")
    if joules is not None:
        return Cost(wall_seconds, cpu, joules, "measured")
    if cpu is not None:
        return Cost(wall_seconds, cpu, cpu * WATTS_PER_CORE, "estimated")
    return Cost(wall_seconds, None, None, None)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of several; of each part None where one of them does not know it."""
    known = list(costs)
    ways = {cost.how for cost in known} or {None}
    how = ways.pop() if len(ways) == 1 else None if None in ways else "in part estimated"
    return Cost(
        _sum(cost.wall_seconds for cost in known),
        _sum(cost.cpu_seconds for cost in known),
        _sum(cost.joules for cost in known),
        how,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if not known or None in known else sum(value for value in known if value)
