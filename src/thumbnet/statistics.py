"""Intervals for measured proportions and means."""

import math
import statistics
from collections.abc import Sequence

Z95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval for a proportion of `hits` in `trials`, both ends in [0, 1].

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953: unlike the textbook interval it holds near 0 and 1.
    """
    if trials == 0:
        return 0.0, 1.0
    proportion, z2 = hits / trials, Z95**2
    centre = (proportion + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(proportion * (1 - proportion) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


# 97.5 % points of Student's t distribution for 1 to 30 degrees of freedom, to three digits; scipy.stats.t.ppf(0.975, n).
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval for the mean that `values` are draws around, by Student's t; None for a single value.

    Beyond 31 values the point of 30 degrees of freedom is used, which makes the interval at most 4 % too wide.
    """
    if len(values) < 2:
        return None
    mean, freedom = statistics.fmean(values), len(values) - 1
    half = T95[min(freedom, len(T95)) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half
