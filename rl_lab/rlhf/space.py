"""How much room an experiment with language models takes on the disk, roughly."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from rl_lab.rlhf import snapshots
from rl_lab.rlhf.recipe import LanguageRecipe, Pretrain

FLOAT = 4
"""Bytes of a weight."""
MOMENTS = 2
"""Numbers AdamW keeps for each weight."""
BEST_MODELS = 3
"""Of PPO: the one in use at the oldest snapshot, the newest, and one being written."""


def needed(recipe: LanguageRecipe) -> int:
    """Bytes of the models an experiment leaves and of its snapshots; texts are small beside.

    A model that the hub has yet to send counts as nothing: its size is not known.
    """
    pretrained = _pretrained(recipe.pretrain) if recipe.pretrain else 0

    def of(source: str) -> int:
        return pretrained if source == "pretrain" else _in_directory(Path(source))

    written = snapshots.KEPT + 1
    trained = written * (1 + MOMENTS)
    total = pretrained * (1 + trained + written)  # a snapshot of pretraining holds the best as well
    if recipe.reward is not None:
        total += (recipe.reward.members + trained) * of(recipe.reward.base)
    if recipe.ppo is not None:
        model = of(recipe.ppo.policy)
        if recipe.ppo.token_bias is not None:
            model += _output_layer(recipe)
        total += model
        if recipe.ppo.lora is None:  # adapters are small
            models = model * (1 if recipe.ppo.critic.kind == "shared" else 2)
            total += models * (trained + BEST_MODELS)
    return total


def _output_layer(recipe: LanguageRecipe) -> int:
    """Of a policy whose output layer was its embedding, and no longer is: see `token_bias`."""
    assert recipe.ppo is not None
    source = recipe.ppo.policy
    try:
        if source == "pretrain" and recipe.pretrain is not None:
            config = _config(recipe.pretrain)
        else:
            config = AutoConfig.from_pretrained(
                source, trust_remote_code=False, local_files_only=True
            )
    except Exception:  # the stage will say it
        return 0
    text = config.get_text_config()
    return FLOAT * text.vocab_size * text.hidden_size if text.tie_word_embeddings else 0


def _config(section: Pretrain) -> PreTrainedConfig:
    settings = section.architecture | {"vocab_size": section.tokenizer.vocabulary}
    return AutoConfig.for_model(**settings)


def _pretrained(section: Pretrain) -> int:
    try:
        config = _config(section)
        with torch.device("meta"):
            return FLOAT * int(AutoModelForCausalLM.from_config(config).num_parameters())
    except Exception:  # whatever a configuration's own checks raise: the stage will say it
        return 0


def _in_directory(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))
