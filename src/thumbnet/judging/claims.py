"""Sentences about compared groups that claim only what the statistics carry. No other module words such a claim."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from thumbnet.data.groups import of_groups
from thumbnet.judging.statistics import CLAIM_BELOW, Difference
from thumbnet.words import counted, metric_in_words

if TYPE_CHECKING:
    from thumbnet.judging.groups import Group
    from thumbnet.judging.image_by_image import Tally
    from thumbnet.judging.pairs import Pair, PairedImages

OPENED_OFTEN = "the test set was opened more than once for a run"  # a reason to claim nothing, whatever the seeds
FEW_SEEDS = 5  # below, the reader is warned: Student's factor is 2.8 with 5 seeds, 4.3 with 3 and 12.7 with 2


def on_pair(pair: "Pair", first: "Group", second: "Group", metric: str) -> str:
    """What may be said of two groups."""
    if pair.images:
        return on_images(pair, pair.images, metric)
    if pair.difference:
        return on_seeds(pair, pair.difference, first, second, metric)
    alone = " and ".join(f'"{group.name}"' for group in (first, second) if group.n == 1)
    if alone and pair.reason != OPENED_OFTEN:
        why = f" ({pair.reason})" if pair.reason else ""
        return f"No difference can be claimed: n = 1 for {alone}{why}; train more seeds."
    return on_nothing(pair)


def on_answers(pair: "Pair") -> str:
    """What may be said of two networks whose answers for the same images are there."""
    about = "this is about these 2 networks, not about the ways they were trained."
    return on_images(pair, pair.images, "accuracy", about) if pair.images else on_nothing(pair)


def on_nothing(pair: "Pair") -> str:
    """Why there is nothing to claim."""
    return f'No difference can be claimed between "{pair.first}" and "{pair.second}": {pair.reason}.'


def on_seeds(pair: "Pair", difference: Difference, first: "Group", second: "Group", metric: str) -> str:
    """`"B" is better than "A" by 0.41 points (95 % interval 0.19 to 0.63; n = 5 pairs of the same seed, p = 0.004).`"""
    larger_wins = metric != "loss"
    better, worse = (second, first) if (difference.estimate > 0) == larger_wins else (first, second)
    sign = 1 if difference.estimate > 0 else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    show = amount(metric)
    seeds = f"n = {first.n} pairs of the same seed" if pair.by_seed else f"n = {better.n} and {worse.n}"
    numbers = f"(95 % interval {show(low)} to {show(high)}; {seeds}, p {p_in_words(p_of(pair))})"
    by = f"{show(abs(difference.estimate))} {unit(metric)}"
    if pair.claimed:
        return f'"{better.name}" is better than "{worse.name}" by {by} {numbers}.'
    favour = in_favour(difference.estimate, better.name, metric)
    return f'No difference can be claimed between "{first.name}" and "{second.name}": {by}{favour} {numbers}.'


def on_images(pair: "Pair", paired: "PairedImages", metric: str, caveat: str = "") -> str:
    """For networks of one seed; it says nothing of their recipes, and says so, in these words or others."""
    show, sign = amount(metric), 1 if paired.difference > 0 else -1
    low, high = sorted(sign * end for end in paired.interval95)
    by = f"{show(abs(paired.difference))} {unit(metric)}{' of top-5' if metric == 'top5' else ''}"
    test = "McNemar's p" if paired.groups is None else "with groups exchanged as wholes p"
    where = (
        f"on the same {paired.images:,} images{of_groups(paired.groups)} (95 % interval {show(low)} to {show(high)}, "
        f"{test} {p_in_words(p_of(pair))})"
    )
    network, is_, that = ("network", "is", "that") if paired.folds == 1 else ("networks", "are", "those")
    about = f"n = 1 seed each: this is about these {counted(2 * paired.folds, 'network')}, not about their recipes."
    caveat = caveat or about
    better, worse = (pair.second, pair.first) if sign > 0 else (pair.first, pair.second)
    if pair.significant:
        return f'The {network} of "{better}" {is_} better than {that} of "{worse}" by {by} {where}; {caveat}'
    favour = in_favour(paired.difference, better, metric)
    names = f'"{pair.first}" and "{pair.second}"'
    return f"No difference can be claimed between the networks of {names}: {by}{favour} {where}; {caveat}"


def on_one(group: "Group", metric: str) -> str:
    """`"A" has a mean accuracy of 90.12% (95 % interval 89.80% to 90.44%, n = 3); there is no other recipe ...`"""
    show, interval = value_in_words(metric), group.interval95
    spread = f"95 % interval {show(interval[0])} to {show(interval[1])}, " if interval else ""
    return (
        f'"{group.name}" has a mean {metric_in_words(metric)} of {show(group.mean)} ({spread}n = {group.n}); '
        "there is no other recipe among these runs to compare it with."
    )


def warnings(
    groups: Sequence["Group"],
    pairs: Sequence["Pair"],
    opened_often: Sequence[str],
    only_these: Sequence["Pair"],
    unlike: Mapping[str, Sequence[str]],
    looks: Sequence[int],
) -> list[str]:
    """What a reader should know before believing a number.

    `only_these` are pairs whose claim does not reach beyond the images at hand; `unlike` holds in what the runs' machines and
    versions differ, `looks` with how many seeds all was judged before.
    """
    found = [*often(opened_often), *several(pairs)]
    if only_these:
        named = ", ".join(f'"{pair.first}" and "{pair.second}"' for pair in only_these)
        found.append(
            f"the claim about {named} holds for these images; for new ones of the kind, so many seeds do not show it (Nadeau and "
            "Bengio's test)"
        )
    if small := [f'"{group.name}"' for group in groups if 1 < group.n < FEW_SEEDS]:
        found.append(
            f"fewer than {FEW_SEEDS} seeds for {', '.join(small)}: their spread, and so the interval, is hardly known"
        )
    if looks:
        before = ", then ".join(map(str, looks))
        found.append(
            f"seeds were added after it had been judged with n = {before}: p values are for one look, not for several"
        )
    if unlike:
        told = "; ".join(f"{name} {' and '.join(values)}" for name, values in unlike.items())
        found.append(f"the environments of the runs differ: {told}")
    return found


def warnings_on_answers(tallies: Sequence["Tally"], pairs: Sequence["Pair"], opened_often: Sequence[str]) -> list[str]:
    """What a reader should know of networks compared by their answers."""
    found = [*often(opened_often), *several(pairs)]
    if by_order := [f'"{it.name}"' for it in tallies if it.matched_by == "order"]:
        found.append(
            f"the images of {', '.join(by_order)} were matched by their order, since nothing else tells which they are"
        )
    unknown = [f'"{it.name}"' for it in tallies if it.test_openings is None]
    if unknown:
        found.append(
            f"not known of {', '.join(unknown)}: the training images, what chose the network, how often these images were seen"
        )
    return found


def often(names: Sequence[str]) -> list[str]:
    """Of runs whose test set was opened more than once."""
    if not names:
        return []
    shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    return [f"the test set was opened more than once for {shown}: a number seen before may have chosen the setting"]


def several(pairs: Sequence["Pair"]) -> list[str]:
    """Of p values that were adjusted, because there are several."""
    tested = sum(pair.p is not None for pair in pairs)
    if tested < 2:
        return []
    return [f"{tested} comparisons were made: their p values are adjusted by Holm's method, their intervals are not"]


# ---------------------------------------------------------------- words


def cells(group: "Group", metric: str) -> dict[str, str]:
    """A group as a row of a table: n, mean, sd and interval; "-" where there is none."""
    show = value_in_words(metric)
    return {
        "name": group.name,
        "n": f"{group.n}",
        "mean": show(group.mean),
        "sd": "-" if group.sd is None else amount(metric)(group.sd),
        "interval": "-" if group.interval95 is None else " to ".join(map(show, group.interval95)),
    }


def p_of(pair: "Pair") -> float:
    """The p that counts: adjusted, as it is for every pair that has one."""
    assert pair.adjusted_p is not None
    return pair.adjusted_p


def in_favour(difference: float, better: str, metric: str) -> str:
    """` in favour of "A"`, or nothing where the difference is shown as zero."""
    return f' in favour of "{better}"' if float(amount(metric)(abs(difference))) else ""


def unit(metric: str) -> str:
    """What differences are counted in."""
    return "nats" if metric == "loss" else "points"


def value_in_words(metric: str) -> Callable[[float], str]:
    """Fractions in percent, losses in nats."""
    return (lambda value: f"{value:.4f}") if metric == "loss" else (lambda value: f"{value:.2%}")


def amount(metric: str) -> Callable[[float], str]:
    """Differences of fractions in points, of losses in nats."""
    return (lambda value: f"{value:z.4f}") if metric == "loss" else (lambda value: f"{100 * value:z.2f}")


def p_in_words(p: float) -> str:
    """`= 0.004` or `< 0.0001`; with more digits near the line between a claim and none."""
    if p < 0.0001:
        return "< 0.0001"
    short = f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    return f"= {short}" if abs(p - CLAIM_BELOW) > 0.0006 else f"= {p:.4f}"
