"""A language model of a few thousand weights, made in memory: for checks with known answers."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ("a", "b", "c")


def tiny_tokenizer(
    words: tuple[str, ...] = WORDS, pad_is_eos: bool = False
) -> PreTrainedTokenizerFast:
    """Word by word; begin, end and padding tokens of its own, or padding that is the end token."""
    specials = ["<eos>", "<bos>"] if pad_is_eos else ["<pad>", "<eos>", "<bos>"]
    vocabulary = {word: number for number, word in enumerate([*specials, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=specials[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", bos_token="<bos>", eos_token="<eos>",
        pad_token="<eos>" if pad_is_eos else "<pad>", unk_token=specials[0],
    )  # fmt: skip


def tiny_model(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    """Llama of one layer, 32 wide, with weights large enough that its distributions differ."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        initializer_range=0.3, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()
