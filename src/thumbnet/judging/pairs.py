"""Two groups of runs compared: over seeds by Student's or Welch's t, single networks image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from thumbnet.errors import UserError
from thumbnet.files import first_line
from thumbnet.judging.groups import Group
from thumbnet.judging.statistics import CLAIM_BELOW, Difference, for_other_images, holm, mcnemar, paired_t, welch
from thumbnet.runs.run import Run

RESAMPLES = 10_000  # of the bootstrap: its ends are then known to a hundredth of their distance
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
    p: float  # McNemar's exact test
    difference: float  # accuracy of the second minus that of the first
    interval95: tuple[float, float]  # paired bootstrap


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
    only_first = only_second = images = 0
    for a, b in zip(*(sorted(runs, key=lambda run: run.recipe.fold) for runs in (first, second)), strict=True):
        try:
            one, other = a.predictions(split), b.predictions(split)
        except UserError as error:
            return first_line(error)
        if not one.same_images(other):
            return "they were measured on different images"
        right = [predictions.hits(5 if metric == "top5" else 1) for predictions in (one, other)]
        only_first += int((right[0] & ~right[1]).sum())
        only_second += int((right[1] & ~right[0]).sum())
        images += len(right[0])
    return paired_by_counts(only_first, only_second, images, folds=len(first))


def paired_by_counts(only_first: int, only_second: int, images: int, *, folds: int = 1) -> PairedImages:
    """What follows for two networks from how many of `images` one alone was right on."""
    return PairedImages(
        images=images,
        folds=folds,
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
        difference=(only_second - only_first) / images,
        interval95=paired_bootstrap(only_first, only_second, images),
    )


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
