"""How much room an experiment with language models takes on the disk, roughly."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rl_lab.rlhf import ppo_state
from rl_lab.rlhf.recipe import LanguageRecipe, Pretrain

FLOAT = 4
"""Bytes of a weight."""
MOMENTS = 2
"""Numbers AdamW keeps for each weight."""
BEST_MODELS = 3
"""Of PPO: the one in use at the oldest snapshot, the newest, and one being written."""


def needed(recipe: LanguageRecipe) -> int:
    """Bytes of the models an experiment leaves and of PPO's snapshots; texts are small beside.

    A model that the hub has yet to send counts as nothing: its size is not known.
    """
    pretrained = _pretrained(recipe.pretrain) if recipe.pretrain else 0

    def of(source: str) -> int:
        return pretrained if source == "pretrain" else _in_directory(Path(source))

    total = pretrained
    if recipe.reward is not None:
        total += recipe.reward.members * of(recipe.reward.base)
    if recipe.ppo is not None:
        model = of(recipe.ppo.policy)
        total += model
        if recipe.ppo.lora is None:  # adapters are small
            trained = model * (1 if recipe.ppo.critic.kind == "shared" else 2)
            total += trained * ((ppo_state.KEPT + 1) * (1 + MOMENTS) + BEST_MODELS)
    return total


def _pretrained(section: Pretrain) -> int:
    settings = section.architecture | {"vocab_size": section.tokenizer.vocabulary}
    try:
        config = AutoConfig.for_model(**settings)
        with torch.device("meta"):
            return FLOAT * int(AutoModelForCausalLM.from_config(config).num_parameters())
    except Exception:  # whatever a configuration's own checks raise: the stage will say it
        return 0


def _in_directory(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))
