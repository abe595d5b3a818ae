"""A classifier judged on labelled images that came later: those of a folder or file, none of them trained on, it is hoped."""
# Shapes: N images, C channels, H and W height and width.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.data.batches import digests_of, whole
from thumbnet.data.datasets import Dataset
from thumbnet.data.groups import numbered
from thumbnet.data.labelled import NO_TITLES, LabelledImages, labelled_images
from thumbnet.errors import UserError
from thumbnet.judging.evaluation import Scores, score_predictions
from thumbnet.runs.predictions import Predictions
from thumbnet.runs.run import Run
from thumbnet.shipping.classifier import Classifier, read_files


@dataclass(frozen=True)
class Judged:
    """What was measured on new images, and what of them was left out."""

    scores: Scores
    predictions: Predictions
    pixels: NDArray[np.uint8]  # N C H W, as the network saw them
    ignored: tuple[Path, ...]  # files that are no images by their names, or lie outside the class folders
    broken: tuple[str, ...]  # complaints about images that could not be read
    note: str  # what was made of arrays that say it in other words
    groups: tuple[str, ...]  # N names of what belongs together, "" of an image of none, or () where none is named


def judge_new_images(
    classifier: Classifier,
    path: Path,
    *,
    views: int | None = None,
    skip_broken: bool = False,
    group_by: str = "",
    columns: Mapping[str, str] = NO_TITLES,
) -> Judged:
    """Measure a classifier on a folder of class folders, a table, or arrays, as `labelled_images` reads them.

    Raises `UserError` for a class that the classifier does not know, and for an unreadable image unless `skip_broken`.
    """
    found = labelled_images(path, classifier.classes, group_by, columns)
    pixels, readable, broken = prepared(classifier, found, skip_broken=skip_broken)
    names = [str(found.images[place]) for place in readable] if isinstance(found.images, Sequence) else []
    predictions = classifier.answers(pixels, found.labels[readable], files=names, views=views)
    groups = tuple(found.groups[place] for place in readable) if found.groups else ()
    if groups:
        numbers, _ = numbered({"test": groups})
        predictions = replace(predictions, groups=torch.tensor(numbers["test"]))
    scores = score_predictions(predictions, temperature=classifier.temperature)
    return Judged(scores, predictions, pixels, found.ignored, tuple(broken), found.note, groups)


def prepared(
    classifier: Classifier, found: LabelledImages, *, skip_broken: bool
) -> tuple[NDArray[np.uint8], list[int], list[str]]:
    """The images uint8 N C H W as the classifier takes them, the places of those that could be read, and complaints."""
    if isinstance(found.images, np.ndarray):
        return classifier.prepare_images(found.images), list(range(len(found.images))), []
    return read_files(classifier, found.images, skip_broken=skip_broken)


def trained_on(
    run: Run, pixels: NDArray[np.uint8], groups: Sequence[str] = (), *, data_dir: Path | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """bool N: whether an image of `pixels` N C H W equals one that the run was trained on, bit by bit, or a run it began with.

    And the same of its group, by the names of `groups` N, "" of none; None where the images trained on have no groups either.
    Nothing is downloaded for it. Raises `UserError` where the training images of one of them are gone or have changed.
    """
    seen: set[bytes] = set()
    names: set[str] = set()
    for data in training_sets(run, pixels.shape[1:], data_dir):
        seen |= set(digests_of(data.train))
        if "train" in data.groups:
            names |= {data.group_names[number] for number in data.groups["train"][data.train.rows].unique().tolist()}
    names.discard("")
    images = whole(torch.from_numpy(pixels), torch.zeros(len(pixels), dtype=torch.int64))
    equal = np.array([digest in seen for digest in digests_of(images)])
    met = np.array([name in names for name in groups]) if groups and names else None
    return equal, met


def training_sets(run: Run, size: tuple[int, ...], data_dir: Path | None) -> Iterator[Dataset]:
    """The data of a run, cut as for it, and those of the runs it began with, none downloaded."""
    while True:
        if (run.data["channels"], *run.data["image_size"]) != size:
            raise UserError(f"{run.path}, whose weights it began with, took images of another size")
        yield run.check_data(run.load_data(data_dir=data_dir, offline=True))
        if not run.recipe.start_from:
            return
        run, data_dir = Run.open(run.recipe.start_from), None
