"""Comparing runs: groups of seeds, differences with intervals, and what may be claimed of them (worded in claims.py)."""
# Shapes: N images.

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from thumbnet import claims
from thumbnet.errors import UserError
from thumbnet.files import first_line
from thumbnet.recipes import name_of_group
from thumbnet.runs import Run
from thumbnet.statistics import (
    CLAIM_BELOW,
    Difference,
    accuracy_interval,
    holm,
    mcnemar,
    mean_interval,
    paired_t,
    standard_deviation,
    welch,
)

Metric = Literal["accuracy", "top5", "loss"]
SplitName = Literal["validation", "test"]
RESAMPLES = 10_000  # of the bootstrap: its ends are then known to a hundredth of their distance
ALIKE = ("device", "precision", "torch", "thumbnet")  # of a run's environment; what else differs is told as a warning
NO_SPREAD = {  # by whether differences were taken seed by seed: why no test is defined
    True: "each seed shows the same difference, so nothing is known of its spread",
    False: "neither group shows any spread between its seeds",
}


@dataclass(frozen=True)
class Member:
    """One run of a group and what it reached."""

    path: str
    seed: int
    value: float
    test_openings: int
    train_seconds: float


@dataclass(frozen=True)
class Group:
    """Runs of one recipe on one data set that differ in their seed alone."""

    name: str
    members: tuple[Member, ...]
    metric: Metric = "accuracy"

    @property
    def values(self) -> list[float]:
        return [member.value for member in self.members]

    @property
    def n(self) -> int:
        return len(self.members)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        return standard_deviation(self.values) if self.n > 1 else None

    @property
    def interval95(self) -> tuple[float, float] | None:
        """Student's, of the mean; None for a single run, and where all runs gave the same number."""
        if not self.sd:
            return None
        return mean_interval(self.values, lowest=0.0) if self.metric == "loss" else accuracy_interval(self.values)

    @property
    def seconds(self) -> float:
        """Median of the training clocks."""
        return statistics.median(member.train_seconds for member in self.members)


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


@dataclass(frozen=True)
class Comparison:
    """Groups in the order they were given, what they share, and every pair."""

    dataset: str
    split: str
    metric: str
    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """What can be said: of every pair, or of the one group there is."""
        return [pair.sentence for pair in self.pairs] or [claims.on_one(group, self.metric) for group in self.groups]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; groups with mean, sd and interval."""
        groups = [
            asdict(group) | {"n": group.n, "mean": group.mean, "sd": group.sd, "interval95": group.interval95}
            for group in self.groups
        ]
        pairs = [asdict(pair) | {"p": pair.p, "claimed": pair.claimed} for pair in self.pairs]
        return asdict(self) | {"groups": groups, "pairs": pairs, "sentences": self.sentences}


def compare(
    runs: Sequence[Run | str | Path], *, split: SplitName = "validation", metric: Metric = "accuracy"
) -> Comparison:
    """Groups finished runs by recipe and data, and compares every two groups.

    On "validation" the numbers are those that training ended with; on "test" those of the last `evaluate --split test` with
    one view. Raises `UserError` for fewer than two runs, unfinished ones, different data or classes, or numbers not yet
    measured.
    """
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    check_comparable(opened)
    named = [(name_of_group(run.recipe), run) for run in opened]
    return compare_groups(named, split=split, metric=metric)


def compare_groups(
    named: Sequence[tuple[str, Run]],
    *,
    split: SplitName = "validation",
    metric: Metric = "accuracy",
    baseline: bool = False,
    looks: Sequence[int] = (),
) -> Comparison:
    """Compares runs under the group names given with them: every pair, or each with the first where `baseline`.

    `looks`: with how many seeds of a group it was judged before there were these; that is told as a warning.

    Raises `UserError` where the runs are not of the same data and images, or hold out different folds.
    """
    runs: dict[str, list[Run]] = {}
    for name, run in named:
        runs.setdefault(name, []).append(run)
    everyone = [run for _, run in named]
    check_same_data(everyone)
    check_same_folds(runs.values())
    if split == "test":
        check_same_test_images(everyone)
    groups = tuple(Group(name, members_of(part, split, metric), metric) for name, part in runs.items())
    chosen = [(groups[0], other) for other in groups[1:]] if baseline else list(combinations(groups, 2))
    opened_often = [m.path for group in groups for m in group.members if split == "test" and m.test_openings > 1]
    if opened_often:
        pairs = [Pair(a.name, b.name, reason=claims.OPENED_OFTEN) for a, b in chosen]
    else:
        pairs = adjusted([compare_two(a, b, runs[a.name], runs[b.name], split, metric) for a, b in chosen])
    by_name = {group.name: group for group in groups}
    pairs = [
        replace(pair, sentence=claims.on_pair(pair, by_name[pair.first], by_name[pair.second], metric))
        for pair in pairs
    ]
    return Comparison(
        dataset=named[0][1].data["name"],
        split=split,
        metric=metric,
        groups=groups,
        pairs=tuple(pairs),
        warnings=tuple(claims.warnings(groups, pairs, opened_often, unlike(everyone), looks)),
    )


# ---------------------------------------------------------------- groups


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise `UserError` unless there are two runs or more, all finished, and each named once."""
    if len(runs) < 2:
        raise UserError("name two runs or more to compare; thumbnet evaluate judges one")
    named: dict[Path, Path] = {}
    for run in runs:
        real = run.path.resolve()
        if real in named:
            other = (
                f"{named[real]} and {run.path} are the same run"
                if named[real] != run.path
                else f"{run.path} is named twice"
            )
            raise UserError(f"{other}; name each run once")
        named[real] = run.path
    for run in runs:
        run.require_finished()


def check_same_data(runs: Sequence[Run]) -> None:
    """Raise `UserError` unless all runs are of the same classes and training images."""
    first = runs[0]
    for run in runs[1:]:
        if run.classes != first.classes:
            raise UserError(f"{first.path} and {run.path} have different classes; only runs on the same data compare")
        if not run.data.same_training_images(first.data):
            raise UserError(
                f"{first.path} was trained on {first.data['name']} {first.data['fingerprint']}, {run.path} on "
                f"{run.data['name']} {run.data['fingerprint']}; only runs on the same data compare"
            )


def check_same_test_images(runs: Sequence[Run]) -> None:
    """Raise `UserError` where runs were measured on test images of data that had changed in between."""
    seen: dict[str, Path] = {}
    for run in runs:
        if row := evaluation_of(run, "test"):
            seen.setdefault(row.get("fingerprint", run.data["fingerprint"]), run.path)
    if len(seen) > 1:
        first, second = list(seen.values())[:2]
        raise UserError(f"{first} and {second} were measured on different test images; evaluate them again on the same")


def check_same_folds(groups: Iterable[Sequence[Run]]) -> None:
    """Raise `UserError` where, of runs that cut their images into as many folds, seeds hold out different ones.

    The mean over some folds and the mean over others differ by their images.
    """
    held_out: dict[int, tuple[set[int], Path]] = {}
    for group in groups:
        for part in runs_by_seed(group).values():
            folds, count = {run.recipe.fold for run in part}, part[0].recipe.folds
            others, path = held_out.setdefault(count, (folds, part[0].path))
            if count and folds != others:
                raise UserError(
                    f"seed {part[0].recipe.seed} of {part[0].path} has the folds {listed(folds)} of {count}, that of {path} "
                    f"{listed(others)}; give the same folds of every seed"
                )


def listed(numbers: Iterable[int]) -> str:
    """`0, 1 and 2`."""
    *most, last = map(str, sorted(numbers))
    return f"{', '.join(most)} and {last}" if most else last


def unlike(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What the runs' machines and versions differ in, of `ALIKE`: the values of each."""
    values = {name: sorted({str(run.environment.get(name)) for run in runs}) for name in ALIKE}
    return {name: found for name, found in values.items() if len(found) > 1}


def members_of(runs: Sequence[Run], split: str, metric: str) -> tuple[Member, ...]:
    """What each seed reached: one run, or the mean over the folds of one seed, which share images and are no draws apart.

    Raises `UserError` where that was not measured, or one seed is there twice, since the same run twice is no second draw.
    """
    members = []
    for seed, part in runs_by_seed(runs).items():
        if len({run.recipe.fold for run in part}) < len(part):
            raise UserError(f"{part[0].path} and {part[1].path} have the same recipe and seed {seed}; name one of them")
        values = [value_of(run, split, metric) for run in part]
        openings, seconds = max(run.test_openings for run in part), sum(run.summary["train_seconds"] for run in part)
        members.append(Member(str(part[0].path), seed, statistics.fmean(values), openings, seconds))
    return tuple(members)


def runs_by_seed(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """The runs of each seed: one, or one for each fold."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(run.recipe.seed, []).append(run)
    return found


def value_of(run: Run, split: str, metric: str) -> float:
    """The metric on a split, from the summary or the last evaluation with one view."""
    if split == "validation":
        value = run.summary.get(f"validation_{metric}")
        if value is None:
            raise UserError(
                f"{run.path} was trained on all its images, so it has no validation {metric}; try --split test"
            )
        return value
    if row := evaluation_of(run, split):
        return row[metric]
    raise UserError(
        f"{run.path} was not measured on its {split} images; run: thumbnet evaluate {run.path} --split {split}"
    )


def evaluation_of(run: Run, split: str) -> dict[str, Any] | None:
    """The last measurement of the split with one view."""
    return next((row for row in reversed(run.evaluations) if row["split"] == split and row["views"] == 1), None)


# ---------------------------------------------------------------- pairs


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
    if metric != "loss":  # two seeds' interval would leave what differences of accuracies can be
        difference = replace(difference, low=max(-1.0, difference.low), high=min(1.0, difference.high))
    return replace(pair, difference=difference, by_seed=by_seed)


def drawn_alike(first: Sequence[Run], second: Sequence[Run]) -> bool:
    """Whether the two groups have the same seeds, and with each the same images held out.

    Then the draw of these images, most of the spread between seeds, is in both alike, and falls out of differences by seed.
    """
    cuts = [sorted(tuple(run.recipe.cut.values()) for run in group) for group in (first, second)]
    return cuts[0] == cuts[1]


def paired_by_seed(first: Group, second: Group) -> Difference | None:
    """Student's t of the differences of each seed."""
    values = [{member.seed: member.value for member in group.members} for group in (first, second)]
    seeds = sorted(values[0])
    return paired_t(*([by_seed[seed] for seed in seeds] for by_seed in values))


def welch_of(first: Group, second: Group) -> Difference | None:
    """Welch's t, for groups whose seeds have nothing in common."""
    return welch(first.values, second.values)


def paired_images(first: Sequence[Run], second: Sequence[Run], split: str, metric: str) -> PairedImages | str:
    """McNemar's test and the paired bootstrap for one seed, over all its folds; or why there are none."""
    if metric == "loss":
        return "image by image only accuracies are compared"
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
    return PairedImages(
        images=images,
        folds=len(first),
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
    differences_ = (2 * second - drawn) / images
    low, high = torch.quantile(differences_, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's p, over those that have one."""
    values = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    return [replace(pair, adjusted_p=next(values)) if pair.p is not None else pair for pair in pairs]
