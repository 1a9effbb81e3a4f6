"""Training one agent, from recipe to run directory, top to bottom in `train`.

SB3 owns the loop of collecting and updating; what happens between an update and the next rollout
(logging, evaluation, checkpoints, stopping) is `rl_lab.rl.boundary`.
"""

import contextlib

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.files import StorageError, recover
from rl_lab.metrics import Level, MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.provenance import differences, made_with
from rl_lab.rl import agent, agent_state, moment, replay_memory, space
from rl_lab.rl.algorithms import backend
from rl_lab.rl.boundary import AtUpdateBoundary, Progress, StopLearning
from rl_lab.rl.gradients import guard_gradients
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.sb3_logger import sb3_logger
from rl_lab.rl.watchdog import Watchdog
from rl_lab.rl.watched_vec_env import EnvironmentFailedError, NonFiniteError, watched
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from rl_lab.sinks import open_sinks
from rl_lab.storage import ending_in_order, from_newest_snapshot, shortage


class RollBack(Exception):
    """A NaN or infinity, for which the run goes back to its newest checkpoint."""

    def __init__(self, fault: str, number: int) -> None:
        super().__init__(fault)
        self.number = number


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
        TrainingFailed: a NaN or infinity, or an environment that failed, more often than the
            recipe allows; the run is `failed`, its checkpoints are whole.
        StorageError: something could not be written; likewise, and it says how to go on.
    """
    with run.lock(), ending_in_order(run, lambda: from_newest_snapshot(run)):
        torch.set_num_threads(recipe.threads)
        logging = recipe.logging
        wanted = (logging.tensorboard, logging.trackio, logging.wandb)
        with open_sinks(run.path, *wanted) as sinks, MetricLog(run.metrics_file, sinks) as log:
            rollback = None
            while True:
                try:
                    return _train_from_newest_checkpoint(run, recipe, log, stop, notes, rollback)
                except RollBack as why:
                    rollback, notes = why, ()


def _train_from_newest_checkpoint(  # noqa: PLR0915 -- a run reads top to bottom
    run: Run,
    recipe: AgentRecipe,
    log: MetricLog,
    stop: StopRequest,
    notes: tuple[str, ...],
    rollback: RollBack | None,
) -> str:
    """Train to the end; where a NaN sent the run back to its checkpoint, `rollback` tells of it."""
    # 1. The agent in its environment, everything random seeded from recipe.seed.
    snapshot, damaged = _newest_checkpoint(run)
    clock = PhaseClock("policy")
    model = agent.build(recipe, clock)

    # 2. Where a run was interrupted, go on from its newest whole checkpoint, to the same bits if
    #    its environments can be brought to where they were.
    progress = Progress()
    exact: Snapshot | None = None
    doubts: list[str] = []
    if snapshot is None:
        if run.metrics_file.stat().st_size:
            log.event(0, "restarted", "it had no checkpoint yet")
    else:
        progress = _progress_of(snapshot)
        if rollback is not None:
            progress.rollbacks = rollback.number
        exact, doubts = _restore(model, recipe, snapshot, progress, rollback is not None)
        log.event(snapshot.step, "resumed", f"from step {snapshot.step:,}")
        if rollback is not None:
            count = f"{progress.rollbacks} of {recipe.health.times}"
            sentence = f"{rollback}; back to here, with a lower learning rate ({count})"
            log.event(snapshot.step, "rollback", sentence, "warning")
    name, why = backend(model)
    log.event(model.num_timesteps, "backend", f"{name}: {why}")
    for note in notes:
        log.event(model.num_timesteps, "note", note, "warning")
    if replay_memory.settings(recipe, model.observation_space) and snapshot is None:
        log.event(0, "note", replay_memory.REMARK)
    short_of = shortage(run.path, space.needed(model, recipe))
    for remark in (*damaged, *doubts, *filter(None, [short_of])):
        log.remark(model.num_timesteps, remark)

    # 3. Collect, update, and at each boundary log, judge and save, to the budget's end.
    environment = watched(model)
    environment.report = lambda kind, sentence: log.event(
        environment.steps, kind, sentence, "warning"
    )
    model.set_logger(sb3_logger(log, clock))
    guard_gradients(model)
    boundary = AtUpdateBoundary(run, recipe, log, clock, progress, stop, exact)
    boundary.save_first = rollback is not None  # a kill must not make it forget what happened
    run.start(recipe.budget.steps, model.num_timesteps, progress.best)
    try:
        with Watchdog(clock, log, lambda: environment.steps):
            state, reason = _learn(model, recipe.budget.steps, boundary)
    except KeyboardInterrupt:
        reason = "interrupted twice; it goes on from its newest checkpoint"
        _end(run, log, model, "stopped", reason, "warning")
        raise
    except (NonFiniteError, EnvironmentFailedError) as error:
        if isinstance(error, NonFiniteError) and _may_roll_back(run, recipe, progress):
            raise RollBack(str(error), progress.rollbacks + 1) from None
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


def _progress_of(snapshot: Snapshot) -> Progress:
    """Read what training knew besides the agent.

    Raises:
        UserError: the snapshot is of another kind.
    """
    try:
        return Progress(**snapshot.state["progress"])
    except (KeyError, TypeError):
        raise UserError(
            f"the snapshot of step {snapshot.step:,} is no training agent's; move it away to go on "
            "from an older one"
        ) from None


def _may_roll_back(run: Run, recipe: AgentRecipe, progress: Progress) -> bool:
    health = recipe.health
    left = progress.rollbacks < health.times
    return health.on_nan == "rollback" and left and bool(checkpoint.steps(run.checkpoints))


def _restore(
    model: BaseAlgorithm,
    recipe: AgentRecipe,
    snapshot: Snapshot,
    progress: Progress,
    rolled_back: bool,
) -> tuple[Snapshot | None, list[str]]:
    """Put a snapshot into a new agent, and its environments where they were, or on a new way.

    Returns:
        The snapshot if the run goes on to the same bits, else None; and remarks on why it does not.
    """
    agent_state.restore(model, snapshot)
    then = snapshot.state.get("made_with", {})
    now = made_with(model.device.type) | {"backend": backend(model)[0]}
    doubts = differences(then, now)
    environment = watched(model)
    environment.steps = snapshot.step
    environment.skipped, environment.restarted = progress.skipped, progress.restarted
    differs = None
    if not rolled_back:
        differs = agent_state.lost(model, snapshot) or moment.play_episodes_again(model, snapshot)
        if differs is not None:
            doubts.append(f"it goes on with new episodes, to other bits: {differs}")
    if progress.rollbacks:
        agent.scale_learning_rate(model, recipe.health.rollback_rate**progress.rollbacks)
    if not rolled_back and differs is None:
        return snapshot, doubts
    agent_state.cut_unfinished_episodes(model)
    agent.start_new_episodes(model, recipe, snapshot.step, progress.rollbacks)
    return None, doubts


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
    for parent in (run.checkpoints, run.best):
        recover(parent)
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
