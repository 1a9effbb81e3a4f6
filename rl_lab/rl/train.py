"""Training one agent, from recipe to run directory, top to bottom in `train`.

SB3 owns the loop of collecting and updating. Between an update and the next rollout there is a
moment when nothing is half done: logging, evaluation, checkpoints and stopping all happen there
(`AtUpdateBoundary`), so what they see, and what a checkpoint holds, is a whole number of updates.
"""

import signal
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import recursive_getattr

from rl_lab import checkpoint
from rl_lab.metrics import MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.rl import agent, seeding
from rl_lab.rl.environments import NonFiniteError, WatchedVecEnv
from rl_lab.rl.evaluate import evaluate, summary
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.sb3_logger import sb3_logger
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from rl_lab.sinks import open_sinks

HEARTBEAT_SECONDS = 1.0


class TrainingFailed(Exception):
    """The run cannot go on, through no bug of the lab's: the message says why."""


@dataclass
class Progress:
    """What training knows besides the agent; kept in every checkpoint."""

    best_return: float | None = None
    best_step: int = 0
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
        clock = PhaseClock("policy")
        model = agent.build(recipe, clock)

        # 2. Where a run was interrupted, go on from its newest whole checkpoint.
        progress = Progress()
        snapshot, damaged = checkpoint.latest(run.checkpoints)
        if snapshot is not None:
            agent.restore(model, snapshot)
            progress = Progress(**snapshot.state["progress"])
        watched = _watched(model)
        watched.steps = model.num_timesteps

        sinks = open_sinks(
            run.path, recipe.logging.tensorboard, recipe.logging.trackio, recipe.logging.wandb
        )
        with MetricLog(run.metrics_file, sinks) as log:
            if run.metrics_file.stat().st_size:
                log.event(model.num_timesteps, "resumed", f"from step {model.num_timesteps:,}")
            for note in (*notes, *damaged):
                log.event(model.num_timesteps, "note", note, "warning")

            # 3. Collect, update, and at each boundary log, judge and save, to the budget's end.
            model.set_logger(sb3_logger(log, clock))
            guard_gradients(model, watched)
            boundary = AtUpdateBoundary(run, recipe, log, clock, progress, stop)
            run.start(recipe.budget.steps)
            try:
                remaining = recipe.budget.steps - model.num_timesteps
                if remaining > 0:
                    model.learn(
                        remaining,
                        callback=boundary,
                        log_interval=None,  # type: ignore[arg-type]
                        reset_num_timesteps=False,
                    )
                    boundary.finish()
                state, reason = "finished", boundary.reason
            except _Stop as why:
                boundary.save_checkpoint()
                state, reason = why.state, str(why)
            except NonFiniteError as error:
                log.event(model.num_timesteps, "failed", str(error), "error")
                run.update_status(state="failed", reason=str(error))
                raise TrainingFailed(str(error)) from None
            except BaseException as error:
                reason = f"{type(error).__name__}: {error}"
                log.event(model.num_timesteps, "failed", reason, "error")
                run.update_status(state="failed", reason=reason)
                raise
            finally:
                model.env.close()  # type: ignore[union-attr]
            log.event(model.num_timesteps, state, reason)
            run.update_status(state=state, reason=reason, step=model.num_timesteps)
            return state


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
        self.reason = "the budget is spent"
        self._last_boundary: int | None = None
        self._heartbeat = 0.0

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

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now - self._heartbeat >= HEARTBEAT_SECONDS:
            self._heartbeat = now
            with self.clock.during("lab"):
                self.run.update_status(step=self.model.num_timesteps, wall=self.log.wall)
        return True

    def _due(self, every: int, step: int) -> bool:
        """Whether a multiple of `every` lies between the last boundary and this one."""
        if self._last_boundary is None:  # the first boundary: of a new run, or of a resumed one
            return step == 0
        return step // every > self._last_boundary // every

    # --- what may be due -------------------------------------------------------------------------

    def dump(self) -> None:
        """Write SB3's numbers of the rollouts and updates since the last line."""
        self.model.dump_logs()

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
        if progress.best_return is None or mean >= progress.best_return:
            progress.best_return, progress.best_step = mean, step
            checkpoint.save(self.run.best, agent.playable(self.model), keep=1)
            self.run.update_status(best={"return": mean, "step": step}, step=step)
            self.log.event(step, "best", f"evaluation return {mean:.2f}")
        target = self.recipe.target_return
        if target is not None:
            progress.solved_in_a_row = progress.solved_in_a_row + 1 if mean >= target else 0
            if progress.solved_in_a_row == 1:
                self.log.event(step, "solved", f"evaluation return {mean:.2f} reaches {target:g}")

    def save_checkpoint(self) -> None:
        """Write a snapshot to resume from."""
        snapshot = agent.resumable(self.model, self.recipe.checkpoints.replay_buffer)
        snapshot.state["progress"] = asdict(self.progress)
        checkpoint.save(self.run.checkpoints, snapshot, self.recipe.checkpoints.keep)
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
