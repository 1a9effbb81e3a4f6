"""Training one agent, from recipe to run directory, top to bottom in `train`.

SB3 owns the loop of collecting and updating; what happens between an update and the next rollout
(logging, evaluation, checkpoints, stopping) is `rl_lab.rl.boundary`.
"""

import contextlib
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.files import StorageError
from rl_lab.metrics import Level, MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.rl import agent, agent_state, space
from rl_lab.rl.boundary import AtUpdateBoundary, Progress, StopLearning
from rl_lab.rl.environments import NonFiniteError, WatchedVecEnv
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.sb3_logger import sb3_logger
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from rl_lab.sinks import open_sinks
from rl_lab.storage import ending_in_order, from_newest_snapshot, shortage


class TrainingFailed(Exception):
    """The run cannot go on, through no bug of the lab's: the message says why."""


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
        StorageError: something could not be written; likewise, and it says how to go on.
    """
    with run.lock(), ending_in_order(run, lambda: from_newest_snapshot(run)):
        # 1. The agent in its environment, everything random seeded from recipe.seed.
        torch.set_num_threads(recipe.threads)
        snapshot, damaged = _newest_checkpoint(run)
        clock = PhaseClock("policy")
        model = agent.build(recipe, clock, first_step=snapshot.step if snapshot else 0)

        # 2. Where a run was interrupted, go on from its newest whole checkpoint.
        progress = Progress()
        if snapshot is not None:
            agent_state.restore(model, snapshot)
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
            for note in notes:
                log.event(model.num_timesteps, "note", note, "warning")
            short_of = shortage(run.path, space.needed(model, recipe))
            for remark in (*damaged, *filter(None, [short_of])):
                log.remark(model.num_timesteps, remark)

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
            except StorageError as error:
                with contextlib.suppress(StorageError):
                    log.event(model.num_timesteps, "failed", str(error), "error")
                raise
            except BaseException as error:
                _end(run, log, model, "failed", f"{type(error).__name__}: {error}", "error")
                raise
            _end(run, log, model, state, reason, "info")
            return state


def _learn(model: BaseAlgorithm, budget: int, boundary: AtUpdateBoundary) -> tuple[str, str]:
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
    except StopLearning as why:
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
