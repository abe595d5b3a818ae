"""Intervals and tests for measured proportions and means. Plain Python: the samples are seeds, a few dozen at most."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CLAIM_BELOW = 0.05  # p below which a difference is claimed, after Holm's adjustment where there are several comparisons
Z95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution
ROUNDING = 1e-9  # below it a spread is that of the last bits: no accuracy of fewer than a thousand million images differs by it


def images_to_show(accuracy: float) -> int:
    """The fewest images whose 95 % interval (Wilson's), where all are right, begins at `accuracy` or above."""
    return math.ceil(Z95**2 * accuracy / (1 - accuracy))


def wilson_interval(hits: float, trials: float) -> tuple[float, float]:
    """95 % interval for a proportion of `hits` in `trials`, both ends in [0, 1].

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953: unlike the textbook interval it holds near 0 and 1.
    """
    if trials == 0:
        return 0.0, 1.0
    proportion, z2 = hits / trials, Z95**2
    centre = (proportion + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(proportion * (1 - proportion) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def widest_half(images: int, groups: int | None = None) -> float:
    """Half of the widest 95 % interval that an accuracy on so many images can have; of groups, were all of one alike."""
    independent = images if groups is None else groups
    low, high = wilson_interval(independent // 2, independent)
    return (high - low) / 2


def grouped_interval(hits: Sequence[int], trials: Sequence[int]) -> tuple[float, float]:
    """95 % interval for a proportion, from the hits and trials of each group; those of one group may be alike.

    Wilson's for as many independent trials as tell as much, never more than there are. The variance between the groups says
    how many, less Student's share for few groups (Korn & Graubard 1998, Survey Methodology 24:193; with Wilson's interval Dean
    & Pagano 2015, https://doi.org/10.1093/jssam/smv024). Where all or none hit, nothing tells how alike they are, and all of a
    group count as one. From one group nothing follows.
    """
    groups, count = sum(of > 0 for of in trials), sum(trials)
    if groups < 2:
        return 0.0, 1.0
    proportion = sum(hits) / count
    if 0 < proportion < 1:
        squares = sum((hit - proportion * of) ** 2 for hit, of in zip(hits, trials, strict=True))  # of an empty group 0
        worth = proportion * (1 - proportion) * count**2 / max(squares * groups / (groups - 1), ROUNDING)
        worth *= (Z95 / t_quantile(0.975, groups - 1)) ** 2
    else:
        worth = count**2 / sum(of**2 for of in trials)
    worth = min(worth, count)
    return wilson_interval(proportion * worth, worth)


@dataclass(frozen=True)
class Difference:
    """An estimated difference, its 95 % interval, and the probability `p` of one as large if there were none."""

    estimate: float
    low: float
    high: float
    p: float


def standard_deviation(values: Sequence[float]) -> float:
    """Standard deviation of two values or more; 0 where they differ in the last bits only."""
    found = statistics.stdev(values)
    return found if found > ROUNDING else 0.0


def mean_interval(
    values: Sequence[float], *, lowest: float = -math.inf, highest: float = math.inf
) -> tuple[float, float] | None:
    """95 % interval for the mean that `values` are draws around, by Student's t; None for a single value, or without spread.

    Cut at `lowest` and `highest`, between which the mean must lie: with two seeds Student's interval is a hundred points wide.
    """
    if len(values) < 2 or not standard_deviation(values):
        return None
    mean = statistics.fmean(values)
    half = t_quantile(0.975, len(values) - 1) * standard_deviation(values) / math.sqrt(len(values))
    return max(lowest, mean - half), min(highest, mean + half)


def accuracy_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """`mean_interval` of accuracies, within [0, 1]."""
    return mean_interval(values, lowest=0.0, highest=1.0)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Mean of `second` minus mean of `first`, which need not have the same spread. None where no test is defined.

    That is with fewer than two values on a side, or no spread at all on both. Welch 1947,
    https://doi.org/10.1093/biomet/34.1-2.28
    """
    if len(first) < 2 or len(second) < 2:
        return None
    parts = [standard_deviation(values) ** 2 / len(values) for values in (first, second)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return None
    shares = [part / sum(parts) for part in parts]  # first: squares of tiny variances would vanish
    degrees_of_freedom = 1 / sum(
        share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True)
    )
    estimate = statistics.fmean(second) - statistics.fmean(first)
    half = t_quantile(0.975, degrees_of_freedom) * error
    return Difference(estimate, estimate - half, estimate + half, t_two_sided(estimate / error, degrees_of_freedom))


def paired_t(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Mean of `second` minus mean of `first`, whose values belong together one by one. None where no test is defined.

    That is with fewer than two pairs, or the same difference in all. Student 1908, https://doi.org/10.1093/biomet/6.1.1
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    interval = mean_interval(differences)
    if interval is None:
        return None
    estimate, error = statistics.fmean(differences), standard_deviation(differences) / math.sqrt(len(differences))
    return Difference(estimate, *interval, t_two_sided(estimate / error, len(differences) - 1))


def for_other_images(first: Sequence[float], second: Sequence[float], ratio: float) -> Difference | None:
    """`paired_t` for pairs of one cut of the same images each, as it is for images that were never cut at all.

    `ratio` images are held out for one that is trained on. The cuts share images, so n of them tell less of other images than n
    independent draws would: the variance of the mean is (1 + n ratio) times as large. Nadeau & Bengio 2003,
    https://doi.org/10.1023/A:1024068626366, section 3.1.
    """
    found = paired_t(first, second)
    if found is None:
        return None
    degrees_of_freedom = len(first) - 1
    half = (found.high - found.low) / 2 * math.sqrt(1 + len(first) * ratio)
    t = found.estimate / half * t_quantile(0.975, degrees_of_freedom)
    return Difference(found.estimate, found.estimate - half, found.estimate + half, t_two_sided(t, degrees_of_freedom))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p for two classifiers on the same images, of which one alone was right on so many.

    Exact: under no difference `only_first` is binomial with one half. McNemar 1947, https://doi.org/10.1007/BF02295996
    """
    trials = only_first + only_second
    if trials == 0:
        return 1.0
    tail = math.fsum(math.exp(log_binomial(trials, k)) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail)


def log_binomial(trials: int, hits: int) -> float:
    """Natural logarithm of the probability of `hits` in `trials` fair tosses."""
    choose = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return choose - trials * math.log(2)


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for being several, in their order. Holm 1979, https://www.jstor.org/stable/4615733"""
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


# ---------------------------------------------------------------- Student's t


def t_two_sided(t: float, degrees_of_freedom: float) -> float:
    """Probability that a Student's t of `degrees_of_freedom` degrees lies further from zero than `t`."""
    square = t * t
    if square < 1:  # near the middle the other end of the beta function keeps the digits
        return 1 - incomplete_beta(0.5, degrees_of_freedom / 2, square / (degrees_of_freedom + square))
    return incomplete_beta(degrees_of_freedom / 2, 0.5, degrees_of_freedom / (degrees_of_freedom + square))


def t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """The t below which `probability` (0.5 to 1) of Student's distribution lies, by bisection."""
    tail = 2 * (1 - probability)
    high = 1.0
    while t_two_sided(high, degrees_of_freedom) > tail:
        high *= 2
    return bisect(lambda t: t_two_sided(t, degrees_of_freedom) - tail, 0.0, high)


def bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a falling function between `low` and `high`, to the last digits."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), x in [0, 1].

    By the continued fraction https://dlmf.nist.gov/8.17#v, evaluated with Lentz's method; it converges quickly below the
    mean of the beta distribution, and above it the symmetric case is taken.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    tiny = 1e-300  # keeps Lentz's ratios off zero
    c, d = 1.0, 1 / nonzero(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 1_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = fraction
        for factor in (even, odd):
            d = 1 / nonzero(1 + factor * d, tiny)
            c = nonzero(1 + factor / c, tiny)
            fraction *= c * d
        if abs(fraction - before) <= 1e-16 * abs(fraction):
            break
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * fraction / a


def nonzero(value: float, tiny: float) -> float:
    """`value`, or `tiny` in place of zero."""
    return value if abs(value) > tiny else tiny
