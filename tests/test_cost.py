"""What training costs: processor time over resumes and children, energy measured or estimated."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from rl_lab import cost
from rl_lab.cost import Cost, Meter
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run

NOWHERE = Path("/nonexistent")


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def burn_and_wait(burnt: Event, done: Event) -> None:
    burn(0.3)
    burnt.set()
    done.wait(60)


def test_processor_time_is_counted_on_from_what_was_before() -> None:
    meter = Meter({"cpu_seconds": 100.0}, NOWHERE)
    burn(0.2)
    assert 100.2 <= meter.reading()["cpu_seconds"] < 110


def test_children_count_while_they_live_and_once_they_ended() -> None:
    context = multiprocessing.get_context("spawn")
    burnt, done = context.Event(), context.Event()
    meter = Meter({}, NOWHERE)
    child = context.Process(target=burn_and_wait, args=(burnt, done))
    child.start()
    burnt.wait(60)
    living = meter.reading()["cpu_seconds"]
    done.set()
    child.join()
    ended = meter.reading()["cpu_seconds"]
    assert living >= 0.3
    assert living - 0.05 <= ended < 2 * living + 1  # counted once, whether alive or not


def zone(powercap: Path, number: str, name: str, microjoules: int) -> Path:
    path = powercap / f"intel-rapl:{number}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text("1000000000\n")
    return path / "energy_uj"


def test_energy_is_the_share_of_the_processors_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = zone(tmp_path, "0", "package-0", 999_000_000)
    cores = zone(tmp_path, "0:0", "core", 0)
    memory = zone(tmp_path, "0:1", "dram", 0)
    own, busy = [10.0], [100.0]
    monkeypatch.setattr(cost, "own_cpu_seconds", lambda: own[0])
    monkeypatch.setattr(cost, "_busy_seconds", lambda: busy[0])
    meter = Meter({}, tmp_path)
    package.write_text("4000000")  # past its end: 5 J
    cores.write_text("3000000")  # part of the package's
    memory.write_text("1000000")
    own[0], busy[0] = 11.0, 104.0
    assert meter.reading() == {"cpu_seconds": 1.0, "energy_joules": 1.5}
    memory.write_text("2000000")
    own[0], busy[0] = 12.0, 104.5  # clocks differ a little: never more than all of it
    assert meter.reading() == {"cpu_seconds": 2.0, "energy_joules": 2.5}
    package.unlink()
    assert meter.reading() == {"cpu_seconds": 2.0}


def test_energy_of_a_part_does_not_pass_for_the_whole(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 0)
    assert "energy_joules" in Meter({}, tmp_path).reading()
    assert "energy_joules" in Meter({"cpu_seconds": 5, "energy_joules": 9}, tmp_path).reading()
    assert "energy_joules" not in Meter({"cpu_seconds": 5}, tmp_path).reading()
    assert "energy_joules" not in Meter({}, NOWHERE).reading()


def test_a_run_records_what_it_took_over_resumes(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    run = make_run(make_recipe("cartpole"))
    assert "cpu_seconds" not in run.status
    run.start(100, 0, None)
    burn(0.1)
    run.update_status(step=5)
    first = run.status["cpu_seconds"]
    assert first >= 0.1
    again = Run.open("test")
    again.update_status(reason="looked at")  # by one that does not train it
    assert again.status["cpu_seconds"] == first
    again.start(100, 5, None)
    burn(0.1)
    again.update_status(step=9)
    assert again.status["cpu_seconds"] >= first + 0.1


def test_what_was_not_recorded_is_not_made_up() -> None:
    measured = cost.of_status({"cpu_seconds": 2.0, "energy_joules": 30.0}, 4.0)
    estimated = cost.of_status({"cpu_seconds": 2.0}, 5.0)
    unknown = cost.of_status({}, 3.0)
    assert measured == Cost(4.0, 2.0, 30.0, "measured")
    assert estimated == Cost(5.0, 2.0, 2.0 * cost.WATTS_PER_CORE, "estimated")
    assert unknown == Cost(3.0, None, None, None)
    assert cost.total([measured, estimated]) == Cost(9.0, 4.0, 54.0, "in part estimated")
    assert cost.total([measured, unknown]) == Cost(7.0, None, None, None)
    assert cost.total([]) == Cost(None, None, None, None)
