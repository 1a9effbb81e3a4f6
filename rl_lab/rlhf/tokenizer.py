"""Training a tokenizer on the texts at hand: whole words, or byte-level BPE.

Both keep a word's space with the word (`the`, ` film`, `.`), as GPT-2 does. So decoding only joins
pieces, text comes back with its punctuation where it was, and a prompt and a completion that
begins with its own space are the same tokens apart as together.
"""

from collections.abc import Sequence
from typing import Literal

import tokenizers
from tokenizers import (
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from rl_lab.errors import UserError

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"

# A contraction's tail; a word, `n't` included; a digit (so no number is unknown); a mark, repeated
# (`...`) or not; loose space. Combining marks and the underscore go with letters.
_PIECES = (
    r"'(?:s|ll|re|ve|d|m)(?![\p{L}\p{M}])"
    r"| ?[\p{L}_][\p{L}\p{M}_]*(?:'t(?![\p{L}\p{M}]))?"
    r"| ?\p{N}"
    r"| ?([^\s\p{L}\p{N}_])\1*"
    r"|\s"
)


def train(
    texts: Sequence[str],
    kind: Literal["word", "bpe"],
    vocabulary: int,
    lowercase: bool,
    max_length: int,
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary from texts.

    Both kinds tidy before they split: Unicode NFKC, straight quotes, each run of white space one
    space. Apart from that, from case, and from words unknown to `word`, decoding undoes encoding.

    Args:
        texts: what it is learned from.
        kind: `word`: the most frequent words and marks, every other one `<unk>`; `bpe`:
            byte-level byte-pair encoding, to which nothing is unknown.
        vocabulary: most entries, the special tokens (and the 256 bytes of `bpe`) included.
        lowercase: fold case.
        max_length: tokens that the model takes.

    Returns:
        A tokenizer with `<pad>`, `<bos>`, `<eos>` and, if `word`, `<unk>`, which pads left and
        begins a text with `<bos>`, as the language model has learned to expect.

    Raises:
        UserError: `bpe` with a vocabulary too small for its bytes.
    """
    specials = [PAD, BOS, EOS, UNK] if kind == "word" else [PAD, BOS, EOS]
    trainer: trainers.Trainer
    if kind == "word":
        core = tokenizers.Tokenizer(models.WordLevel(unk_token=UNK))
        core.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), "isolated")
        core.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocabulary, special_tokens=specials, show_progress=False
        )
    else:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if vocabulary < len(alphabet) + len(specials):
            raise UserError(
                f"pretrain.tokenizer.vocabulary: {vocabulary} entries do not hold the "
                f"{len(alphabet)} bytes of a bpe tokenizer and its {len(specials)} special tokens"
            )
        core = tokenizers.Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=specials,
            initial_alphabet=alphabet,
            show_progress=False,
        )
    core.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(Regex("[‘’`´]"), "'"),
            normalizers.Replace(Regex("[“”]"), '"'),
            normalizers.Replace(Regex(r"\s+"), " "),
            *([normalizers.Lowercase()] if lowercase else []),
        ]
    )
    # Text that spells a special token is text: nobody writes an end of sentence.
    core.encode_special_tokens = True
    core.train_from_iterator(texts, trainer, len(texts))
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, specials.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK if kind == "word" else None,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def normalize(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """Return the text as the tokenizer takes it, before it splits it."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return text if normalizer is None else normalizer.normalize_str(text)


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's tokens between a begin and an end token."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [[bos, *encoding.ids, eos] for encoding in encodings]


def unknown_words(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[str]:
    """Return every piece of the texts that is no token, in order, its space included."""
    unk = tokenizer.unk_token_id
    return [
        normalize(tokenizer, text[start:end])
        for text, encoding in zip(
            texts,
            tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False),
            strict=True,
        )
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        if token == unk
    ]
