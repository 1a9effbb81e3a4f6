"""Prompts: the first few words of sentences, for a language model to go on from."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from rl_lab.rlhf.data.duplicates import words

COMMON = 100
"""Times the training texts hold each word of a prompt: a small vocabulary then knows it."""
LEFT = 3
"""Words a sentence must still have behind the prompt: it is a beginning, not the whole."""
_UNFIT = re.compile(r"[\"()\[\]*/\\#&_;:.!?]|^[^A-Za-z]|[^\w]$")


def common_words(texts: Iterable[str]) -> set[str]:
    """The words (case folded) that occur at least `COMMON` times."""
    counts = Counter(words("\n".join(texts)))
    return {word for word, count in counts.items() if count >= COMMON}


def draw_prompts(
    texts: Sequence[str],
    count: int,
    length: tuple[int, int],
    known: set[str],
    forbidden: Iterable[str],
    rng: np.random.Generator,
) -> list[str]:
    """Draw up to `count` different beginnings of `texts`.

    Args:
        texts: sentences.
        count: prompts wanted.
        length: fewest and most words of a prompt; each is as likely.
        known: words a prompt may hold, case folded.
        forbidden: prompts of the other side of the split, in any case.
        rng: what texts and lengths are drawn with.
    """
    taken = {prompt.casefold() for prompt in forbidden}
    prompts: list[str] = []
    lengths = rng.integers(length[0], length[1] + 1, len(texts))
    for place in rng.permutation(len(texts)):
        if len(prompts) == count:
            break
        split = texts[place].split(" ")
        prompt = " ".join(split[: lengths[place]])
        folded = prompt.casefold()
        if len(split) < lengths[place] + LEFT or folded in taken or _UNFIT.search(prompt):
            continue
        if known.issuperset(words(prompt)):
            taken.add(folded)
            prompts.append(prompt)
    return prompts
