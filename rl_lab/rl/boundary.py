"""Between an update and the next rollout: the moment when nothing is half done.

Logging, evaluation, checkpoints and stopping all happen there, so what they see, and what a
checkpoint holds, is a whole number of updates.
"""

import math
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sb3_contrib import ARS, TRPO
from stable_baselines3.common.callbacks import BaseCallback

from rl_lab import checkpoint, vitals
from rl_lab.checkpoint import Snapshot
from rl_lab.files import StorageError
from rl_lab.health import Alerts
from rl_lab.metrics import MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.provenance import made_with
from rl_lab.rl import agent_state, moment, seeding
from rl_lab.rl.algorithms import backend
from rl_lab.rl.evaluate import evaluate, summary
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.watched_vec_env import NonFiniteError, watched
from rl_lab.run import Run
from rl_lab.seeding import stream
from rl_lab.signals import StopRequest
from rl_lab.text import short

HEARTBEAT_SECONDS = 1.0


@dataclass
class Progress:
    """What training knows besides the agent; kept in every checkpoint."""

    best: dict[str, float] | None = None
    """`return` and `step` of the best evaluation so far."""
    solved_in_a_row: int = 0
    evaluated_at: int = -1
    rollbacks: int = 0
    """Times that it went back to a snapshot for a NaN."""
    skipped: int = 0
    """Times that something was left out for a NaN."""
    restarted: int = 0
    """Copies of the environment that failed and were replaced."""


class StopLearning(Exception):
    """Ends `learn` at an update boundary: `state` is the state the run ends in."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


class AtUpdateBoundary(BaseCallback):
    """What happens between an update and the next rollout, each when it is due."""

    def __init__(
        self,
        run: Run,
        recipe: AgentRecipe,
        log: MetricLog,
        clock: PhaseClock,
        progress: Progress,
        stop: StopRequest,
        resumed: Snapshot | None,
    ) -> None:
        """Keep what the boundaries need.

        Args:
            run: the run's directory.
            recipe: its recipe.
            log: takes numbers and events.
            clock: told what the time is spent on.
            progress: kept up to date.
            stop: asked at each boundary.
            resumed: whose moment the first boundary is, where training goes on to the same bits.
        """
        super().__init__()
        self.run = run
        self.recipe = recipe
        self.log = log
        self.clock = clock
        self.progress = progress
        self.stop = stop
        self._resumed = resumed
        self._alerts = Alerts(log, vitals.alerts)
        self.save_first = False
        """Whether the first boundary is to be saved, due or not."""
        self._last_boundary: int | None = None
        self._heartbeat = 0.0
        self._not_saved = 0
        self._recent: list[dict[str, Any]] = []

    def _on_rollout_start(self) -> None:
        self.clock.enter("lab")
        if self._resumed is not None:
            moment.put_back(self.model, self._resumed)
            self._resumed = None
        if self.save_first:
            self.save_checkpoint()
            self.save_first = False
        step = self.model.num_timesteps
        if self._due(self.recipe.logging.every, step) and step > 0:
            self.dump()
        if self._due(self.recipe.evaluation.every, step):
            self.judge()
        if self._due(self.recipe.checkpoints.every, step) and step > 0:
            self.save_checkpoint()
        self._last_boundary = step
        if self.progress.solved_in_a_row == self.recipe.evaluation.stop_after_solved:
            raise StopLearning("finished", f"solved {self.progress.solved_in_a_row} times running")
        if self.stop.signal is not None:
            raise StopLearning("stopped", f"asked to by {signal.Signals(self.stop.signal).name}")
        self.clock.enter("policy")

    def _on_rollout_end(self) -> None:
        self.clock.enter("update")
        if isinstance(self.model, ARS) and self.model.ep_info_buffer:
            self._recent = list(self.model.ep_info_buffer)  # ARS empties it before the boundary

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now - self._heartbeat >= HEARTBEAT_SECONDS:
            self._heartbeat = now
            stopping = None if self.stop.signal is None else "stopping after this update"
            with self.clock.during("lab"):
                self.run.update_status(
                    step=self.model.num_timesteps, wall=self.log.wall, reason=stopping
                )
        return True

    def _due(self, every: int, step: int) -> bool:
        """Whether a multiple of `every` lies between the last boundary and this one."""
        if self._last_boundary is None:  # the first boundary: of a new run, or of a resumed one
            return self.progress.evaluated_at < step == 0
        return step // every > self._last_boundary // every

    # --- what may be due -------------------------------------------------------------------------

    def dump(self) -> None:
        """Write SB3's numbers: means of recent episodes, and those of the last update."""
        if isinstance(self.model, ARS) and self.model.ep_info_buffer is not None:
            self.model.ep_info_buffer.extend(self._recent)
        if isinstance(self.model, TRPO):
            self._check_objective()
        self.model.dump_logs()
        self._alerts.look(self.model.num_timesteps)

    def _check_objective(self) -> None:
        """TRPO steps without an optimiser, and would take a NaN for a step that failed."""
        objective = self.model.logger.name_to_value.get("train/policy_objective", 0.0)
        if not math.isfinite(objective):
            raise NonFiniteError(
                f"NaN or infinity in the policy objective at step {self.model.num_timesteps:,}; "
                "the update was not applied"
            )

    def judge(self) -> None:
        """Evaluate, keep the model if none was better, count evaluations that solve the task."""
        step = self.model.num_timesteps
        evaluation = self.recipe.evaluation
        seeds = stream(self.recipe.seed, seeding.EVALUATION, evaluation.episodes)
        self.progress.evaluated_at = step
        try:
            with self.clock.during("evaluation"):
                episodes = evaluate(
                    self.model, self.recipe.env, seeds, evaluation.deterministic, self.recipe.seed
                )
        except NonFiniteError as error:
            if not watched(self.model).may_skip(f"{error}; it was not judged"):
                raise
            return
        numbers = summary(episodes)
        self.log.log(step, numbers)
        progress, mean = self.progress, numbers["eval/mean_reward"]
        better = progress.best is None or mean >= progress.best["return"]
        if better and self._saved(self.run.best, agent_state.playable(self.model)):
            progress.best = {"return": mean, "step": step}
            self.run.update_status(best=progress.best, step=step)
            self.log.event(step, "best", f"evaluation return {short(mean)}")
        target = self.recipe.target_return
        if target is not None:
            progress.solved_in_a_row = progress.solved_in_a_row + 1 if mean >= target else 0
            if progress.solved_in_a_row == 1:
                self.log.event(
                    step, "solved", f"evaluation return {short(mean)} reaches {target:g}"
                )

    def save_checkpoint(self) -> None:
        """Write a snapshot to resume from."""
        snapshot = agent_state.resumable(self.model, self.recipe.checkpoints.replay_buffer)
        environment = watched(self.model)
        self.progress.skipped = environment.skipped
        self.progress.restarted = environment.restarted
        snapshot.state["progress"] = asdict(self.progress)
        snapshot.state["made_with"] = made_with(self.model.device.type) | {
            "backend": backend(self.model)[0]
        }
        if not self._saved(self.run.checkpoints, snapshot):
            return
        kept = checkpoint.steps(self.run.checkpoints)[-self.recipe.checkpoints.keep :]
        checkpoint.prune(self.run.checkpoints, kept)
        # Keep what was best at the oldest checkpoint, too: a run resumed there needs it.
        best = checkpoint.steps(self.run.best)
        needed = max((step for step in best if step <= kept[0]), default=0)
        checkpoint.prune(self.run.best, [step for step in best if step >= needed])
        self.log.event(self.model.num_timesteps, "checkpoint", "saved")

    def _saved(self, parent: Path, snapshot: Snapshot) -> bool:
        """Write a snapshot; where the recipe can do without, return whether that could be done."""
        try:
            checkpoint.save(parent, snapshot)
        except StorageError as error:
            if self.recipe.checkpoints.required:
                raise
            self._not_saved += 1
            self.log.event(
                self.model.num_timesteps,
                "checkpoint-failed",
                f"{error}; training goes on without it ({self._not_saved} so far)",
                "warning",
            )
            return False
        return True

    def finish(self) -> None:
        """The last boundary, which SB3 does not announce: log, judge and save once more."""
        self.clock.enter("lab")
        self.dump()
        if self.progress.evaluated_at < self.model.num_timesteps:
            self.judge()
        self.save_checkpoint()
