"""Statistics of results: pure functions on plain numbers, scipy underneath.

Nothing here reads or writes; the same values give the same answer every time. Higher is better.
Numbers that are not finite are refused (ValueError): a run that broke off is not a score.
"""

from rl_lab.statistics.aggregates import aggregate_interval, iqm, mean, median, optimality_gap
from rl_lab.statistics.comparisons import (
    Difference,
    difference,
    holm,
    holm_confidences,
    paired_difference,
    probability_of_improvement,
    runs_needed,
)
from rl_lab.statistics.curves import (
    Band,
    TimeToThreshold,
    first_reach,
    performance_profile,
    sample_efficiency,
    time_to_threshold,
)
from rl_lab.statistics.intervals import (
    FEW,
    Interval,
    few_runs,
    mean_interval,
    runs_interval,
    wilson_interval,
)
from rl_lab.statistics.verdicts import Verdict, verdict, verdicts

__all__ = [
    "FEW",
    "Band",
    "Difference",
    "Interval",
    "TimeToThreshold",
    "Verdict",
    "aggregate_interval",
    "difference",
    "few_runs",
    "first_reach",
    "holm",
    "holm_confidences",
    "iqm",
    "mean",
    "mean_interval",
    "median",
    "optimality_gap",
    "paired_difference",
    "performance_profile",
    "probability_of_improvement",
    "runs_interval",
    "runs_needed",
    "sample_efficiency",
    "time_to_threshold",
    "verdict",
    "verdicts",
    "wilson_interval",
]
