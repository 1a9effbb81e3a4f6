"""Causal language models: built from a configuration, or loaded from a directory or the hub.

Nothing that could run is ever read: weights come from safetensors only, and a directory that
brings Python of its own (`auto_map`) is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from reward_models import model_files
from rl_lab.errors import UserError, nearest
from rl_lab.files import whole_directory

# Our own screens show progress; theirs would tear them.
transformers_logging.disable_progress_bar()

# Bytes a parameter costs in training: itself, its gradient and two moments, each float32.
_TRAINING_BYTES = 16


def load(source: str | Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, in float32, and its tokenizer, which pads left.

    Args:
        source: a local directory as `save_pretrained` leaves it, or the id of a model on the hub.
        device: where to, as torch names it.

    Raises:
        UserError: there is no such model, it cannot be read safely, it is no causal language
            model, or its tokenizer has no end token.
    """
    config = load_config(source)
    tokenizer = load_tokenizer(source)
    try:
        model_files.check_weights(source, config, AutoModelForCausalLM)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"the weights of model {str(source)!r} cannot be read (only safetensors are, never "
            f"pickles): {_first_line(error)}"
        ) from None
    model, loading = loaded
    absent = sorted(loading["missing_keys"])
    if absent:
        raise UserError(
            f"model {str(source)!r} lacks {len(absent)} of a causal language model's weights, "
            f"{absent[0]!r} among them; they would be random"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer of model {str(source)!r} has {len(tokenizer):,} tokens, the model "
            f"embeds {rows:,}"
        )
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(device).eval(), tokenizer


def load_config(source: str | Path) -> PreTrainedConfig:
    """Load the configuration of a causal language model.

    Raises:
        UserError: it cannot be read, brings code, or is of another kind of model.
    """
    config = read_config(source)
    _check_causal(source, config)
    return config


def read_config(source: str | Path) -> PreTrainedConfig:
    """Load the configuration of a model of any kind.

    Raises:
        UserError: it cannot be read, or brings code.
    """
    try:
        model_files.check(source)
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # also what a configuration's own checks raise
        raise UserError(f"model {str(source)!r} cannot be read: {_first_line(error)}") from None
    return config


def positions(config: PreTrainedConfig) -> int | None:
    """Tokens that a model can tell the places of; None where nothing says so."""
    longest: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads left; one without a pad token pads with its end token.

    Raises:
        UserError: it cannot be read, brings code, or has no end token.
    """
    try:
        model_files.check(source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # `tokenizers` raises no other
        raise UserError(
            f"the tokenizer of model {str(source)!r} cannot be read: {_first_line(error)}"
        ) from None
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of model {str(source)!r} has no end token: no completion would ever "
            "end; set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        # Padding is told from text by the attention mask, never by its id.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write a model and its tokenizer as a Hugging Face directory, whole or not at all.

    Raises:
        StorageError: they cannot be written.
    """
    with whole_directory(directory) as whole:
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)


def build(architecture: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make a causal language model with random weights, from torch's own random numbers.

    Args:
        architecture: `model_type` and any settings of that transformers configuration.
        tokenizer: what the size of the vocabulary and the special tokens follow from.

    Raises:
        UserError: the type is unknown or not causal, a setting is unknown to it, the settings do
            not fit together, or training it would not fit into memory.
    """
    where = "pretrain.architecture"
    settings = dict(architecture)
    kind = settings.pop("model_type", None)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        hint = nearest(str(kind), MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise UserError(f"{where}.model_type: {kind!r} is no causal language model{hint}")
    default = AutoConfig.for_model(kind)
    known = {key for key in default.to_dict() if key not in ("auto_map", "architectures")}
    known |= set(default.attribute_map)
    for key in settings:
        if key not in known:
            raise UserError(f"{where}.{key}: {kind} has no such setting{nearest(key, known)}")
    settings |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    try:
        config = AutoConfig.for_model(kind, **settings)
        with torch.device("meta"):
            parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    except Exception as error:  # whatever a configuration's own checks raise
        raise UserError(f"{where}: {_first_line(error)}") from None
    available = psutil.virtual_memory().available
    if parameters * _TRAINING_BYTES > available:
        raise UserError(
            f"{where}: training {parameters:,} parameters takes "
            f"{parameters * _TRAINING_BYTES / 2**30:,.1f} GiB before any text, and "
            f"{available / 2**30:,.1f} GiB are free; make it smaller"
        )
    return AutoModelForCausalLM.from_config(config)


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware.

    On a CPU that means AMX or AVX512-BF16: emulated, bfloat16 is slower than float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities() if kind == "cpu" else {}
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def fast_autocast(device: str) -> torch.autocast:
    """bfloat16 autocast where the device has it in hardware; else one that is off."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))


def _check_causal(source: str | Path, config: PreTrainedConfig) -> None:
    """Refuse what was saved as something else than a causal language model."""
    saved_as = (getattr(config, "architectures", None) or ["nothing"])[0]
    if "RewardModel" in saved_as or saved_as.endswith("ForSequenceClassification"):
        raise UserError(
            f"model {str(source)!r} is a classifier or reward model ({saved_as}), not a causal "
            "language model"
        )
    causal = {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)}
    if saved_as not in causal:
        raise UserError(
            f"model {str(source)!r} is no causal language model: its config.json says {saved_as}"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
