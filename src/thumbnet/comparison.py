"""Comparing runs: groups of seeds, differences with intervals, and sentences that claim only what they carry."""
# Shapes: N images.

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from thumbnet.errors import UserError
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import Recipe, differences
from thumbnet.runs import Run
from thumbnet.statistics import CLAIM_BELOW, Difference, accuracy_interval, holm, mcnemar, mean_interval, welch

Metric = Literal["accuracy", "top5", "loss"]
SplitName = Literal["validation", "test"]
RESAMPLES = 10_000  # of the bootstrap: its ends are then known to a hundredth of their distance


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
        return statistics.stdev(self.values) if self.n > 1 else None

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
class Pair:
    """Two groups compared. `difference` is second minus first over seeds; `images` compares two single networks."""

    first: str
    second: str
    difference: Difference | None
    adjusted_p: float | None  # Holm's, over all pairs
    images: "PairedImages | None"
    sentence: str


@dataclass(frozen=True)
class PairedImages:
    """Two networks on the same images: how often one alone was right, and what follows."""

    images: int
    only_first: int
    only_second: int
    p: float  # McNemar's exact test
    difference: float  # accuracy of the second minus that of the first
    interval95: tuple[float, float]  # paired bootstrap


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
        return [pair.sentence for pair in self.pairs] or [sentence_on_one(group, self.metric) for group in self.groups]

    def to_json(self) -> dict[str, Any]:
        """Plain values; groups with mean, sd and interval."""
        groups = [
            asdict(group) | {"n": group.n, "mean": group.mean, "sd": group.sd, "interval95": group.interval95}
            for group in self.groups
        ]
        return asdict(self) | {"groups": groups, "sentences": self.sentences}


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
) -> Comparison:
    """Compares runs under the group names given with them: every pair, or each with the first where `baseline`."""
    runs: dict[str, list[Run]] = {}
    for name, run in named:
        runs.setdefault(name, []).append(run)
    groups = tuple(Group(name, members_of(part, split, metric), metric) for name, part in runs.items())
    chosen = [(groups[0], other) for other in groups[1:]] if baseline else list(combinations(groups, 2))
    opened_often = [m.path for group in groups for m in group.members if split == "test" and m.test_openings > 1]
    pairs = [compare_two(a, b, runs[a.name], runs[b.name], split, metric) for a, b in chosen]
    pairs = [conclude(pair, groups, metric, refused=bool(opened_often)) for pair in adjusted(pairs)]
    first = named[0][1]
    return Comparison(
        dataset=first.data["name"],
        split=split,
        metric=metric,
        groups=groups,
        pairs=tuple(pairs),
        warnings=tuple(warnings(groups, pairs, opened_often)),
    )


# ---------------------------------------------------------------- groups


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise `UserError` unless there are two runs or more, all finished, on the same images and classes."""
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
    first = runs[0]
    for run in runs[1:]:
        if run.classes != first.classes:
            raise UserError(f"{first.path} and {run.path} have different classes; only runs on the same data compare")
        if run.data["fingerprint"] != first.data["fingerprint"]:
            raise UserError(
                f"{first.path} was trained on {first.data['name']} {first.data['fingerprint']}, {run.path} on "
                f"{run.data['name']} {run.data['fingerprint']}; only runs on the same data compare"
            )


def name_of_group(recipe: Recipe) -> str:
    """The recipe's name and what was changed in it but the seed: `general, epochs 4`."""
    changed = differences(recipe, named_recipe(recipe.name))
    words = [f"{name} {in_words(now)}" for name, (now, _) in changed.items() if name not in ("seed", "fold")]
    return ", ".join([recipe.name, *words])


def in_words(value: Any) -> str:
    """A field's value as it is typed: `0.75 1`, `yes`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(in_words, value)) if isinstance(value, tuple | list) else f"{value}"


def members_of(runs: Sequence[Run], split: str, metric: str) -> tuple[Member, ...]:
    """What each seed reached: one run, or the mean over the folds of one seed, which share images and are no draws apart.

    Raises `UserError` where that was not measured, or one seed is there twice, since the same run twice is no second draw.
    """
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        by_seed.setdefault(run.recipe.seed, []).append(run)
    members = []
    for seed, part in by_seed.items():
        if len({run.recipe.fold for run in part}) < len(part):
            raise UserError(f"{part[0].path} and {part[1].path} have the same recipe and seed {seed}; name one of them")
        values = [value_of(run, split, metric) for run in part]
        openings, seconds = max(run.test_openings for run in part), sum(run.summary["train_seconds"] for run in part)
        members.append(Member(str(part[0].path), seed, statistics.fmean(values), openings, seconds))
    return tuple(members)


def value_of(run: Run, split: str, metric: str) -> float:
    """The metric on a split, from the summary or the last evaluation with one view."""
    if split == "validation":
        value = run.summary.get(f"validation_{metric}")
        if value is None:
            raise UserError(
                f"{run.path} was trained on all its images, so it has no validation {metric}; try --split test"
            )
        return value
    for row in reversed(run.evaluations):
        if row["split"] == split and row["views"] == 1:
            return row[metric]
    raise UserError(
        f"{run.path} was not measured on its {split} images; run: thumbnet evaluate {run.path} --split {split}"
    )


# ---------------------------------------------------------------- pairs


def compare_two(
    first: Group, second: Group, runs_first: Sequence[Run], runs_second: Sequence[Run], split: str, metric: str
) -> Pair:
    """Over seeds, and for two single networks over images; the sentence follows in `conclude`."""
    paired = None
    if first.n == second.n == 1 and metric == "accuracy":
        paired = paired_images(runs_first[0], runs_second[0], split)
    difference = welch(first.values, second.values)
    if difference and metric != "loss":  # two seeds' interval would leave what differences of accuracies can be
        difference = replace(difference, low=max(-1.0, difference.low), high=min(1.0, difference.high))
    return Pair(first.name, second.name, difference, None, paired, "")


def paired_images(first: Run, second: Run, split: str) -> PairedImages | None:
    """McNemar's test and the paired bootstrap, or None where the images were not the same or nothing was kept of them."""
    try:
        one, other = first.predictions(split), second.predictions(split)
    except UserError:
        return None
    if not one.same_images(other):
        return None
    right = [predictions.logits.argmax(1) == predictions.labels for predictions in (one, other)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    images = len(right[0])
    return PairedImages(
        images=images,
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
        difference=(only_second - only_first) / images,
        interval95=paired_bootstrap(only_first, only_second, images),
    )


def paired_bootstrap(only_first: int, only_second: int, images: int, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the difference in accuracy when the images are drawn again with replacement, both networks together.

    The difference of an image is -1, 0 or 1, so that a resample is a draw of three counts. Percentiles of `RESAMPLES`;
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    import torch

    from thumbnet.randomness import generator

    random = generator("cpu", seed, "bootstrap")
    apart = only_first + only_second
    # First how many of the images on which the two are apart are drawn, then which of the two was right on each.
    some = torch.full((RESAMPLES,), float(images), dtype=torch.float64)
    drawn = torch.binomial(some, torch.full_like(some, apart / images), generator=random)
    second = torch.binomial(drawn, torch.full_like(drawn, only_second / max(1, apart)), generator=random)
    differences_ = (2 * second - drawn) / images
    low, high = torch.quantile(differences_, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's p, over those that have one."""
    tested = [pair for pair in pairs if pair.difference]
    values = iter(holm([pair.difference.p for pair in tested if pair.difference]))
    return [replace(pair, adjusted_p=next(values)) if pair.difference else pair for pair in pairs]


def conclude(pair: Pair, groups: Sequence[Group], metric: str, *, refused: bool) -> Pair:
    """The pair with its sentence. Where `refused`, the test set was opened too often for any claim."""
    first, second = (next(group for group in groups if group.name == name) for name in (pair.first, pair.second))
    if refused:
        return replace(pair, sentence="No claim is made: the test set was opened more than once for a run.")
    if pair.images:
        return replace(pair, sentence=sentence_on_images(pair, pair.images))
    if first.n == 1 or second.n == 1:
        alone = " and ".join(f'"{group.name}"' for group in (first, second) if group.n == 1)
        return replace(pair, sentence=f"No difference can be claimed: n = 1 for {alone}; train more seeds.")
    if pair.difference is None:
        return replace(pair, sentence="No difference can be claimed: neither group shows any spread between its seeds.")
    return replace(pair, sentence=sentence_on_seeds(pair, pair.difference, first, second, metric))


def sentence_on_seeds(pair: Pair, difference: Difference, first: Group, second: Group, metric: str) -> str:
    """`"B" is better than "A" by 0.41 points (95 % interval 0.19 to 0.63; n = 5 and 5, p = 0.004).`"""
    p = pair.adjusted_p if pair.adjusted_p is not None else difference.p
    larger_wins = metric != "loss"
    better, worse = (second, first) if (difference.estimate > 0) == larger_wins else (first, second)
    sign = 1 if difference.estimate > 0 else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    show = amount(metric)
    numbers = f"(95 % interval {show(low)} to {show(high)}; n = {better.n} and {worse.n}, p {p_in_words(p)})"
    if p < CLAIM_BELOW:
        return f'"{better.name}" is better than "{worse.name}" by {show(abs(difference.estimate))} {unit(metric)} {numbers}.'
    return (
        f'No difference can be claimed between "{first.name}" and "{second.name}": {show(abs(difference.estimate))} '
        f'{unit(metric)} in favour of "{better.name}" {numbers}.'
    )


def sentence_on_one(group: Group, metric: str) -> str:
    """`"A" has a mean accuracy of 90.12% (95 % interval 89.80% to 90.44%, n = 3); there is no other recipe ...`"""
    show, interval = value_in_words(metric), group.interval95
    spread = f"95 % interval {show(interval[0])} to {show(interval[1])}, " if interval else ""
    named = {"top5": "top-5 accuracy"}.get(metric, metric)
    return (
        f'"{group.name}" has a mean {named} of {show(group.mean)} ({spread}n = {group.n}); '
        "there is no other recipe among these runs to compare it with."
    )


def sentence_on_images(pair: Pair, paired: PairedImages) -> str:
    """For two single networks; it says nothing of their recipes, and says so."""
    show, sign = amount("accuracy"), 1 if paired.difference > 0 else -1
    low, high = sorted(sign * end for end in paired.interval95)
    by = f"{show(abs(paired.difference))} {unit('accuracy')}"
    where = (
        f"on the same {paired.images:,} images (95 % interval {show(low)} to {show(high)}, "
        f"McNemar's p {p_in_words(paired.p)})"
    )
    better, worse = (pair.second, pair.first) if sign > 0 else (pair.first, pair.second)
    caveat = "n = 1 each: this is about these two networks, not about their recipes."
    if paired.p >= CLAIM_BELOW:
        names = f'"{pair.first}" and "{pair.second}"'
        favour = f' in favour of "{better}"' if paired.difference else ""
        return f"No difference can be claimed between the networks of {names}: {by}{favour} {where}; {caveat}"
    return f'The network of "{better}" is better than that of "{worse}" by {by} {where}; {caveat}'


def warnings(groups: Sequence[Group], pairs: Sequence[Pair], opened_often: Sequence[str]) -> list[str]:
    """What a reader should know before believing a number."""
    found = []
    if opened_often:
        shown = ", ".join(opened_often[:3]) + (" ..." if len(opened_often) > 3 else "")
        found.append(f"the test set was opened more than once for {shown}: its numbers may have chosen something")
    tested = sum(pair.difference is not None for pair in pairs)
    if tested > 1:
        found.append(f"{tested} comparisons were made: their p values are adjusted by Holm's method")
    if small := [group.name for group in groups if 1 < group.n < 5]:
        found.append(f"fewer than 5 seeds for {', '.join(small)}: intervals over seeds are wide")
    return found


# ---------------------------------------------------------------- words


def unit(metric: str) -> str:
    """What differences are counted in."""
    return "nats" if metric == "loss" else "points"


def value_in_words(metric: str) -> Callable[[float], str]:
    """Fractions in percent, losses in nats."""
    return (lambda value: f"{value:.4f}") if metric == "loss" else (lambda value: f"{value:.2%}")


def amount(metric: str) -> Callable[[float], str]:
    """Differences of fractions in points, of losses in nats."""
    return (lambda value: f"{value:.4f}") if metric == "loss" else (lambda value: f"{100 * value:.2f}")


def p_in_words(p: float) -> str:
    """`= 0.004` or `< 0.0001`."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"
