"""What config and tokenizer tell of models in local directories, before any stage has run.

Weights are not read, and models of the hub not fetched: what is wrong with those is said by the
stage that loads them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rl_lab.errors import UserError
from rl_lab.files import is_directory
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.recipe import LanguageRecipe


def check_models(recipe: LanguageRecipe) -> None:
    """Look at every model that a recipe names and that is a directory here.

    Raises:
        UserError: one is not what it is named for, with the key that names it.
    """
    if recipe.reward is not None and _is_here(recipe.reward.base, "pretrain"):
        _check_base(recipe.reward.base)
    if recipe.ppo is not None:
        if _is_here(recipe.ppo.policy, "pretrain"):
            _check_policy(recipe.ppo)
        for name, term in recipe.ppo.rewards.items():
            if term.model is not None and _is_here(term.model, "reward"):
                _check_reward_model(term.model, f"ppo.rewards.{name}.model")


def _is_here(source: str, stage: str) -> bool:
    return source != stage and is_directory(Path(source))


@contextmanager
def _of(key: str) -> Iterator[None]:
    """Put the key before what is wrong with its model."""
    try:
        yield
    except (UserError, ValueError) as fault:
        raise UserError(f"{key}: {fault}") from None


def _check_base(directory: str) -> None:
    """A reward model may start from a model of any kind."""
    from rl_lab.rlhf import language_model

    with _of("reward.base"):
        language_model.read_config(directory)
        language_model.load_tokenizer(directory)


def _check_policy(ppo: PPO) -> None:
    from rl_lab.rlhf import language_model, ppo_stage

    with _of("ppo.policy"):
        config = language_model.load_config(ppo.policy)
        tokenizer = language_model.load_tokenizer(ppo.policy)
    ppo_stage.stop_tokens(ppo.sampling, tokenizer)
    ppo_stage.longest_prompt(config, ppo.sampling.max_new_tokens)


def _check_reward_model(directory: str, key: str) -> None:
    """One model, or each member of a `reward` stage's directory."""
    from reward_models import linear, text

    members = Path(directory) / "members"
    for model in sorted(map(str, members.iterdir())) if is_directory(members) else [directory]:
        with _of(key), text.quiet():
            if linear.is_linear(model):
                linear.LinearText.load(Path(model))
            else:
                text.read(model)
