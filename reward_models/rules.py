"""Rewards that are plain functions of the text: `f(prompts, completions) -> scores`.

Each scores one property in [0, 1], higher is better, so that a weighted sum of several is easy to
reason about. Words are runs of letters, digits and apostrophes, in lower case.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence

Rule = Callable[[Sequence[str], Sequence[str]], list[float]]

_WORD = re.compile(r"[\w']+")


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.lower())


def length_window(
    prompts: Sequence[str],
    completions: Sequence[str],
    fewest: int = 5,
    most: int = 40,
    softness: float = 5.0,
) -> list[float]:
    """1 for completions of `fewest` to `most` words, falling off on either side.

    The fall is exp(-words beyond / softness), not a cliff: a policy can feel its way back.
    """

    def score(n: int) -> float:
        beyond = max(fewest - n, n - most, 0)
        return math.exp(-beyond / softness)

    return [score(len(words(completion))) for completion in completions]


def distinct_bigrams(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Share of a completion's word pairs that are not repeats (distinct-2; Li et al., 2016).

    1: nothing repeats, also where there are fewer than two words.
    """

    def score(completion: str) -> float:
        sequence = words(completion)
        bigrams = list(itertools.pairwise(sequence))
        return len(set(bigrams)) / len(bigrams) if bigrams else 1.0

    return [score(completion) for completion in completions]


def ends_sentence(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """1 for completions that end as a sentence does (. ! ? or … and closing quotes), else 0."""
    return [
        1.0 if completion.rstrip(" \"'”’)]").endswith((".", "!", "?", "…")) else 0.0
        for completion in completions
    ]
