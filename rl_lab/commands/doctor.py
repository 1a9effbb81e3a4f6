"""`rl-lab doctor`: whether this installation is whole, and how fast this machine is."""

import json as json_module
import os
import sys
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from rl_lab import extras, recipes, threads
from rl_lab.errors import UserError
from rl_lab.provenance import LOCK_FILE, versions
from rl_lab.rl.recipe import AgentRecipe

SPEED_CHECK_SECONDS = 3.0


def doctor(
    part: Literal["rlhf"] | None = None,
    /,
    *,
    model: str | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Check this installation and machine: versions, threads, devices, speed, optional parts.

    Ends with exit code 1 if something is wrong.

    Parameters
    ----------
    part
        rlhf: check instead that PPO for language models gives the answers known from theory.
    model
        With rlhf: a local directory or hub id to check it on, instead of a tiny model.
    json
        Print the findings as JSON.
    """
    if part == "rlhf":
        from rl_lab.commands.doctor_rlhf import doctor_rlhf

        return doctor_rlhf(model, json)
    if model is not None:
        raise UserError("--model goes with `rl-lab doctor rlhf`")
    if not json:
        print("checking for about 5 seconds", file=sys.stderr)
    threads.pin(1)
    found: dict[str, Any] = {
        "versions": versions(),
        "differs_from_lock": differs_from_lock(),
        "cores": os.cpu_count(),
        "devices": devices(),
        "steps_per_second": round(speed(SPEED_CHECK_SECONDS)),
        "missing": {
            name: extras.install_command(name)
            for name in extras.EXTRAS
            if not extras.installed(name)
        },
    }
    if json:
        print(json_module.dumps(found, indent=2))
    else:
        _print(found)
    return 1 if found["differs_from_lock"] else 0


def devices() -> list[str]:
    """What torch can compute on."""
    import torch

    names = ["cpu"]
    names += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def differs_from_lock() -> list[str]:
    """Packages whose version is not the one in the lock file, as `name 1.0 instead of 2.0`."""
    if not LOCK_FILE.is_file():
        return []
    installed = versions()
    differing = []
    for line in LOCK_FILE.read_text(encoding="utf-8").splitlines():
        name, _, pinned = line.partition("==")
        version = installed.get(name)
        # A build tag (`2.13.0+cpu`) says where it was built, not what it is.
        if version is not None and version.partition("+")[0] != pinned:
            differing.append(f"{name} {version} instead of {pinned}")
    return differing


def speed(seconds: float) -> float:
    """Environment steps a second of the cartpole recipe, measured for about `seconds`."""
    import time

    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger

    from rl_lab.rl import agent

    class StopInTime(BaseCallback):
        started = time.perf_counter()

        def _on_step(self) -> bool:
            return time.perf_counter() - self.started < seconds

    model = agent.build(recipes.load(AgentRecipe, "cartpole"))
    model.set_logger(Logger(folder=None, output_formats=[]))
    StopInTime.started = time.perf_counter()
    model.learn(10**9, callback=StopInTime())
    return model.num_timesteps / (time.perf_counter() - StopInTime.started)


def _print(found: dict[str, Any]) -> None:
    for name, version in found["versions"].items():
        print(f"{name:20} {version or 'not installed'}")
    print(f"{'cores':20} {found['cores']} (a run uses 1 unless its recipe's `threads` says more)")
    print(f"{'devices':20} {', '.join(found['devices'])}")
    print(f"{'speed':20} {found['steps_per_second']:,} steps/s of the cartpole recipe, 1 thread")
    for line in found["differs_from_lock"]:
        print(f"{'not as pinned':20} {line}; `bash scripts/setup` puts it right")
    if found["missing"]:
        print("optional parts that are missing:")
        for name, command in found["missing"].items():
            print(f"  {name:18} {extras.EXTRAS[name].purpose}: {command}")
    else:
        print("every optional part is installed")
