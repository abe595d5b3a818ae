"""Single networks compared image by image, be they runs or files of another program's answers."""
# Shapes: N images.

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.errors import UserError
from thumbnet.judging import claims
from thumbnet.judging.answers import ARRAY_OF, Answers, answers_of_run, in_classes, is_answers, read_answers
from thumbnet.judging.comparison import check_same_data, check_same_test_images
from thumbnet.judging.groups import SplitName
from thumbnet.judging.pairs import Pair, adjusted, paired_by_counts
from thumbnet.judging.statistics import wilson_interval
from thumbnet.runs.run import Run
from thumbnet.words import shortened


@dataclass(frozen=True)
class Tally:
    """What one network got right."""

    name: str
    images: int
    right: int
    test_openings: int | None  # of the run; None for a file, of which nobody knows

    @property
    def accuracy(self) -> float:
        return self.right / self.images

    @property
    def interval95(self) -> tuple[float, float]:
        """Wilson's, of the accuracy."""
        return wilson_interval(self.right, self.images)


@dataclass(frozen=True)
class AnswersComparison:
    """Networks in the order they were given, and every pair of them on the same images."""

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
        """Plain values; each network with its accuracy and interval."""
        answers = [asdict(it) | {"accuracy": it.accuracy, "interval95": it.interval95} for it in self.answers]
        pairs = [asdict(pair) | {"p": pair.p, "claimed": pair.claimed} for pair in self.pairs]
        return asdict(self) | {"answers": answers, "pairs": pairs, "sentences": self.sentences}


def compare_answers(sources: Sequence[Run | str | Path], *, split: SplitName = "validation") -> AnswersComparison:
    """Compares what networks said of the same images: files as `read_answers` takes them, and runs (or their folders).

    Of runs it takes the answers for `split` in one view. It speaks of these networks, never of their recipes. Raises
    `UserError` where one of them cannot be read or is there twice, or where they are not of the same images.
    """
    opened = [source if isinstance(source, Run) or is_answers(Path(source)) else Run.open(source) for source in sources]
    runs = [source for source in opened if isinstance(source, Run)]
    check_alike(runs, split)
    given = [answers_of_run(it, split) if isinstance(it, Run) else read_answers(it) for it in opened]
    if len({Path(it.name).resolve() for it in given}) < len(given):
        raise UserError(f"{given[0].name} and others are named more than once; name each once")
    right = right_answers(given)  # N each, in the order of the first
    tallies = [
        Tally(it.name, len(hits), int(hits.sum()), it.test_openings) for it, hits in zip(given, right, strict=True)
    ]
    opened_often = [it.name for it in tallies if split == "test" and (it.test_openings or 0) > 1]
    pairs = adjusted([pair_of(*two, opened_often) for two in combinations(zip(tallies, right, strict=True), 2)])
    return AnswersComparison(
        dataset=runs[0].data["name"] if runs else None,
        split=split if runs else None,
        images=len(right[0]),
        answers=tuple(tallies),
        pairs=tuple(replace(pair, sentence=claims.on_answers(pair)) for pair in pairs),
        warnings=tuple(claims.warnings_on_answers(tallies, pairs, opened_often)),
    )


def check_alike(runs: Sequence[Run], split: str) -> None:
    """Raise `UserError` where runs among them are of different data."""
    if len(runs) > 1:
        check_same_data(runs)
        if split == "test":
            check_same_test_images(runs)


def pair_of(
    one: tuple[Tally, NDArray[np.bool_]], other: tuple[Tally, NDArray[np.bool_]], opened_often: Sequence[str]
) -> Pair:
    """McNemar's test and the bootstrap, unless the test images were opened more than once for one of the two."""
    (first, hits), (second, others) = one, other
    if first.name in opened_often or second.name in opened_often:
        return Pair(first.name, second.name, reason=claims.OPENED_OFTEN)
    only_first, only_second = int((hits & ~others).sum()), int((others & ~hits).sum())
    return Pair(first.name, second.name, images=paired_by_counts(only_first, only_second, len(hits)))


def right_answers(given: Sequence[Answers]) -> list[NDArray[np.bool_]]:
    """bool N for each: whether it was right, in the order of the first. Raises `UserError` unless all are of the same images."""
    classes = next((it.classes for it in given if it.classes), ()) or everything_said(given)
    first, found = given[0], []
    labels, _ = in_classes(first, classes)
    for answers in given:
        places, predicted = in_classes(answers, classes)
        kind, order = in_order_of(first, answers)
        differ = np.flatnonzero(places[order] != labels)
        if len(differ):
            row = int(differ[0])
            which = f"{kind} {shortened(first.images[kind][row])}" if kind else f"answer {row + 1:,}"
            named = [classes[place] for place in (labels[row], places[order][row])]
            raise UserError(
                f"{first} and {answers} do not agree of which class {which} is ({named[0]!r} and {named[1]!r}); give answers "
                f"for the same images{'' if kind else ', in the same order'}"
            )
        found.append((places == predicted)[order])
    return found


def everything_said(given: Sequence[Answers]) -> tuple[str, ...]:
    """All classes that occur, where no file tells which there are."""
    return tuple(np.unique(np.concatenate([part for it in given for part in (it.labels, it.predicted)])).tolist())


def in_order_of(first: Answers, other: Answers) -> tuple[str | None, NDArray[np.int64]]:
    """By what images are matched, None for their order alone, and N: where the images of `first` stand in `other`."""
    kind = next((kind for kind in ARRAY_OF if kind in first.images and kind in other.images), None)
    if kind is None:
        if len(first.labels) != len(other.labels):
            raise UserError(
                f"{first} has {len(first.labels):,} answers and {other} {len(other.labels):,}, and no column or array in both "
                "tells which image one is of; give image or file in both, or answers for the same images"
                + which_split(first, other)
            )
        return None, np.arange(len(first.labels))
    where = {image: place for place, image in enumerate(other.images[kind])}
    missing = [image for image in first.images[kind] if image not in where]
    if missing or len(where) > len(first.labels):
        here = set(first.images[kind])
        name, only = (missing[0], first) if missing else (next(image for image in where if image not in here), other)
        raise UserError(
            f"{first} and {other} are of different images: {kind} {shortened(name)} is in {only} only{which_split(first, other)}"
        )
    return kind, np.array([where[image] for image in first.images[kind]], np.int64)


def which_split(*compared: Answers) -> str:
    """Which images of a run were taken, where the others may have been meant."""
    taken = {it.split for it in compared if it.split}
    return (
        f" (--split {'test' if taken == {'validation'} else 'validation'} takes the run's other images)"
        if taken
        else ""
    )
