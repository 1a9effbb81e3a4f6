"""Which texts are one: the same words, or nearly all the same word 3-grams.

MinHash with locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998) proposes pairs, the
exact Jaccard similarity of their 3-gram sets decides. Sketching is what costs, so only texts that
can have a partner are sketched: J(x, y) >= t needs |x & y| >= t |x|, so at least the share t of
x's 3-grams must occur in some other text. Of 250,000 sentences that leaves a few per cent.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain, count
from typing import NamedTuple

import numpy as np
from datasketch import MinHash, MinHashLSH

PERMUTATIONS = 64
RECALL = 0.9999
"""Chance that a pair just at the threshold is found; more alike ones are missed more rarely."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_ODD = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation; the text itself if it has none."""
    return _WORD.findall(text.casefold()) or [text.strip()]


def normal_form(text: str) -> str:
    """What two texts have in common that are of exactly the same words."""
    return " ".join(words(text))


def duplicate_groups(texts: Sequence[str], threshold: float) -> list[int]:
    """Find which texts belong together.

    Args:
        texts: any texts.
        threshold: Jaccard similarity of word 3-grams from which two texts are one; 1: only texts
            of exactly the same words.

    Returns:
        For each text the place of the first text of its group; its own place if it is the first.
        Groups are closed: A like B and B like C makes one group of three.
    """
    first_place: dict[str, int] = {}
    tokens = [words(text) for text in texts]
    group = [first_place.setdefault(" ".join(found), at) for at, found in enumerate(tokens)]
    if threshold >= 1:
        return group
    distinct = list(first_place.values())
    for one, other in _near_pairs([tokens[place] for place in distinct], threshold):
        roots = sorted((_root(group, distinct[one]), _root(group, distinct[other])))
        group[roots[1]] = roots[0]
    return [_root(group, place) for place in range(len(group))]


def _root(group: list[int], place: int) -> int:
    """Follow `group` to the first text of the group, shortening the way for the next look."""
    while group[place] != place:
        group[place] = group[group[place]]
        place = group[place]
    return place


def _near_pairs(tokens: list[list[str]], threshold: float) -> list[tuple[int, int]]:
    """Pairs of places whose 3-gram sets have at least the Jaccard similarity `threshold`."""
    if not tokens:
        return []
    codes, hashes, bounds = _shingles(tokens)
    elsewhere = np.bincount(codes)[codes] > 1
    shared = np.add.reduceat(elsewhere.astype(np.int64), bounds[:-1])
    candidates = np.flatnonzero(shared >= threshold * np.diff(bounds))
    sets = {place: codes[bounds[place] : bounds[place + 1]] for place in candidates.tolist()}
    index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))
    sketches = MinHash.generator(
        (hashes[members].tolist() for members in sets.values()),
        num_perm=PERMUTATIONS, hashfunc=int,
    )  # fmt: skip
    pairs = []
    for place, sketch in zip(sets, sketches, strict=True):
        for earlier in index.query(sketch):
            both = len(np.intersect1d(sets[place], sets[earlier], assume_unique=True))
            either = len(sets[place]) + len(sets[earlier]) - both
            if both >= threshold * either:
                pairs.append((earlier, place))
        index.insert(place, sketch, check_duplication=False)
    return pairs


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows a band, as few bands as find a pair at the threshold with chance RECALL.

    A pair of similarity J agrees in a whole band of r rows with chance J^r. False proposals cost
    only the exact comparison.
    """
    return next(
        (PERMUTATIONS // rows, rows)
        for rows in range(PERMUTATIONS, 0, -1)
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL
    )


class _Shingles(NamedTuple):
    codes: np.ndarray
    """(occurrences,) numbers of each text's distinct 3-grams, ascending, text after text."""
    hashes: np.ndarray
    """(distinct 3-grams,) 32-bit hash by number."""
    bounds: np.ndarray
    """(texts + 1,) where each text's codes begin, and the end."""


def _shingles(tokens: list[list[str]]) -> _Shingles:
    """Number the word 3-grams of every text; a shorter text is one shingle of all its words."""
    padded = [found if len(found) > 2 else [*found, "", ""][:3] for found in tokens]
    number: defaultdict[str, int] = defaultdict(count(1).__next__)
    ids = np.fromiter(map(number.__getitem__, chain.from_iterable(padded)), np.uint64)
    owner = np.repeat(np.arange(len(tokens)), [len(found) - 2 for found in padded])
    first = np.arange(len(owner)) + 2 * owner  # each text before it has two more words than 3-grams
    mixed = np.zeros(len(owner), np.uint64)
    for offset in range(3):
        mixed = (mixed ^ ids[first + offset]) * _ODD
        mixed ^= mixed >> np.uint64(29)
    distinct, codes = np.unique(mixed, return_inverse=True)
    # Sorted by text, then by code; a 3-gram that a text repeats is left once.
    occurrences = np.sort(owner * len(distinct) + codes)
    occurrences = occurrences[np.diff(occurrences, prepend=-1) > 0]
    bounds = np.searchsorted(occurrences, np.arange(len(tokens) + 1) * len(distinct))
    return _Shingles(occurrences % len(distinct), distinct >> np.uint64(32), bounds)


def connected(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """Number the groups of rows that share a key, directly or through other rows.

    Returns:
        For each row the place of the first row of its group.
    """
    group = list(range(len(keys)))
    holder: dict[Hashable, int] = {}
    for place, own in enumerate(keys):
        for key in own:
            roots = sorted((_root(group, holder.setdefault(key, place)), _root(group, place)))
            group[roots[1]] = roots[0]
    return [_root(group, place) for place in range(len(group))]
