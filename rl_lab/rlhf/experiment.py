"""An RLHF experiment: its stages in order, each in a run directory inside the experiment's.

A stage whose inputs (`rl_lab.rlhf.stage_inputs`) are those of one that finished before is not run
again: it is taken from the cache, and the log says so.
"""

import contextlib
import shutil
from typing import Any

import torch

from rl_lab import checkpoint, recipes, threads
from rl_lab.errors import UserError
from rl_lab.files import StorageError, write_json, writing
from rl_lab.metrics import MetricLog
from rl_lab.provenance import differences
from rl_lab.recipes import Section
from rl_lab.rlhf import space, stage_cache, stage_inputs
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.stage_inputs import Circumstances
from rl_lab.rlhf.stages import GOES_ON, STAGES, Stage
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
    """Hash of everything its result follows from (rl_lab.rlhf.stage_inputs)."""
    made_with: Circumstances
    """Threads, device and versions when it was begun; they are part of the hash."""
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
        with MetricLog(run.metrics_file) as log:
            run.start(len(recipe.stages), 0, None)
            run.update_status(unit="stages")
            short_of = shortage(run.path, space.needed(recipe))
            if short_of:
                log.remark(0, short_of)
            try:
                work = Work(run, recipe, device, log, stop, fresh)
                for number, name in enumerate(recipe.stages):
                    run.update_status(stage=name, step=number)
                    work.finish(number, name)
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


class Work:
    """The stages of one experiment, finished one after the other."""

    def __init__(
        self,
        run: Run,
        recipe: LanguageRecipe,
        device: str,
        log: MetricLog,
        stop: StopRequest,
        fresh: bool,
    ) -> None:
        self.run, self.recipe, self.device = run, recipe, device
        self.log, self.stop, self.fresh = log, stop, fresh
        self.now = stage_inputs.circumstances(recipe, device)
        self.inputs = stage_inputs.hashes(recipe, self.now)
        self.of_one_piece = True
        """Whether the stages so far were made under the circumstances of now, and may be shared."""

    def finish(self, number: int, name: str) -> None:
        """Have one stage finished: here already, from the cache, or by running it."""
        stage = Run(self.run.path / name)
        shared = self.of_one_piece and not self.fresh
        if stage.path.exists() and not stage.recipe_file.exists():
            with writing(stage.path):
                shutil.rmtree(stage.path)  # it was killed while it was being made
        if stage.recipe_file.exists():
            self._look_at_inputs(number, name, stage)
            if stage.status["state"] == "finished":
                self._tidy(name, stage, replace=False)  # it may have been killed before it was
                self.log.event(number, "stage", f"{name}: finished before")
                return
        elif shared and stage_cache.take(name, self.inputs[name], stage):
            said = f"{name}: reused, an experiment with the same inputs ran it"
            self.log.event(number, "stage", said)
            return
        else:
            recipe = StageRecipe(
                stage=name,
                seed=self.recipe.seed,
                inputs=self.inputs[name],
                made_with=self.now,
                settings=stage_inputs.plain(getattr(self.recipe, name)),
            )
            seed, threads = self.recipe.seed, self.recipe.threads
            Run.create(name, recipe, [], seed, threads, parent=self.run.path)
        self.log.event(number, "stage", f"{name}: started")
        _run_stage(name, stage, self.run, self.recipe, self.device, self.stop)
        self._tidy(name, stage, replace=self.fresh)
        self.log.event(number, "stage", f"{name}: finished")

    def _tidy(self, name: str, stage: Run, replace: bool) -> None:
        """Drop what a finished stage has no more use for, and keep it for other experiments."""
        _drop_checkpoints(stage)
        if self.of_one_piece:
            stage_cache.keep(name, self.inputs[name], stage, replace)

    def _look_at_inputs(self, number: int, name: str, stage: Run) -> None:
        """Say where a stage was begun under other circumstances.

        Raises:
            UserError: what it was made from has changed.
        """
        written = recipes.read(str(stage.recipe_file))[2]
        if written.get("inputs") == self.inputs[name]:
            return
        then: Circumstances = written.get("made_with") or {}
        known = then.keys() == self.now.keys()
        if not known or stage_inputs.hashes(self.recipe, then)[name] != written.get("inputs"):
            raise UserError(
                f"what stage {name!r} of {self.run.name} was made from has changed since (a file, "
                "or its recipe); start a new experiment"
            )
        self.of_one_piece = False
        for sentence in differences(then, self.now):
            self.log.remark(number, f"{name}: {sentence}")


def _drop_checkpoints(stage: Run) -> None:
    """A finished stage is never gone on with: its results are all that is needed of it."""
    shutil.rmtree(stage.checkpoints, ignore_errors=True)


def _run_stage(
    name: str, stage: Run, run: Run, recipe: LanguageRecipe, device: str, stop: StopRequest
) -> None:
    """Run one stage in its directory; its status says how it ended."""
    with writing(stage.metrics_file):
        stage.metrics_file.touch()
    with stage.lock(), MetricLog(stage.metrics_file) as log:
        stage.start(0, 0, stage.status.get("best"))
        if name not in GOES_ON and stage.metrics_file.stat().st_size:
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
