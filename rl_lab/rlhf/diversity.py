"""How varied texts are: distinct n-grams among all, repetition within each."""

import re
from collections.abc import Sequence


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return re.findall(r"\w+(?:'\w+)*|[^\w\s]", text.lower())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of n words."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of all texts together, as a share of all (Li et al., 2016, distinct-n).

    It falls with the amount of text, so compare equal numbers of texts only.

    Returns:
        In (0, 1]; 1 where no n-gram comes twice, and where there are none.
    """
    found = [gram for text in texts for gram in ngrams(words_of(text), n)]
    return len(set(found)) / len(found) if found else 1.0


def repetition(texts: Sequence[str]) -> float:
    """Share of a text's 2-grams that it has said before, averaged over texts; in [0, 1)."""
    shares = []
    for text in texts:
        grams = ngrams(words_of(text), 2)
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return sum(shares) / len(shares) if shares else 0.0
