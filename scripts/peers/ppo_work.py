"""The work both programs do: one model, one tokenizer, one set of prompts, one reward.

PPO from random weights on a word-level tokenizer made in memory, so that nothing is fetched and no
response ends early: every update is the same number of tokens.
"""

import argparse
import json
import resource
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, set_seed

PAD, END, BEGIN = range(3)
PROMPT, RESPONSE, ROLLOUTS, MINIBATCHES, EPOCHS = 16, 48, 64, 4, 4
CLIP, VALUE_CLIP, VALUE_COEFFICIENT, KL, GAMMA, LAMBDA = 0.2, 0.2, 0.1, 0.05, 1.0, 0.95


@dataclass(frozen=True)
class Size:
    """Of the policy; the reward model has the same layers."""

    vocabulary: int
    width: int
    layers: int
    inner: int
    learning_rate: float


SIZES = {"speed": Size(4096, 256, 4, 1024, 3e-6), "learning": Size(512, 128, 2, 256, 1e-3)}
"""`speed`: 5.25 M weights, scored by a reward model. `learning`: `low_words` is the reward."""


def arguments() -> argparse.Namespace:
    """What a program is started with; sets threads and seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=list(SIZES), required=True)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    set_seed(given.seed)
    return given


def config_of(size: Size) -> LlamaConfig:
    """A Llama with four heads whose output layer is its embedding."""
    return LlamaConfig(
        vocab_size=size.vocabulary, hidden_size=size.width, intermediate_size=size.inner,
        num_hidden_layers=size.layers, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=PAD,
        eos_token_id=END, bos_token_id=BEGIN,
    )  # fmt: skip


def tokenizer_of(size: Size) -> PreTrainedTokenizerFast:
    """Words w3, w4, ... whose numbers are their tokens'."""
    words = {"<pad>": PAD, "<eos>": END, "<bos>": BEGIN}
    words |= {f"w{number}": number for number in range(3, size.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",
        padding_side="left",
    )  # fmt: skip


def prompts_of(size: Size, seed: int) -> list[list[int]]:
    """1,024 prompts of random words."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(3, size.vocabulary, (1024, PROMPT), generator=random).tolist()


def low_words(tokens: torch.Tensor, size: Size) -> torch.Tensor:
    """(B, T) response tokens -> (B,) -5 to 5 by the share in the vocabulary's first half."""
    return 10 * ((tokens < size.vocabulary // 2).float().mean(1) - 0.5)


def report(updates: list[dict[str, float]], parameters: int) -> None:
    """Print what was measured, as the last line: CPU-seconds by phase, and what came of it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"parameters": parameters, "peak_mb": peak, "updates": updates}))
