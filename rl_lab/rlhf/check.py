"""Checking a recipe before anything is written: whatever can be seen to be wrong, at once."""

from pathlib import Path

from rl_lab.errors import UserError
from rl_lab.files import is_directory, is_file
from rl_lab.rlhf.check_models import check_models
from rl_lab.rlhf.experiment import device_of
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.reward_functions import check_function


def check(recipe: LanguageRecipe) -> None:
    """Look for files, functions, models and devices that a recipe names.

    Raises:
        UserError: one is not there, or of the wrong kind; or a stage needs data that is not given.
    """
    device_of(recipe)
    data = recipe.data
    named = {
        "data.preferences": data.preferences, "data.prompts": data.prompts, "data.texts": data.texts
    }  # fmt: skip
    named |= {
        f"judges.{name}.scores": judge.scores for name, judge in (recipe.judges or {}).items()
    }
    for key, file in named.items():
        if file is not None and not is_file(Path(file)):
            raise UserError(f"{key} = {file!r}: there is no such file")
    if data.source == "files":
        _check_own_data(recipe)
    if recipe.ppo is not None:
        for name, term in recipe.ppo.rewards.items():
            if term.function is not None:
                check_function(term.function, f"ppo.rewards.{name}.function")
            elif term.model is not None:
                _check_model(term.model, f"ppo.rewards.{name}.model")
        _check_model(recipe.ppo.policy, "ppo.policy")
    if recipe.reward is not None:
        _check_model(recipe.reward.base, "reward.base")
    check_models(recipe)


def _check_own_data(recipe: LanguageRecipe) -> None:
    """Each stage has the data it works on."""
    data = recipe.data
    wanted = {
        "pretrain": ("data.texts", data.texts),
        "reward": ("data.preferences", data.preferences),
        "ppo": ("data.prompts", data.prompts or data.preferences),
    }
    for stage, (key, file) in wanted.items():
        if stage in recipe.stages and file is None:
            raise UserError(f"{key} is required: the {stage} stage works on it")
    if recipe.ppo is not None and recipe.ppo.pretraining_mix is not None and data.texts is None:
        raise UserError("data.texts is required: ppo.pretraining_mix draws from it")
    for name, judge in (recipe.judges or {}).items():
        if judge.scores is None and judge.lexicon is None:
            raise UserError(f"judges.{name}.scores is required: the judge is fitted on it")


def _check_model(source: str, key: str) -> None:
    """What looks like a directory is one."""
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_local and not is_directory(Path(source)):
        raise UserError(f"{key} = {source!r}: there is no such directory")
