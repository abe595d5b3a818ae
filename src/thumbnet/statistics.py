"""Intervals for measured proportions."""

import math

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
