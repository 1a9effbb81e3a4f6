"""An RLHF experiment: its stages in order, each in a run directory inside the experiment's.

A stage whose inputs are those of one that finished before is not run again: it is taken from the
cache, and the log says so. Its inputs are its part of the recipe, the files that part names, the
seed, threads and kind of device, and the inputs of the stages it stands on: all hashed together.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from rl_lab import checkpoint, recipes, threads
from rl_lab.cache import cache_directory
from rl_lab.errors import UserError
from rl_lab.files import StorageError, write_json, writing
from rl_lab.metrics import MetricLog
from rl_lab.recipes import Section
from rl_lab.rlhf import space
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.stages import NEEDS, STAGES, VERSION, Stage
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest
from rl_lab.storage import ending_in_order, shortage


class StageRecipe(Section):
    """What a stage's recipe.yaml holds."""

    stage: str
    """Which one it is."""
    seed: int
    """The experiment's."""
    inputs: str
    """Hash of everything its result follows from."""
    settings: dict[str, Any]
    """Its section of the experiment's recipe."""


def train(run: Run, recipe: LanguageRecipe, stop: StopRequest, *, fresh: bool = False) -> str:
    """Run every stage that has not finished; return the state: `finished` or `stopped`.

    Args:
        run: the experiment's directory.
        recipe: its recipe.
        stop: asked between and within stages.
        fresh: whether stages that finished in other experiments are run again all the same.

    Raises:
        UserError: a stage's input cannot be used, or another process trains this experiment.
        StorageError: something could not be written; it says how to go on.
    """
    with run.lock(), ending_in_order(run, lambda: _what_resumes(run, recipe)):
        threads.pin(recipe.threads)
        torch.set_num_threads(recipe.threads)
        device = device_of(recipe)
        inputs = hashes(recipe, device)
        with MetricLog(run.metrics_file) as log:
            run.start(len(recipe.stages), 0, None)
            run.update_status(unit="stages")
            short_of = shortage(run.path, space.needed(recipe))
            if short_of:
                log.remark(0, short_of)
            try:
                for number, name in enumerate(recipe.stages):
                    run.update_status(stage=name, step=number)
                    _one_stage(name, number, run, recipe, inputs[name], device, log, stop, fresh)
            except Stopped as why:
                _end(run, log, "stopped", str(why))
                return "stopped"
            except KeyboardInterrupt:
                _end(run, log, "stopped", "interrupted twice")
                raise
            except BaseException as error:
                _end(run, log, "failed", f"{name}: {_said(error)}")
                raise
            run.update_status(step=len(recipe.stages))
            if "evaluate" in recipe.stages:
                write_json(run.evaluation_file, Run(run.path / "evaluate").evaluations)
            _end(run, log, "finished", "every stage is done")
            return "finished"


def _one_stage(
    name: str,
    number: int,
    run: Run,
    recipe: LanguageRecipe,
    inputs: str,
    device: str,
    log: MetricLog,
    stop: StopRequest,
    fresh: bool,
) -> None:
    """Have one stage finished: here already, from the cache, or by running it."""
    stage = Run(run.path / name)
    if stage.path.exists() and not stage.recipe_file.exists():
        with writing(stage.path):
            shutil.rmtree(stage.path)  # it was killed while it was being made
    if stage.recipe_file.exists():
        if _inputs_of(stage) != inputs:
            raise UserError(
                f"what stage {name!r} of {run.name} was made from has changed since (a file, the "
                "number of threads or the device); start a new experiment"
            )
        if stage.status["state"] == "finished":
            log.event(number, "stage", f"{name}: finished before")
            return
    elif not fresh and _take(name, inputs, stage):
        log.event(number, "stage", f"{name}: reused, an experiment with the same inputs ran it")
        return
    else:
        content = StageRecipe(
            stage=name, seed=recipe.seed, inputs=inputs, settings=_plain(getattr(recipe, name))
        )
        Run.create(name, content, [], recipe.seed, recipe.threads, parent=run.path)
    log.event(number, "stage", f"{name}: started")
    _run_stage(name, stage, run, recipe, device, stop)
    _keep(name, inputs, stage, fresh)
    log.event(number, "stage", f"{name}: finished")


def _run_stage(
    name: str, stage: Run, run: Run, recipe: LanguageRecipe, device: str, stop: StopRequest
) -> None:
    """Run one stage in its directory; its status says how it ended."""
    with writing(stage.metrics_file):
        stage.metrics_file.touch()
    with stage.lock(), MetricLog(stage.metrics_file) as log:
        stage.start(0, 0, stage.status.get("best"))
        if name != "ppo" and stage.metrics_file.stat().st_size:  # ppo goes on where it was
            log.event(0, "restarted", "the stage starts over")
        state, reason = "failed", ""
        try:
            stop.check()
            STAGES[name](Stage(recipe, run.path, stage, log, stop, device))
            state = "finished"
        except Stopped as why:
            state, reason = "stopped", str(why)
            raise
        except KeyboardInterrupt:
            state, reason = "stopped", "interrupted twice"
            raise
        except BaseException as error:
            reason = _said(error)
            raise
        finally:
            _end(stage, log, state, reason or None)


def _end(run: Run, log: MetricLog, state: str, reason: str | None) -> None:
    """Write down how a run ended; where that cannot be, what made it fail is what is said."""
    failed = state == "failed"
    tolerant = contextlib.suppress(StorageError) if failed else contextlib.nullcontext()
    with tolerant:
        log.event(run.status["step"], state, reason or "done", "error" if failed else "info")
    with tolerant:
        run.update_status(state=state, reason=reason)


def _said(error: BaseException) -> str:
    if isinstance(error, UserError | StorageError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _what_resumes(run: Run, recipe: LanguageRecipe) -> str:
    """What resuming an experiment would do now."""
    for name in recipe.stages:
        stage = Run(run.path / name)
        if stage.status["state"] != "finished":
            step = checkpoint.newest_whole(stage.checkpoints)
            where = "its start" if step is None else f"step {step:,}, which is safe"
            return f"goes on with the stage {name!r} from {where}"
    return "ends it; every stage is done"


def device_of(recipe: LanguageRecipe) -> str:
    """The device a recipe asks for; auto: a GPU if there is one.

    Raises:
        UserError: it is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True
    }  # fmt: skip
    if recipe.device == "auto":
        return next(name for name, there in available.items() if there)
    if not available[recipe.device]:
        raise UserError(f"device = {recipe.device!r}: torch finds none here; use auto or cpu")
    return recipe.device


# --- what a result follows from ------------------------------------------------------------------


def hashes(recipe: LanguageRecipe, device: str) -> dict[str, str]:
    """Hash of the inputs of each stage of the recipe."""
    found: dict[str, str] = {}
    for name in recipe.stages:
        section = getattr(recipe, name)
        own_seed = name in ("data", "judges") or getattr(section, "seed", None) is not None
        content = {
            "stage": name,
            "version": VERSION[name],
            "settings": _plain(section),
            "files": {text: _hash_of_file(text) for text in sorted(set(_texts_in(section)))},
            "seed": None if own_seed else recipe.seed,
            "threads": recipe.threads,
            "device": device,
            "versions": {name: version(name) for name in ("rl-lab", "torch", "transformers")},
            "stands_on": {need: found[need] for need in NEEDS[name] if need in found},
        }
        if name == "data":  # the same whatever computes it
            content |= {"threads": None, "device": None, "versions": None}
        found[name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return found


def _plain(section: Any) -> Any:
    """A section, or a dict of sections, as plain data."""
    if isinstance(section, BaseModel):
        return section.model_dump(mode="json")
    return {name: _plain(inner) for name, inner in section.items()}


def _texts_in(section: Any) -> Iterator[str]:
    """Every text in a section that may be the name of a file or directory."""
    if isinstance(section, BaseModel):
        section = _plain(section)
    if isinstance(section, str):
        yield section.rpartition(".py:")[0] + ".py" if ".py:" in section else section
    elif isinstance(section, dict | list):
        for inner in section.values() if isinstance(section, dict) else section:
            yield from _texts_in(inner)


def _hash_of_file(text: str) -> str | None:
    """SHA-256 of the file, or of all files of the model's directory, of that name; else None."""
    path = Path(text)
    try:
        model = path.is_dir() and (path / "config.json").is_file()
        files = sorted(path.rglob("*")) if model else [path]
        digest = hashlib.sha256()
        for file in files:
            if file.is_file():
                digest.update(str(file.relative_to(path) if path.is_dir() else "").encode())
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    except OSError:
        return None
    return digest.hexdigest() if any(file.is_file() for file in files) else None


def _inputs_of(stage: Run) -> Any:
    """The hash a stage was begun with."""
    return recipes.read(str(stage.recipe_file))[2].get("inputs")


# --- the cache -----------------------------------------------------------------------------------


def _cached(name: str, inputs: str) -> Path:
    return cache_directory() / "stages" / f"{name}-{inputs[:32]}"


def _take(name: str, inputs: str, stage: Run) -> bool:
    """Put a finished stage from the cache into the experiment; return whether there was one."""
    cached = Run(_cached(name, inputs))
    if not cached.recipe_file.is_file() or cached.status["state"] != "finished":
        return False
    try:
        _copy(cached.path, stage.path)
    except OSError:  # it is being replaced, or there is no room: the stage is run instead
        return False
    stage.update_status(reused=True)
    return True


def _keep(name: str, inputs: str, stage: Run, fresh: bool) -> None:
    """Put a finished stage into the cache, unless it is there; without room for it, do without."""
    cached = _cached(name, inputs)
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        if fresh and cached.exists():
            shutil.rmtree(cached)
        if not cached.exists():
            _copy(stage.path, cached)


NOT_COPIED = {"checkpoints", "best", "lock", "console.log"}
"""What a finished stage has no more use for."""


def _copy(source: Path, target: Path) -> None:
    """Copy a stage, whole or not at all.

    Raises:
        OSError: there is no room, or the target is there already.
    """

    def unneeded(directory: str, names: list[str]) -> set[str]:
        return NOT_COPIED & set(names) if Path(directory) == source else set()

    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        shutil.copytree(source, temporary / "whole", ignore=unneeded)
        (temporary / "whole").rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
