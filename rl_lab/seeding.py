"""Independent streams of seeds from the one number in the recipe."""

import numpy as np


def stream(seed: int, purpose: int, count: int, part: int = 0) -> list[int]:
    """Return `count` seeds in [0, 2**31), the same for the same seed, purpose and part.

    Args:
        seed: the recipe's.
        purpose: what they are for; each module numbers its own.
        count: how many.
        part: which of several streams of the same purpose, such as the number of an update.
    """
    key = (purpose, part) if part else (purpose,)
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(count)
    return [int(word) & 0x7FFFFFFF for word in words]
