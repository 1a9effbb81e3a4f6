"""Copies of an environment under watch: timed, counted, and checked before anything learns."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from rl_lab.health import Health
from rl_lab.phases import PhaseClock
from rl_lab.rl.supervision import FAILED, Supervised

Report = Callable[[str, str], None]
"""(kind of event, sentence): tells the run's log."""


class NonFiniteError(Exception):
    """A NaN or infinity that is not to be learned from; the message says where."""


class EnvironmentFailedError(Exception):
    """A copy of the environment raised, hung or died, and may not be started again."""


class WatchedVecEnv(VecEnvWrapper):
    """Times the environment, and lets neither a NaN nor a failure pass unseen.

    A NaN or infinity raises NonFiniteError before anything learns from it; or, where `health` says
    skip, the episode is cut off before it, and the copy begins another.
    """

    def __init__(
        self, venv: VecEnv, clock: PhaseClock, health: Health | None = None, restarts: int = 0
    ) -> None:
        """Keep what to watch by.

        Args:
            venv: the copies.
            clock: told when time is spent in them.
            health: what to do about a NaN; None: stop.
            restarts: failed copies that may be replaced, over the whole run.
        """
        super().__init__(venv)
        self._clock = clock
        self._supervised = venv.env_is_wrapped(Supervised)[0]  # only then may an info tell of one
        self._health = health or Health()
        self._restarts = restarts
        self._sound: list[Any] = [None] * self.num_envs  # the last sound observation of each copy
        self.steps = 0
        """Environment steps so far, summed over the copies; a resumed run sets it."""
        self.skipped = 0
        """Times that something was left out for being no number."""
        self.restarted = 0
        """Copies replaced so far."""
        self.report: Report = lambda kind, sentence: None
        """Set by whoever has a log."""

    def reset(self) -> VecEnvObs:
        observations = self._ask(self.venv.reset)
        for copy, info in enumerate(self.venv.reset_infos):
            self._note_failure(copy, info)
        for copy in self._unsound(observations):
            self._stop("observation", copy)
        self._remember(observations)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._ask(self.venv.step_async, actions)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self._ask(self.venv.step_wait)
        self.steps += self.num_envs
        if self._supervised:
            for copy, info in enumerate(infos):
                self._note_failure(copy, info)
                if dones[copy]:
                    self._note_failure(copy, self.venv.reset_infos[copy])
        for copy, source in self._faults(observations, rewards, dones, infos).items():
            if not self.may_skip(f"{self._said(source, copy)}; its episode was cut off before it"):
                self._stop(source, copy)
            rewards[copy] = 0.0
            infos[copy]["terminal_observation"] = self._sound[copy]
            infos[copy]["TimeLimit.truncated"] = True
            infos[copy].pop("episode", None)  # its return would be no number
            if not dones[copy] or source == "observation":
                self._begin_another(copy, observations)
            dones[copy] = True
        self._remember(observations)
        return observations, rewards, dones, infos

    def resume(self, observations: list[Any]) -> None:
        """Go on after the copies' episodes were played again, up to these observations."""
        self._sound = observations

    def close(self) -> None:
        """Close the copies; of a process that died, the others are ended without being asked."""
        try:
            self.venv.close()
        except (EOFError, OSError):
            for process in getattr(self.venv, "processes", []):
                process.terminate()

    # --- failures --------------------------------------------------------------------------------

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the copies, on the environment's time; say so where the process of one is gone."""
        phase = self._clock.enter("environment")
        try:
            return call(*arguments)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise EnvironmentFailedError(
                f"the process of an environment died at step {self.steps:,} (what it said last is "
                "above, or in console.log)"
            ) from None
        finally:
            self._clock.enter(phase)

    def _note_failure(self, copy: int, info: dict[str, Any]) -> None:
        """Count a copy that was replaced; stop where that was once too often."""
        told = info.pop(FAILED, None)
        if told is None:
            return
        print(f"environment {copy} failed at step {self.steps:,}:\n{told}", file=sys.stderr)
        error = told.strip().splitlines()[-1]
        what = f"environment {copy} failed at step {self.steps:,}: {error}"
        if self.restarted >= self._restarts:
            raise EnvironmentFailedError(f"{what} (env.restarts allows {self._restarts})")
        self.restarted += 1
        self.report(
            "environment-restarted", f"{what}; a new one took its place ({self.restarted} so far)"
        )

    # --- what is no number -----------------------------------------------------------------------

    def _faults(
        self, observations: VecEnvObs, rewards: np.ndarray, dones: np.ndarray, infos: list[dict]
    ) -> dict[int, str]:
        """Which copies gave something that is no number, and what."""
        faults: dict[int, str] = {}
        for copy in self._unsound(observations):
            faults[copy] = "observation"
        for copy in self._unsound(rewards):
            faults[copy] = "reward"
        for copy in dones.nonzero()[0].tolist():
            last = infos[copy].get("terminal_observation")  # beside the next episode's first
            if last is not None and self._unsound(_one(last)):
                faults[copy] = "last observation"
        return faults

    def _unsound(self, value: Any) -> list[int]:
        """The copies whose part of `value` holds a NaN or an infinity."""
        if isinstance(value, dict):
            return sorted({copy for part in value.values() for copy in self._unsound(part)})
        array = np.asarray(value)
        if array.dtype.kind != "f":
            return []
        if array.dtype != np.float32:  # as networks read it
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
        if math.isfinite(np.vdot(array, array)):  # the quickest way to see that all is well
            return []
        finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        return np.flatnonzero(~finite).tolist()

    def may_skip(self, sentence: str) -> bool:
        """Count and report what is left out for a NaN; return False if nothing may be, any more."""
        if self._health.on_nan != "skip" or self.skipped >= self._health.times:
            return False
        self.skipped += 1
        self.report("skipped", f"{sentence} ({self.skipped} of {self._health.times})")
        return True

    def _begin_another(self, copy: int, observations: VecEnvObs) -> None:
        """Reset one copy, and put its first observation in the place of what was no number."""
        ((first, _),) = self.venv.env_method("reset", indices=copy)
        if isinstance(observations, dict):
            for key, part in observations.items():
                part[copy] = first[key]
        else:
            np.asarray(observations)[copy] = first
        if copy in self._unsound(observations):
            self._stop("first observation", copy)

    def _remember(self, observations: VecEnvObs) -> None:
        """Keep each copy's observation, for the end of an episode that is cut off after it."""
        if self._health.on_nan != "skip":
            return
        for copy in range(self.num_envs):
            self._sound[copy] = (
                {key: part[copy].copy() for key, part in observations.items()}
                if isinstance(observations, dict)
                else np.array(observations[copy])
            )

    def _said(self, source: str, copy: int) -> str:
        return f"NaN or infinity in the {source} of environment {copy} at step {self.steps:,}"

    def _stop(self, source: str, copy: int) -> None:
        raise NonFiniteError(f"{self._said(source, copy)}; nothing was learnt from it")


def _one(observation: Any) -> Any:
    """An observation as a batch of one."""
    if isinstance(observation, dict):
        return {key: np.asarray(part)[None] for key, part in observation.items()}
    return np.asarray(observation)[None]


def watched(model: BaseAlgorithm) -> WatchedVecEnv:
    """Find our wrapper in the stack around an agent's training environment."""
    vector: Any = model.env
    while not isinstance(vector, WatchedVecEnv):
        vector = vector.venv
    return vector
