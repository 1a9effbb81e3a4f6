"""Training one agent, from recipe to run directory, top to bottom in `train`.

SB3 owns the loop of collecting and updating; what happens between an update and the next rollout
(logging, evaluation, checkpoints, stopping) is `rl_lab.rl.boundary`.
"""

from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.metrics import Level, MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.provenance import differences, made_with
from rl_lab.rl import agent, agent_state, moment
from rl_lab.rl.boundary import AtUpdateBoundary, Progress, StopLearning
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.sb3_logger import sb3_logger
from rl_lab.rl.watched_vec_env import NonFiniteError, watched
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from rl_lab.sinks import open_sinks


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
    """
    with run.lock():
        # 1. The agent in its environment, everything random seeded from recipe.seed.
        torch.set_num_threads(recipe.threads)
        snapshot, damaged = _newest_checkpoint(run)
        clock = PhaseClock("policy")
        model = agent.build(recipe, clock)

        # 2. Where a run was interrupted, go on from its newest whole checkpoint, to the same bits
        #    if its environments can be brought to where they were.
        progress = Progress()
        differs = None
        if snapshot is not None:
            agent_state.restore(model, snapshot)
            progress = Progress(**snapshot.state["progress"])
            differs = _resume_episodes(model, recipe, snapshot)
        watched(model).steps = model.num_timesteps

        logging = recipe.logging
        sinks = open_sinks(run.path, logging.tensorboard, logging.trackio, logging.wandb)
        with MetricLog(run.metrics_file, sinks) as log:
            doubts: list[str] = []
            if snapshot is not None:
                log.event(model.num_timesteps, "resumed", f"from step {model.num_timesteps:,}")
                doubts = differences(
                    snapshot.state.get("made_with", {}), made_with(model.device.type)
                )
                if differs is not None:
                    doubts.append(f"it goes on with new episodes, to other bits: {differs}")
            elif run.metrics_file.stat().st_size:
                log.event(0, "restarted", "it had no checkpoint yet")
            for note in (*notes, *damaged, *doubts):
                log.event(model.num_timesteps, "note", note, "warning")

            # 3. Collect, update, and at each boundary log, judge and save, to the budget's end.
            model.set_logger(sb3_logger(log, clock))
            guard_gradients(model)
            exact = snapshot if differs is None else None
            boundary = AtUpdateBoundary(run, recipe, log, clock, progress, stop, exact)
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


def _resume_episodes(model: BaseAlgorithm, recipe: AgentRecipe, snapshot: Snapshot) -> str | None:
    """Bring the environments to where they were; where that fails, let them start new episodes.

    Returns:
        None, or why it failed.
    """
    differs = moment.play_episodes_again(model, snapshot)
    lost = hasattr(model, "replay_buffer") and "replay_buffer" not in snapshot.arrays
    if differs is None and lost:
        differs = "the replay buffer was not kept (checkpoints.replay_buffer)"
    if differs is not None:
        agent_state.cut_unfinished_episodes(model)
        agent.start_new_episodes(model, recipe, snapshot.step)
    return differs


def guard_gradients(model: BaseAlgorithm) -> None:
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
                    f"{watched(model).steps:,}; the update was not applied"
                )

        optimizer.register_step_pre_hook(check)
