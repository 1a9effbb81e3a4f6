"""The stages of an RLHF experiment: what each is called with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rl_lab.metrics import MetricLog
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.run import Run
from rl_lab.signals import StopRequest


@dataclass(frozen=True)
class Stage:
    """What a stage is run with."""

    recipe: LanguageRecipe
    experiment: Path
    """The experiment's directory, with the stages before this one in it."""
    run: Run
    log: MetricLog
    stop: StopRequest
    device: str

    def before(self, name: str) -> Path | None:
        """Directory of an earlier stage; None if this experiment has none of that name."""
        return self.experiment / name if name in self.recipe.stages else None


def _data(stage: Stage) -> None:
    from rl_lab.rlhf.prepare_data import prepare_data

    prepare_data(
        stage.recipe.data, stage.run, stage.log, stage.stop,
        seed=stage.recipe.seed, device=stage.device, for_ppo=stage.recipe.ppo is not None,
    )  # fmt: skip


def _pretrain(stage: Stage) -> None:
    from rl_lab.rlhf.pretrain import pretrain

    assert stage.recipe.pretrain is not None
    pretrain(
        stage.recipe.pretrain, stage.experiment / "data", stage.run, stage.log, stage.stop,
        seed=stage.recipe.seed, device=stage.device,
        snapshots_required=stage.recipe.checkpoints.required,
    )  # fmt: skip


def _reward(stage: Stage) -> None:
    from rl_lab.rlhf.train_reward import train_reward

    section, pretrain = stage.recipe.reward, stage.before("pretrain")
    assert section is not None
    base = pretrain / "model" if section.base == "pretrain" and pretrain else section.base
    train_reward(
        section, stage.experiment / "data", base, stage.run, stage.log, stage.stop,
        seed=stage.recipe.seed, device=stage.device,
        snapshots_required=stage.recipe.checkpoints.required,
    )  # fmt: skip


def _judges(stage: Stage) -> None:
    from rl_lab.rlhf.judges import fit_judges

    assert stage.recipe.judges is not None
    fit_judges(stage.recipe.judges, stage.experiment / "data", stage.run, stage.log, stage.stop)


def _ppo(stage: Stage) -> None:
    from rl_lab.rlhf.judges import load_judges
    from rl_lab.rlhf.ppo_stage import run_ppo

    assert stage.recipe.ppo is not None
    run_ppo(
        stage.recipe.ppo, stage.experiment / "data",
        stage.before("pretrain"), stage.before("reward"),
        load_judges(stage.before("judges"), stage.recipe.judges),
        stage.run, stage.log, stage.stop,
        seed=stage.recipe.seed, device=stage.device, refuse=stage.recipe.data.bad_rows == "refuse",
        snapshots_required=stage.recipe.checkpoints.required,
    )  # fmt: skip


def _evaluate(stage: Stage) -> None:
    from rl_lab.rlhf.evaluate import evaluate
    from rl_lab.rlhf.judges import load_judges

    recipe = stage.recipe
    assert recipe.evaluate is not None
    assert recipe.ppo is not None
    evaluate(
        recipe.evaluate, recipe.ppo, stage.experiment / "data",
        stage.before("pretrain"), stage.before("reward"), stage.experiment / "ppo",
        load_judges(stage.before("judges"), recipe.judges),
        stage.run, stage.log, stage.stop, seed=recipe.seed, device=stage.device,
    )  # fmt: skip


STAGES: Mapping[str, Callable[[Stage], None]] = {
    "data": _data,
    "pretrain": _pretrain,
    "reward": _reward,
    "judges": _judges,
    "ppo": _ppo,
    "evaluate": _evaluate,
}

NEEDS: Mapping[str, tuple[str, ...]] = {
    "data": (),
    "pretrain": ("data",),
    "reward": ("data", "pretrain"),
    "judges": ("data",),
    "ppo": ("data", "pretrain", "reward", "judges"),
    "evaluate": ("data", "pretrain", "reward", "judges", "ppo"),
}
"""The stages each stands on, where the recipe has them."""

GOES_ON = ("pretrain", "reward", "ppo")
"""Stages that go on from their newest snapshot after a kill; the others, all short, start over."""

VERSION: Mapping[str, int] = {
    "data": 3, "pretrain": 1, "reward": 1, "judges": 2, "ppo": 2, "evaluate": 1
}  # fmt: skip
"""Raised when a change to the code changes what a stage makes, so that old ones are not reused."""
