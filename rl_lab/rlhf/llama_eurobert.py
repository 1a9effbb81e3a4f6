"""Llama and EuroBERT: the same layers, with and without the causal mask (arXiv:2503.05500)."""

from typing import Any, TypeVar

from transformers import EuroBertConfig, LlamaConfig, PreTrainedConfig

Config = TypeVar("Config", LlamaConfig, EuroBertConfig)


def same_layers(kind: type[Config], config: PreTrainedConfig, **changes: Any) -> Config:
    """Return the configuration of the one whose layers take the weights of the other.

    Args:
        kind: LlamaConfig or EuroBertConfig.
        config: the other's.
        changes: settings that are to be different.
    """
    known = set(kind().to_dict()) - {"model_type", "architectures"}
    shared = {key: value for key, value in config.to_dict().items() if key in known}
    return kind(**shared | changes)
