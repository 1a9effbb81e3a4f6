"""Training one agent, from recipe to run directory, top to bottom in `train`.

SB3 owns the loop of collecting and updating. Between an update and the next rollout there is a
moment when nothing is half done: logging, evaluation, checkpoints and stopping all happen there
(`AtUpdateBoundary`), so what they see, and what a checkpoint holds, is a whole number of updates.
"""

import math
import signal
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from sb3_contrib import ARS, TRPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import recursive_getattr

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.metrics import Level, MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.rl import agent, seeding
from rl_lab.rl.environments import NonFiniteError, WatchedVecEnv
from rl_lab.rl.evaluate import evaluate, summary
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.sb3_logger import sb3_logger
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from rl_lab.sinks import open_sinks
from rl_lab.text import short

HEARTBEAT_SECONDS = 1.0


class TrainingFailed(Exception):
    """The run cannot go on, through no bug of the lab's: the message says why."""


@dataclass
class Progress:
    """What training knows besides the agent; kept in every checkpoint."""

    best: dict[str, float] | None = None
    """`return` and `step` of the best evaluation so far."""
    solved_in_a_row: int = 0
    evaluated_at: int = -1


def train(run: Run, recipe: AgentRecipe, stop: StopRequest, notes: tuple[str, ...] = ()) -> str:
    """Train the agent of a recipe in its run directory, from its newest checkpoint if it has one.

    Args:
        run: a directory made by `Run.create`.
        recipe: its recipe.
        stop: asked at every update boundary.
        notes: remarks for the run's event log.

    Returns:
        The state the run ended in: `"finished"` or `"stopped"`.

    Raises:
        UserError: the recipe's parts do not fit together, or another process trains this run.
        TrainingFailed: a NaN or infinity; the run is `failed`, its checkpoints are whole.
    """
    with run.lock():
        # 1. The agent in its environment, everything random seeded from recipe.seed.
        torch.set_num_threads(recipe.threads)
        snapshot, damaged = _newest_checkpoint(run)
        clock = PhaseClock("policy")
        model = agent.build(recipe, clock, first_step=snapshot.step if snapshot else 0)

        # 2. Where a run was interrupted, go on from its newest whole checkpoint.
        progress = Progress()
        if snapshot is not None:
            agent.restore(model, snapshot)
            progress = Progress(**snapshot.state["progress"])
        watched = _watched(model)
        watched.steps = model.num_timesteps

        logging = recipe.logging
        sinks = open_sinks(run.path, logging.tensorboard, logging.trackio, logging.wandb)
        with MetricLog(run.metrics_file, sinks) as log:
            if snapshot is not None:
                log.event(model.num_timesteps, "resumed", f"from step {model.num_timesteps:,}")
            elif run.metrics_file.stat().st_size:
                log.event(0, "restarted", "it had no checkpoint yet")
            for note in (*notes, *damaged):
                log.event(model.num_timesteps, "note", note, "warning")

            # 3. Collect, update, and at each boundary log, judge and save, to the budget's end.
            model.set_logger(sb3_logger(log, clock))
            guard_gradients(model, watched)
            boundary = AtUpdateBoundary(run, recipe, log, clock, progress, stop)
            run.start(recipe.budget.steps, model.num_timesteps, progress.best)
            try:
                state, reason = _learn(model, recipe.budget.steps, boundary)
            except KeyboardInterrupt:
                reason = "interrupted twice; it goes on from its newest checkpoint"
                _end(run, log, model, "stopped", reason, "warning")
                raise
            except NonFiniteError as error:
                _end(run, log, model, "failed", str(error), "error")
                raise TrainingFailed(str(error)) from None
            except BaseException as error:
                _end(run, log, model, "failed", f"{type(error).__name__}: {error}", "error")
                raise
            _end(run, log, model, state, reason, "info")
            return state


def _learn(model: BaseAlgorithm, budget: int, boundary: "AtUpdateBoundary") -> tuple[str, str]:
    """Learn until the budget is spent or the boundary says stop; return state and reason."""
    try:
        if model.num_timesteps < budget:
            model.learn(
                budget - model.num_timesteps,
                callback=boundary,
                log_interval=None,  # type: ignore[arg-type]
                reset_num_timesteps=False,
            )
            boundary.finish()
        return "finished", "the budget is spent"
    except _Stop as why:
        boundary.save_checkpoint()
        return why.state, str(why)
    finally:
        model.env.close()  # type: ignore[union-attr]


def _end(
    run: Run, log: MetricLog, model: BaseAlgorithm, state: str, reason: str, level: Level
) -> None:
    log.event(model.num_timesteps, state, reason, level)
    run.update_status(state=state, reason=reason, step=model.num_timesteps)


def _newest_checkpoint(run: Run) -> tuple[Snapshot | None, list[str]]:
    """Find where to go on from, and remove what lies beyond: it is to come again.

    Returns:
        The newest whole checkpoint (None: the run starts), and what was wrong with newer ones.

    Raises:
        UserError: there are checkpoints, but none is whole; nothing is removed.
    """
    snapshot, damaged = checkpoint.latest(run.checkpoints)
    if snapshot is None and damaged:
        raise UserError(
            f"no checkpoint of run {run.name!r} is whole ({damaged[0]}); to start the run again, "
            f"move {run.checkpoints} away"
        )
    known = range(snapshot.step + 1) if snapshot is not None else ()
    checkpoint.prune(run.checkpoints, known)
    checkpoint.prune(run.best, known)
    return snapshot, damaged


class _Stop(Exception):
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
    ) -> None:
        super().__init__()
        self.run = run
        self.recipe = recipe
        self.log = log
        self.clock = clock
        self.progress = progress
        self.stop = stop
        self._last_boundary: int | None = None
        self._heartbeat = 0.0
        self._recent: list[dict[str, Any]] = []

    def _on_rollout_start(self) -> None:
        self.clock.enter("lab")
        step = self.model.num_timesteps
        if self._due(self.recipe.logging.every, step) and step > 0:
            self.dump()
        if self._due(self.recipe.evaluation.every, step):
            self.judge()
        if self._due(self.recipe.checkpoints.every, step) and step > 0:
            self.save_checkpoint()
        self._last_boundary = step
        if self.progress.solved_in_a_row == self.recipe.evaluation.stop_after_solved:
            raise _Stop("finished", f"solved {self.progress.solved_in_a_row} times running")
        if self.stop.signal is not None:
            raise _Stop("stopped", f"asked to by {signal.Signals(self.stop.signal).name}")
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
            return step == 0
        return step // every > self._last_boundary // every

    # --- what may be due -------------------------------------------------------------------------

    def dump(self) -> None:
        """Write SB3's numbers: means of recent episodes, and those of the last update."""
        if isinstance(self.model, ARS) and self.model.ep_info_buffer is not None:
            self.model.ep_info_buffer.extend(self._recent)
        if isinstance(self.model, TRPO):
            self._check_objective()
        self.model.dump_logs()

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
        seeds = seeding.stream(self.recipe.seed, seeding.EVALUATION, evaluation.episodes)
        with self.clock.during("evaluation"):
            episodes = evaluate(
                self.model, self.recipe.env, seeds, evaluation.deterministic, self.recipe.seed
            )
        numbers = summary(episodes)
        self.log.log(step, numbers)
        progress, mean = self.progress, numbers["eval/mean_reward"]
        progress.evaluated_at = step
        if progress.best is None or mean >= progress.best["return"]:
            progress.best = {"return": mean, "step": step}
            checkpoint.save(self.run.best, agent.playable(self.model))
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
        snapshot = agent.resumable(self.model, self.recipe.checkpoints.replay_buffer)
        snapshot.state["progress"] = asdict(self.progress)
        checkpoint.save(self.run.checkpoints, snapshot)
        kept = checkpoint.steps(self.run.checkpoints)[-self.recipe.checkpoints.keep :]
        checkpoint.prune(self.run.checkpoints, kept)
        # Keep what was best at the oldest checkpoint, too: a run resumed there needs it.
        best = checkpoint.steps(self.run.best)
        needed = max((step for step in best if step <= kept[0]), default=0)
        checkpoint.prune(self.run.best, [step for step in best if step >= needed])
        self.log.event(self.model.num_timesteps, "checkpoint", "saved")

    def finish(self) -> None:
        """The last boundary, which SB3 does not announce: log, judge and save once more."""
        self.clock.enter("lab")
        self.dump()
        if self.progress.evaluated_at < self.model.num_timesteps:
            self.judge()
        self.save_checkpoint()


def guard_gradients(model: BaseAlgorithm, watched: WatchedVecEnv) -> None:
    """Stop before an optimiser would apply a gradient that is NaN or infinite."""
    for name in model._get_torch_save_params()[0]:
        optimizer = recursive_getattr(model, name)
        if not isinstance(optimizer, torch.optim.Optimizer):
            continue

        def check(optimizer: torch.optim.Optimizer, *_: Any, name: str = name) -> None:
            gradients = [
                parameter.grad
                for group in optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            if not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
                raise NonFiniteError(
                    f"NaN or infinity in the loss or its gradient ({name}) at step "
                    f"{watched.steps:,}; the update was not applied"
                )

        optimizer.register_step_pre_hook(check)


def _watched(model: BaseAlgorithm) -> WatchedVecEnv:
    """Find our wrapper in the stack around the training environment."""
    vector: Any = model.env
    while not isinstance(vector, WatchedVecEnv):
        vector = vector.venv
    return vector
