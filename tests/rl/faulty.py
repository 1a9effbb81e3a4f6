"""An environment that does something wrong, and small runs in it."""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from rl_lab.metrics import read_metrics
from rl_lab.rl import environments
from rl_lab.rl.recipe import AgentRecipe, Environment
from rl_lab.rl.train import train
from rl_lab.run import Run
from rl_lab.signals import StopRequest

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]

SMALL = {
    "env.number": 2, "algorithm.n_steps": 32, "algorithm.batch_size": 32, "algorithm.n_epochs": 2,
    "budget.steps": 512, "checkpoints.every": 128, "evaluation.every": 10**6,
    "evaluation.episodes": 1, "logging.every": 64,
}  # fmt: skip


class Faulty(gymnasium.Env):
    """Does something wrong at a step of its life; the first copy made in a test only.

    Args:
        fault: what, of the names in `step`.
        at: the step.
        dictionary: whether observations are dicts.
        lifelong: whether its steps are counted over all its episodes.
    """

    action_space = gymnasium.spaces.Discrete(2)
    made = 0
    soon_after: int | None = None
    """Of those made after this many, the fault comes at step 5."""

    def __init__(
        self, fault: str, at: int = 100, dictionary: bool = False, lifelong: bool = True
    ) -> None:
        Faulty.made += 1
        if Faulty.soon_after is not None and Faulty.made > Faulty.soon_after:
            at = 5
        self.lifelong = lifelong
        box = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        space = gymnasium.spaces.Dict({"one": box, "two": box}) if dictionary else box
        self.observation_space = space  # type: ignore[assignment]
        self.dictionary = dictionary
        self.fault, self.at, self.steps = fault, at, 0

    def observe(self, value: float = 0.5) -> Any:
        array = np.full(2, value, dtype=np.float32)
        return {"one": np.zeros(2, dtype=np.float32), "two": array} if self.dictionary else array

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = self.steps if self.lifelong else 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        done = self.steps % 10 == 0
        if self.steps < self.at:
            return self.observe(), 1.0, done, False, {}
        match self.fault:
            case "observation":
                return self.observe(np.nan), 1.0, done, False, {}
            case "reward":
                return self.observe(), np.inf, done, False, {}
            case "once":
                return self.observe(np.nan if self.steps == self.at else 0.5), 1.0, done, False, {}
            case "raise":
                raise ZeroDivisionError("out of luck")
            case "hang":
                time.sleep(30)
            case "exit":
                raise SystemExit(3)
        raise AssertionError(self.fault)


gymnasium.register("Test/Faulty-v0", entry_point=Faulty, disable_env_checker=True)


SUPERVISED = environments._supervised


def supervised_in_a_process(environment: Environment, seeds: list[int]) -> gymnasium.Env:
    """As ever, but a process that unpickles this has imported this file, and so knows Faulty."""
    return SUPERVISED(environment, seeds)


def faulty(fault: str, **settings: Any) -> dict[str, Any]:
    return SMALL | {"env.id": "Test/Faulty-v0", "env.kwargs": {"fault": fault, **settings}}


def run_to_end(run: Run, recipe: AgentRecipe) -> str:
    with StopRequest() as stop:
        return train(run, recipe, stop)


def events(run: Run, kind: str) -> list[str]:
    return [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == kind]
