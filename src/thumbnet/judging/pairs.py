"""Two groups of runs compared: over seeds by Student's or Welch's t, single networks image by image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from thumbnet.errors import UserError, first_line
from thumbnet.judging.groups import Group
from thumbnet.judging.statistics import (
    CLAIM_BELOW,
    Difference,
    for_other_images,
    holm,
    mcnemar,
    paired_t,
    t_quantile,
    welch,
)
from thumbnet.runs.run import Run

RESAMPLES = 10_000  # of the bootstrap: its ends are then known to a hundredth of their distance
# Of two networks bool N, which images each was right on, and int64 N, of which group each is, None where none was named.
Answered: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64] | None]
NO_SPREAD = {  # by whether differences were taken seed by seed: why no test is defined
    True: "each seed shows the same difference, so nothing is known of its spread",
    False: "neither group shows any spread between its seeds",
}


@dataclass(frozen=True)
class PairedImages:
    """Two networks on the same images, or those of the same folds: how often one alone was right, and what follows."""

    images: int
    folds: int  # networks on either side
    only_first: int
    only_second: int
    p: float  # McNemar's exact test; of groups, the same with all of a group exchanged together
    difference: float  # accuracy of the second minus that of the first
    interval95: tuple[float, float]  # paired bootstrap; of groups, Student's
    groups: int | None = None  # that the images are of, None where none was named


@dataclass(frozen=True)
class Pair:
    """Two groups compared. `difference` is second minus first over seeds; `images` compares single networks."""

    first: str
    second: str
    difference: Difference | None = None
    by_seed: bool = False  # differences were taken seed by seed
    other_images: Difference | None = None  # by_seed, where each seed held out others: for images beyond these
    images: PairedImages | None = None
    adjusted_p: float | None = None  # Holm's, over all pairs that have a p
    reason: str = ""  # why there is nothing to claim from
    sentence: str = ""

    @property
    def p(self) -> float | None:
        """Of the test over seeds, or over images where there is one seed."""
        found = self.difference or self.images
        return found.p if found else None

    @property
    def claimed(self) -> bool:
        """Whether one of the two recipes may be called better; one seed of each never says so."""
        return self.difference is not None and self.significant

    @property
    def significant(self) -> bool:
        """Of what was compared, be it recipes over seeds or two networks over images."""
        return self.adjusted_p is not None and self.adjusted_p < CLAIM_BELOW


def compare_two(
    first: Group, second: Group, runs_first: Sequence[Run], runs_second: Sequence[Run], split: str, metric: str
) -> Pair:
    """Over seeds; over images where both groups have one seed; the sentence follows."""
    pair = Pair(first.name, second.name)
    if first.n == second.n == 1:
        found = paired_images(runs_first, runs_second, split, metric)
        return replace(pair, reason=found) if isinstance(found, str) else replace(pair, images=found)
    if first.n == 1 or second.n == 1:
        return pair
    by_seed = split == "validation" and drawn_alike(runs_first, runs_second)
    difference = (paired_by_seed if by_seed else welch_of)(first, second)
    if difference is None:
        return replace(pair, reason=NO_SPREAD[by_seed])
    beyond = beyond_these_images(first, second, runs_first) if by_seed else None
    if metric != "loss":
        difference, beyond = within_possible(difference), beyond and within_possible(beyond)
    return replace(pair, difference=difference, by_seed=by_seed, other_images=beyond)


def within_possible(difference: Difference) -> Difference:
    """The interval cut at what differences of accuracies can be; that of two seeds goes beyond."""
    return replace(difference, low=max(-1.0, difference.low), high=min(1.0, difference.high))


def drawn_alike(first: Sequence[Run], second: Sequence[Run]) -> bool:
    """Whether the two groups have the same seeds, and with each the same images held out.

    Then the draw of these images, most of the spread between seeds, is in both alike, and falls out of differences by seed.
    """
    cuts = [sorted(tuple(run.held_out.values()) for run in group) for group in (first, second)]
    return cuts[0] == cuts[1]


def values_by_seed(first: Group, second: Group) -> tuple[list[float], list[float]]:
    """What two groups of the same seeds reached, in the order of the seeds."""
    values = [{member.seed: member.value for member in group.members} for group in (first, second)]
    return [values[0][seed] for seed in sorted(values[0])], [values[1][seed] for seed in sorted(values[0])]


def paired_by_seed(first: Group, second: Group) -> Difference | None:
    """Student's t of the differences of each seed."""
    return paired_t(*values_by_seed(first, second))


def beyond_these_images(first: Group, second: Group, runs: Sequence[Run]) -> Difference | None:
    """The same for other images of the kind; None where that is not known: the seeds share images, or held out folds."""
    ratio = held_out_for_one_trained_on(runs)
    return None if ratio is None else for_other_images(*values_by_seed(first, second), ratio)


def held_out_for_one_trained_on(runs: Sequence[Run]) -> float | None:
    """Validation images for one training image, where every seed drew its own; None elsewhere."""
    one, other = runs[0], runs[1]
    try:
        if one.recipe.folds or one.predictions("validation").same_images(other.predictions("validation")):
            return None
    except UserError:  # written by an earlier version, or damaged: told elsewhere
        return None
    return float(one.data["validation"] / one.data["train"])


def welch_of(first: Group, second: Group) -> Difference | None:
    """Welch's t, for groups whose seeds have nothing in common."""
    return welch(first.values, second.values)


def paired_images(first: Sequence[Run], second: Sequence[Run], split: str, metric: str) -> PairedImages | str:
    """McNemar's test and the paired bootstrap for one seed, over all its folds; or why there are none."""
    if metric not in ("accuracy", "top5"):  # what counts images
        return "image by image only accuracy and top-5 are compared"
    if [run.recipe.folds for run in first] != [run.recipe.folds for run in second]:
        return "their networks hold out different folds"
    if split == "test" and len(first) > 1:  # n answers for each image are not n images
        return "the networks of all folds were measured on the same test images"
    images: list[Answered] = []
    for a, b in zip(*(sorted(runs, key=lambda run: run.recipe.fold) for runs in (first, second)), strict=True):
        try:
            one, other = a.predictions(split), b.predictions(split)
        except UserError as error:
            return first_line(error)
        if not one.same_images(other):
            return "they were measured on different images"
        right = [predictions.hits(5 if metric == "top5" else 1).numpy() for predictions in (one, other)]
        groups = one.groups if one.groups is not None else other.groups
        images.append((right[0], right[1], None if groups is None else groups.numpy()))
    return paired_by_images(*images)


def paired_by_images(*folds: Answered) -> PairedImages:
    """What follows for two networks, or those of several folds, from which images each was right on."""
    only_first = sum(int((first & ~second).sum()) for first, second, _ in folds)
    only_second = sum(int((second & ~first).sum()) for first, second, _ in folds)
    images = sum(len(first) for first, _, _ in folds)
    each = [row for first, second, of in folds if of is not None for row in difference_by_group(first, second, of)]
    if sum(of for _, of in each) == images:
        p, interval = exchanged(each), grouped_difference(each)
    else:  # some images are of no known group
        each, p = [], mcnemar(only_first, only_second)
        interval = paired_bootstrap(only_first, only_second, images)
    return PairedImages(
        images=images,
        folds=len(folds),
        only_first=only_first,
        only_second=only_second,
        p=p,
        difference=(only_second - only_first) / images,
        interval95=interval,
        groups=len(each) or None,
    )


def difference_by_group(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Of each group that has images, on how many more the second was right, and how many there are."""
    apart = np.bincount(groups, weights=second.astype(np.int64) - first).astype(np.int64)
    return [(more, of) for more, of in zip(apart.tolist(), np.bincount(groups).tolist(), strict=True) if of]


def exchanged(groups: Sequence[tuple[int, int]]) -> float:
    """Two-sided p for two classifiers, from on how many more images of each group the second was right.

    Were they equal, all of a group might as well have come out the other way round, and every group independently: so the sum of
    the differences with all possible signs, exactly (Fisher 1935, The Design of Experiments, section 21). Where each image is a
    group of its own, this is McNemar's test.
    """
    sizes = [abs(more) for more, _ in groups if more]
    chances = np.zeros(sum(sizes) + 1)  # of so many in favour of the second, of all
    chances[0] = 1
    for size in sizes:
        turned = np.zeros_like(chances)
        turned[size:] = chances[:-size]
        chances = (chances + turned) / 2
    sums = np.abs(2 * np.arange(len(chances)) - sum(sizes))
    return min(1.0, float(chances[sums >= abs(sum(more for more, _ in groups))].sum()))


def grouped_difference(groups: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """95 % interval of the difference in accuracy, from the differences of groups and their images, by Student's t.

    As if half an image more had been seen in favour of each of the two, as in `paired_bootstrap`; where the two never differ,
    half a group, for nothing tells then how alike the images of a group are. From one group nothing follows.
    """
    count, images = len(groups), sum(of for _, of in groups)
    if count < 2:
        return -1.0, 1.0
    mean = sum(more for more, _ in groups) / images
    squares = sum((more - mean * of) ** 2 for more, of in groups)
    squares += 1 if any(more for more, _ in groups) else (images / count) ** 2
    half = t_quantile(0.975, count - 1) * math.sqrt(squares * count / (count - 1)) / images
    return max(-1.0, mean - half), min(1.0, mean + half)


def paired_bootstrap(only_first: int, only_second: int, images: int, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the difference in accuracy when the images are drawn again with replacement, both networks together.

    The difference of an image is -1, 0 or 1, so that a resample is a draw of three counts. Percentiles of `RESAMPLES`;
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. As if half an image more had been seen of each of the
    four kinds (right or wrong for either; Agresti & Min 2005, https://doi.org/10.1002/sim.1781): where the two hardly ever
    differ, drawing again what was seen would know too well that they never do.
    """
    import torch

    from thumbnet.randomness import generator

    random = generator("cpu", seed, "bootstrap")
    apart = only_first + only_second + 1
    # First how many of the images on which the two are apart are drawn, then which of the two was right on each.
    some = torch.full((RESAMPLES,), float(images), dtype=torch.float64)
    drawn = torch.binomial(some, torch.full_like(some, apart / (images + 2)), generator=random)
    second = torch.binomial(drawn, torch.full_like(drawn, (only_second + 0.5) / apart), generator=random)
    differences = (2 * second - drawn) / images
    low, high = torch.quantile(differences, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def not_for_other_images(pairs: Sequence[Pair]) -> list[Pair]:
    """Claimed pairs that could not be claimed of other images of the kind."""
    tested = [pair for pair in pairs if pair.p is not None]
    values = holm([pair.other_images.p if pair.other_images else pair.p or 0.0 for pair in tested])
    return [
        pair for pair, p in zip(tested, values, strict=True) if pair.claimed and pair.other_images and p >= CLAIM_BELOW
    ]


def adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's p, over those that have one."""
    values = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    return [replace(pair, adjusted_p=next(values)) if pair.p is not None else pair for pair in pairs]
