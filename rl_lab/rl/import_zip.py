"""A run made of an agent that somebody else trained with Stable-Baselines3."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from rl_lab import checkpoint
from rl_lab.errors import UserError
from rl_lab.files import StorageError
from rl_lab.metrics import MetricLog
from rl_lab.rl import agent, agent_state, sb3_zip
from rl_lab.rl.boundary import Progress
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.sb3_zip import Content
from rl_lab.run import Run


def import_zip(
    file: Path,
    recipe: AgentRecipe,
    name: str,
    command: list[str],
    normalization: Path | None,
    trust: bool,
) -> Run:
    """Make a finished run of the agent in an SB3 zip.

    Args:
        file: the zip.
        recipe: describes the environment and network it was trained with.
        name: of the run.
        command: the command line that asked for it.
        normalization: what `VecNormalize.save` wrote; needed where the recipe normalises
            observations.
        trust: whether pickles may be read.

    Raises:
        UserError: a file cannot be read or trusted, does not fit the recipe, or the name is taken.
        StorageError: the run cannot be written; nothing is left of it.
    """
    content = sb3_zip.read(file, trust)
    wanted = recipe.env.normalize
    if normalization is not None and wanted is None:
        raise UserError("--normalization: the recipe has no env.normalize")
    if normalization is None and wanted is not None and wanted.observations:
        raise UserError(
            "the recipe normalises observations: give --normalization FILE.pkl, as "
            "VecNormalize.save wrote it, or --env.normalize null if the agent did without"
        )
    normalizer = sb3_zip.read_normalization(normalization, trust) if normalization else None
    model = agent.build(recipe)
    try:
        _put(content, normalizer, model)
    finally:
        model.env.close()  # type: ignore[union-attr]
    run = Run.create(name, recipe, command, recipe.seed, recipe.threads)
    try:
        with run.lock(), MetricLog(run.metrics_file) as log:
            snapshot = agent_state.learnt(model, with_replay_buffer=False)
            snapshot.state["progress"] = asdict(Progress())
            checkpoint.save(run.checkpoints, snapshot)
            checkpoint.save(run.best, agent_state.playable(model))
            reason = f"imported from {file.name}"
            log.event(model.num_timesteps, "finished", reason)
            run.update_status(state="finished", step=model.num_timesteps, reason=reason)
    except StorageError:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return run


def _put(content: Content, normalizer: VecNormalize | None, model: BaseAlgorithm) -> None:
    """Put what was read into an algorithm built from a recipe.

    Raises:
        UserError: they do not fit; it names the first tensor that differs.
    """
    names, variables = model._get_torch_save_params()
    for name in names:
        part, given = recursive_getattr(model, name), content.modules.get(name)
        if isinstance(part, torch.optim.Optimizer):
            if given is not None:
                _put_optimizer(content, name, part, given)
        else:
            _check_fit(content, name, part.state_dict(), given or {})
            part.load_state_dict(given)
    own = {name: recursive_getattr(model, name) for name in variables}
    _check_fit(content, "pytorch_variables", own, content.variables)
    for name, variable in own.items():
        variable.data.copy_(content.variables[name])
    for name in agent_state.COUNTERS:
        if name in content.plain and hasattr(model, name):
            setattr(model, name, _number(content, name, 0, 10**12))
    if hasattr(model, "exploration_rate"):
        model.exploration_rate = float(_number(content, "exploration_rate", 0, 1))
    if normalizer is not None:
        _put_normalization(normalizer, model)


def _number(content: Content, name: str, least: int, most: int) -> int | float:
    """A plain number of `data`, 0 if it is not there.

    Raises:
        UserError: it is no number in [least, most].
    """
    value = content.plain.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{content.name}: {name} should be a number from {least} to {most}")
    return value


def _check_fit(content: Content, part: str, own: dict[str, Tensor], given: dict[str, Any]) -> None:
    """Compare names and shapes with the network that the recipe builds."""
    for name, tensor in own.items():
        where = f"{part} does not fit the recipe: {content.name}"
        if name not in given:
            raise UserError(f"{where} has no {name}, of shape {tuple(tensor.shape)}")
        found = given[name]
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"{where} has {name} of shape {shape}, the recipe of {tuple(tensor.shape)}"
            )
        if not found.isfinite().all():
            raise UserError(f"{content.name}: {name} holds NaN or infinity")
    for name in given:
        if name not in own:
            raise UserError(
                f"{part} does not fit the recipe: {content.name} has {name!r}, which the recipe's "
                "network has not"
            )


def _put_optimizer(
    content: Content, name: str, optimizer: torch.optim.Optimizer, given: dict[str, Any]
) -> None:
    """Take over an optimiser's moments; its settings are the recipe's."""
    shapes = [item.shape for group in optimizer.param_groups for item in group["params"]]
    state = given.get("state")
    if not isinstance(state, dict):
        raise UserError(f"{content.name}: {name} is no optimiser's state")
    for index, moments in state.items():
        if not _are_moments(index, moments, shapes):
            raise UserError(
                f"{name} does not fit the recipe: {content.name} has other moments for its "
                f"parameter {index}"
            )
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _are_moments(index: Any, moments: Any, shapes: list[torch.Size]) -> bool:
    if not isinstance(index, int) or not 0 <= index < len(shapes) or not isinstance(moments, dict):
        return False
    return all(
        value.shape in ((), shapes[index])
        if isinstance(value, Tensor)
        else isinstance(value, int | float)  # a count of steps
        for value in moments.values()
    )


def _put_normalization(given: VecNormalize, model: BaseAlgorithm) -> None:
    own = model.get_vec_normalize_env()
    assert own is not None
    if given.clip_obs != own.clip_obs:
        raise UserError(
            f"the normalisation clips at {given.clip_obs:g}, the recipe at {own.clip_obs:g}; give "
            f"--env.normalize.clip_observation {given.clip_obs:g}"
        )
    pairs = {"reward": (given.ret_rms, own.ret_rms)}
    if own.norm_obs:
        theirs, ours = (
            rms if isinstance(rms, dict) else {"observation": rms}
            for rms in (given.obs_rms if given.norm_obs else {}, own.obs_rms)
        )
        pairs |= {key: (theirs.get(key), rms) for key, rms in ours.items()}
    for name, (moments, target) in pairs.items():
        if moments is None or moments.mean.shape != target.mean.shape:
            raise UserError(f"the normalisation does not fit the recipe: {name} differs in shape")
        target.mean, target.var, target.count = moments.mean, moments.var, moments.count
