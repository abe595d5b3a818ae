"""Single networks compared image by image, be they runs or files of another program's answers."""
# Shapes: N images.

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.data.labelled import called_by_numbers, is_number
from thumbnet.errors import UserError
from thumbnet.judging import claims
from thumbnet.judging.answers import ARRAY_OF, Answers, answers_of_run, everything_said, in_classes, read_answers
from thumbnet.judging.comparison import check_named_once, check_same_data, check_same_test_images
from thumbnet.judging.groups import SplitName
from thumbnet.judging.intervals import interval_of
from thumbnet.judging.pairs import Pair, adjusted, paired_by_images
from thumbnet.runs.paths import is_answers
from thumbnet.runs.run import Run
from thumbnet.words import shortened

ORDER = "order"  # of the answers, by which images are matched where nothing else tells them


@dataclass(frozen=True)
class Tally:
    """What one network got right, and by what its images were matched with those of the first."""

    name: str
    images: int
    right: int
    interval95: tuple[float, float]  # of the accuracy
    matched_by: str | None  # "file", "image" or "order"; None for the first
    test_openings: int | None  # of the run; None for a file, of which nobody knows

    @property
    def accuracy(self) -> float:
        return self.right / self.images


@dataclass(frozen=True)
class AnswersComparison:
    """Networks in the order they were given, and each pair of them on the same images, but for pairs of runs."""

    dataset: str | None  # None where no run tells
    split: str | None
    images: int
    answers: tuple[Tally, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """What can be said of every pair."""
        return [pair.sentence for pair in self.pairs]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; each network with its accuracy."""
        answers = [asdict(it) | {"accuracy": it.accuracy} for it in self.answers]
        pairs = [asdict(pair) | {"p": pair.p, "claimed": pair.claimed} for pair in self.pairs]
        return asdict(self) | {"answers": answers, "pairs": pairs, "sentences": self.sentences}


def compare_answers(sources: Sequence[Run | str | Path], *, split: SplitName = "validation") -> AnswersComparison:
    """Compares what networks said of the same images: files as `read_answers` takes them, and runs (or their folders).

    Of runs it takes the answers for `split` in one view, and leaves it to `compare` to compare them with each other. It speaks of
    these networks, never of their recipes. Raises `UserError` where one of them cannot be read or is there twice, or where they
    are not of the same images.
    """
    if isinstance(sources, str | Path) or not sources:
        raise UserError("give a list of runs and files of answers to compare")
    opened = [it if isinstance(it, Run) or is_answers(Path(it)) else Run.open(it) for it in sources]
    runs = [it for it in opened if isinstance(it, Run)]
    check_named_once([it.path if isinstance(it, Run) else Path(it) for it in opened])
    if len(runs) > 1:
        check_same_data(runs)
        if split == "test":
            check_same_test_images(runs)
    given = [answers_of_run(it, split) if isinstance(it, Run) else read_answers(it) for it in opened]
    matched = matched_answers(given)
    groups = groups_of(given)
    grouped = None if groups is None else torch.from_numpy(groups)
    tallies = [
        Tally(it.name, len(hits), int(hits.sum()), interval_of(torch.from_numpy(hits), grouped), kind, it.test_openings)
        for it, (kind, hits) in zip(given, matched, strict=True)
    ]
    opened_often = [it.name for it in tallies if split == "test" and (it.test_openings or 0) > 1]
    right = {it.name: hits for it, (_, hits) in zip(given, matched, strict=True)}
    chosen = [
        (one.name, other.name)
        for (one, a), (other, b) in combinations(zip(given, opened, strict=True), 2)
        if not (isinstance(a, Run) and isinstance(b, Run))
    ]
    pairs = adjusted([pair_of(one, other, right, groups, opened_often) for one, other in chosen])
    return AnswersComparison(
        dataset=runs[0].data["name"] if runs else None,
        split=split if runs else None,
        images=tallies[0].images,
        answers=tuple(tallies),
        pairs=tuple(replace(pair, sentence=claims.on_answers(pair)) for pair in pairs),
        warnings=tuple(claims.warnings_on_answers(tallies, pairs, opened_often)),
    )


def pair_of(
    first: str,
    second: str,
    right: dict[str, NDArray[np.bool_]],
    groups: NDArray[np.int64] | None,
    opened_often: Sequence[str],
) -> Pair:
    """Test and interval over images, unless the test images were opened more than once for one of the two."""
    if first in opened_often or second in opened_often:
        return Pair(first, second, reason=claims.OPENED_OFTEN)
    return Pair(first, second, images=paired_by_images((right[first], right[second], groups)))


def groups_of(given: Sequence[Answers]) -> NDArray[np.int64] | None:
    """Of which groups the images are, in the first's order, as the first run tells that knows; None where none does."""
    known = next((it for it in given if it.groups is not None), None)
    if known is None or known.groups is None:
        return None
    return known.groups if known is given[0] else known.groups[in_order_of(given[0], known)[1]]


# ---------------------------------------------------------------- the same images


def matched_answers(given: Sequence[Answers]) -> list[tuple[str | None, NDArray[np.bool_]]]:
    """For each by what it was matched with the first, and bool N: whether it was right, in the first's order.

    Raises `UserError` unless all are of the same images, as far as that can be told.
    """
    classes = classes_of(given)
    first = given[0]
    labels, right = in_classes(first, classes)
    found: list[tuple[str | None, NDArray[np.bool_]]] = [(None, labels == right)]
    for other in given[1:]:
        places, predicted = in_classes(other, classes)
        kind, order = in_order_of(first, other)
        differ = np.flatnonzero(places[order] != labels)
        if len(differ):
            row = int(differ[0])
            which = f"answer {row + 1:,}" if kind == ORDER else f"{kind} {shortened(first.images[kind][row])}"
            one, two = (classes[place] for place in (labels[row], places[order][row]))
            raise UserError(
                f"{first} and {other} do not agree of which class {which} is ({one!r} and {two!r}); give answers for the same "
                f"images{', in the same order' if kind == ORDER else ''}"
            )
        if kind == ORDER and in_blocks(labels):
            raise UserError(
                f"{first} and {other} have their images class by class, and no column or array in both tells which image one is "
                "of, so that another order would go unnoticed; give image or file in both"
            )
        found.append((kind, (places == predicted)[order]))
    return found


def classes_of(given: Sequence[Answers]) -> tuple[str, ...]:
    """The classes that answers are places in: those of a run, else of the file that names most, else all that occur."""
    of_runs = [it.classes for it in given if it.test_openings is not None]
    named = {it.classes for it in given if it.classes}
    numbered = [it for it in given if not it.classes and all(map(is_number, np.unique(it.labels).tolist()))]
    if of_runs:
        return of_runs[0]
    if named:
        if numbered and len(named) > 1 and not any(map(called_by_numbers, named)):
            raise UserError(
                f"{numbered[0].name} has numbers for its classes, and others name theirs in different orders; give it names"
            )
        return max(sorted(named), key=len)
    if numbered and len(numbered) < len(given):
        other = next(it for it in given if it not in numbered)
        raise UserError(f"{numbered[0].name} has numbers for its classes and {other.name} names; give names in both")
    return everything_said(given)


def in_blocks(labels: NDArray[np.int64]) -> bool:
    """Whether all images of a class follow each other, as folders have them."""
    kinds = len(np.unique(labels))
    return kinds < len(labels) and int((np.diff(labels) != 0).sum()) == kinds - 1


def in_order_of(first: Answers, other: Answers) -> tuple[str, NDArray[np.int64]]:
    """By what images are matched, and N: where the images of `first` stand in `other`."""
    kind = next((kind for kind in ARRAY_OF if kind in first.images and kind in other.images), None)
    if kind is None:
        if len(first.labels) != len(other.labels):
            raise UserError(
                f"{first} has {len(first.labels):,} answers and {other} {len(other.labels):,}, and no column or array in both "
                "tells which image one is of; give image or file in both, or answers for the same images"
                + which_split(first, other)
            )
        return ORDER, np.arange(len(first.labels))
    where = {image: place for place, image in enumerate(other.images[kind])}
    missing = [image for image in first.images[kind] if image not in where]
    if missing or len(where) > len(first.labels):
        here = set(first.images[kind])
        only, name = (first, missing[0]) if missing else (other, next(image for image in where if image not in here))
        lacking = other if only is first else first
        raise UserError(
            f"{first} and {other} are of different images: {kind} {shortened(name)} is in {only} only, where {lacking} has, for "
            f"example, {shortened(lacking.images[kind][0])}" + which_split(first, other)
        )
    return kind, np.array([where[image] for image in first.images[kind]], np.int64)


def which_split(*compared: Answers) -> str:
    """Which images of a run were not taken, where there are more or fewer of the others'."""
    taken = next((it.split for it in compared if it.test_openings is not None), None)
    if taken is None or len({len(it.labels) for it in compared}) == 1:
        return ""
    return f" (--split {'test' if taken == 'validation' else 'validation'} takes the run's other images)"
