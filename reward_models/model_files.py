"""The files of a model that may be a stranger's, looked through before anything is built of them.

transformers would set up whatever a config.json asks for, and only then see that the weights are
not there. So what is claimed is compared with the files first, and code is refused, not skipped.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig
from transformers.models.auto.tokenization_auto import get_tokenizer_config

LARGEST_JSON = 200 * 2**20
"""Bytes of a JSON file; the tokenizers of today's largest vocabularies have some 30 MB."""
MOST_PARTS = 10_000
"""What a configuration may ask for of layers, heads, experts: anything it counts with `num_`."""
LARGEST_SIZE = 10_000_000
"""What it may ask for of any width, vocabulary or number of positions."""
DEEPEST = 50

_COUNTS = re.compile(r"^num_(?!.*(embed|position|vocab|param))|^n_(layer|head)|_layers$|_experts$")
_SIZES = re.compile(r"^(num|n)_|_(size|dim|positions|embeddings|length)$|^d_(model|ff|kv)$")


def check(source: str | Path) -> None:
    """Refuse a model that brings code, and a directory whose files cannot be what they say.

    Args:
        source: a local directory or a hub id.

    Raises:
        ValueError: with the reason.
        OSError: there is no such model.
    """
    directory = Path(source)
    if directory.is_dir():
        contents = {path.name: _read(path) for path in sorted(directory.glob("*.json"))}
        _check_sizes(contents.get("config.json", {}))
    else:
        contents = {
            "config.json": PreTrainedConfig.get_config_dict(source)[0],
            "tokenizer_config.json": get_tokenizer_config(source),
        }
    for file, content in contents.items():
        if "auto_map" in content:
            raise ValueError(
                f"it brings code of its own (auto_map in its {file}), which the lab never runs; a "
                "copy without auto_map works if transformers knows the model"
            )


def check_weights(source: str | Path, config: PreTrainedConfig, auto_class: Any) -> None:
    """Refuse a directory whose weights are none, damaged, or far fewer than its configuration's.

    Args:
        source: a local directory; a hub id is left to transformers.
        config: as transformers read it.
        auto_class: the class of `from_pretrained`, such as AutoModelForCausalLM.

    Raises:
        ValueError: with the reason.
    """
    directory = Path(source)
    if not directory.is_dir():
        return
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ValueError("it has no weights in safetensors (pickled weights are never read)")
    tensors = 0
    for path in files:
        try:
            with safe_open(path, "pt") as weights:  # its header only; nothing is loaded
                tensors += len(list(weights.keys()))
        except SafetensorError as error:
            raise ValueError(f"{path.name} is damaged: {error}") from None
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if layers > tensors:
        raise ValueError(f"config.json tells of {layers:,} layers, and there are {tensors} tensors")
    try:
        with torch.device("meta"):  # shapes without memory
            model = auto_class.from_config(config)
    except Exception as error:  # whatever a model's own checks raise
        raise ValueError(f"config.json describes no model: {_first_line(error)}") from None
    wanted = sum(part.numel() for part in (*model.parameters(), *model.buffers()))
    there = sum(path.stat().st_size for path in files)
    if wanted > 4 * there + LARGEST_SIZE:  # weights of four bits, and what is made, not stored
        raise ValueError(
            f"config.json describes {wanted:,} numbers, and the weights have {there:,} bytes"
        )


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; refuse what is none, or larger or deeper than a model needs."""
    if not path.is_file() or path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path.name} is no file of at most {LARGEST_JSON:,} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        depth = _depth(content)
    except RecursionError:
        depth = DEEPEST + 1
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from None
    if depth > DEEPEST:
        raise ValueError(f"{path.name} is nested deeper than {DEEPEST} levels")
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} should hold a JSON object")
    return content


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _check_sizes(config: dict[str, Any]) -> None:
    for key, value in _numbers(config):
        most = MOST_PARTS if _COUNTS.search(key) else LARGEST_SIZE if _SIZES.search(key) else None
        if most is not None and not 0 <= value <= most:
            raise ValueError(f"config.json: {key} is {value:.3g}; it should be at most {most:,}")


def _numbers(config: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number of a configuration and its parts, by its own key."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield key, min(max(value, -1e300), 1e300)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
