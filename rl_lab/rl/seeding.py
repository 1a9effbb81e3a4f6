"""What an agent's streams of seeds (`rl_lab.seeding.stream`) are for, and global generators.

SB3 seeds environment i of a run with `seed + i`, so runs 0 and 1 with 8 environments share seven
of them. The lab's streams do not overlap.
"""

import contextlib
import random
from collections.abc import Iterator

import gymnasium
import numpy as np
import torch

# Which stream a seed is for; the number is part of what makes the stream its own.
TRAINING, EVALUATION, FINAL_EVALUATION, PLAY = range(4)


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (SB3 draws from all three).

    On a GPU, cuDNN is told to choose its algorithms by rule, not by trying which is fastest.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def own_randomness(seed: int, space: gymnasium.Space) -> Iterator[None]:
    """Seed everything for a block that must not disturb what is outside it.

    The generators of Python, numpy, torch and of `space` (SB3's epsilon-greedy policies draw
    exploratory actions from it) are put back as they were, however the block ends.
    """
    python, numpy, action = random.getstate(), np.random.get_state(), space.np_random
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        seed_everything(seed)
        space.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            space._np_random = action
