"""Wild runs and scores for the properties that statistics must have."""

import numpy as np
from hypothesis import strategies as st

number = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
"""Rounded, so that values tie, and equal ones stay equal when they are shifted."""


def runs(fewest: int = 1, most: int = 8) -> st.SearchStrategy[list[float]]:
    return st.lists(number, min_size=fewest, max_size=most)


def tasks(fewest_runs: int = 1) -> st.SearchStrategy[list[list[float]]]:
    """Of different numbers of runs."""
    return st.lists(runs(fewest_runs), min_size=1, max_size=4)


two_sides = st.integers(1, 3).flatmap(
    lambda count: st.tuples(*[st.lists(runs(), min_size=count, max_size=count)] * 2)
)
"""The same tasks on both sides."""

NOT_RUNS = [[], [1.0, np.nan], [np.inf, 1.0], [[1.0], [2.0]]]
"""What every function refuses."""
