"""What a network said of labelled images, as a file holds it: one that thumbnet wrote, or any other program."""
# Shapes: N images, K classes.

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.data.arrays import checked_names
from thumbnet.data.labelled import is_number, places_of
from thumbnet.errors import UserError
from thumbnet.files import first_line, read_npz
from thumbnet.judging.evaluation import Scores, score_predictions
from thumbnet.runs.predictions import LARGEST, Predictions
from thumbnet.runs.run import Run
from thumbnet.words import shortened

ENDINGS = (".csv", ".npz")
ARRAY_OF = {"file": "files", "image": "rows"}  # what tells which image a row is of, the surest first: column, and array
SUM_TO_ONE = 0.01  # how far the sum of an image's probabilities may be off; in half precision it is off by a thousandth
SMALLEST = 1e-12  # for a probability of 0, whose logarithm there is none of


@dataclass(frozen=True)
class Answers:
    """One answer for each of N images, and what is known of them besides. Classes are names, or numbers where there are none."""

    name: str  # of the file, or of the run
    labels: NDArray[np.str_]  # N, the class of each image
    predicted: NDArray[np.str_]  # N
    classes: tuple[str, ...] = ()  # K, in the order that numbers count; none where it is not told
    images: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # by names of `ARRAY_OF`, N texts: which image it is
    logits: NDArray[np.float64] | None = None  # N K
    split: str | None = None  # of a run
    test_openings: int | None = None  # of a run; None for a file, of which nobody knows

    def __str__(self) -> str:
        """What to call them: those of a run are of one split."""
        return f"{self.name} ({self.split} images)" if self.split else self.name


def is_answers(path: Path) -> bool:
    """Whether this is a file of answers by its name, not a run folder."""
    return path.suffix.lower() in ENDINGS and not path.is_dir()


def read_answers(path: str | Path) -> Answers:
    """The answers in FILE.csv or FILE.npz; docs/evaluate.md tells the columns and arrays.

    Raises `UserError` where it cannot be read, or does not say what each image is and what it was taken for.
    """
    path = Path(path)
    if not is_answers(path):
        raise UserError(f"{path} is no file of answers; give a name that ends in {' or '.join(ENDINGS)}")
    found = read_csv(path) if path.suffix.lower() == ".csv" else read_arrays(path)
    if not len(found.labels):
        raise UserError(f"{path} has no answers; give one for each image")
    for kind, names in found.images.items():
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{path} has {kind} {shortened(twice)} twice; give one answer for each image")
    return found


def answers_of_run(run: Run, split: str) -> Answers:
    """What a finished run said of its validation images, or of the test images when it was last measured on them in one view."""
    run.require_finished()
    kept = run.predictions(split)
    names = np.array(kept.classes)
    images = {"image": tuple(map(str, kept.rows.tolist()))} | ({"file": kept.files} if kept.files else {})
    return Answers(
        str(run.path),
        names[kept.labels.numpy()],
        names[kept.logits.argmax(1).numpy()],
        classes=kept.classes,
        images=images,
        split=split,
        test_openings=run.test_openings,
    )


# ---------------------------------------------------------------- CSV


def read_csv(path: Path) -> Answers:
    """Columns `class` and `predicted`, and perhaps `file` or `image`, as `evaluate --predictions` writes them."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            there, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    for name in ("class", "predicted"):
        if name not in there:
            raise UserError(
                f"{path} has no column {name}; its first line names the columns class and predicted, perhaps image or file"
            )
    wanted = ["class", "predicted", *(name for name in ARRAY_OF if name in there)]
    for number, row in enumerate(rows, 1):
        empty = next((name for name in wanted if not row[name]), None)
        if empty or None in row:
            wrong = f"nothing under {empty}" if empty else "more values than there are columns"
            raise UserError(f"{path}: row {number:,} of the answers has {wrong}; correct it")
    columns = {name: tuple(row[name] for row in rows) for name in wanted}
    return Answers(
        str(path),
        np.array(columns.pop("class"), dtype=np.str_),
        np.array(columns.pop("predicted"), dtype=np.str_),
        images=columns,
    )


# ---------------------------------------------------------------- arrays


def read_arrays(path: Path) -> Answers:
    """`labels` with `logits`, `probabilities` or `predicted`, and perhaps `classes`, `rows` or `files`."""
    try:
        arrays, _ = read_npz(path, LARGEST)
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    labels = column(path, arrays, "labels")
    classes = tuple(map(str, checked_names(path, arrays["classes"]))) if "classes" in arrays else ()
    logits = logits_in(path, arrays, len(labels), classes)
    if logits is not None:
        predicted: NDArray[Any] = logits.argmax(1)
        if labels.dtype.kind == "U" and not classes:
            raise UserError(
                f"{path} has names as labels and no array classes; give them, one for each column, in its order"
            )
    else:
        predicted = column(path, arrays, "predicted", len(labels))
    images = {
        kind: tuple(map(str, column(path, arrays, name, len(labels)).tolist()))
        for kind, name in ARRAY_OF.items()
        if name in arrays
    }
    return Answers(
        str(path),
        as_names(path, labels, classes),
        as_names(path, predicted, classes),
        classes=classes,
        images=images,
        logits=logits,
    )


def column(path: Path, arrays: Mapping[str, Any], name: str, count: int | None = None) -> NDArray[Any]:
    """One whole number or text for each image, N or N 1 as Keras has them."""
    if name not in arrays:
        there = ", ".join(map(shortened, arrays)) or "nothing"
        raise UserError(
            f"{path} has no array {name}; give labels with logits, probabilities or predicted (there is {there})"
        )
    values: NDArray[Any] = arrays[name]
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuU" or (count is not None and len(values) != count):
        shape = " x ".join(map(str, values.shape))
        raise UserError(
            f"{path}: its {name} are {values.dtype} {shape}; give one whole number or text for each image of labels"
        )
    return values


def logits_in(
    path: Path, arrays: Mapping[str, NDArray[Any]], images: int, classes: Sequence[str]
) -> NDArray[np.float64] | None:
    """Logits N K, or the logarithms of probabilities, which are such; None where there are neither."""
    name = next((name for name in ("logits", "probabilities") if name in arrays), None)
    if name is None:
        return None
    values = arrays[name]
    if values.ndim != 2 or values.dtype.kind != "f" or len(values) != images or values.shape[1] < 2:
        shape = " x ".join(map(str, values.shape))
        raise UserError(f"{path}: its {name} are {values.dtype} {shape}; give a float for each image and class")
    if classes and len(classes) != values.shape[1]:
        raise UserError(
            f"{path} names {len(classes)} classes, and its {name} have {values.shape[1]} columns; make them alike"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{path}: some of its {name} are no finite numbers")
    values = values.astype(np.float64)
    if name == "logits":
        return values
    off = (values < 0).any(1) | (np.abs(values.sum(1) - 1) > SUM_TO_ONE)
    if off.any():
        raise UserError(
            f"{path}: the probabilities of its image {int(off.argmax()):,} are negative or do not add up to 1; "
            "if they are logits, call them so"
        )
    return np.log(np.maximum(values, SMALLEST))


def as_names(path: Path, values: NDArray[Any], classes: Sequence[str]) -> NDArray[np.str_]:
    """Names of classes: numbers count the `classes`, if there are some; else they stay numbers, as texts."""
    if values.dtype.kind == "U" or not classes:
        return values.astype(np.str_)
    return np.array(classes)[within(path, values.astype(np.int64), len(classes))]


def within(path: str | Path, places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The places, if there are so many classes. Raises `UserError` where one is beyond."""
    beyond = places[(places < 0) | (places >= count)]
    if len(beyond):
        raise UserError(f"{path} has the class {beyond[0]}, and {count} classes count from 0 to {count - 1}")
    return places


# ---------------------------------------------------------------- what they are in classes, and their scores


def in_classes(answers: Answers, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and answers, N each, as places in `classes`.

    Where all of a file's are whole numbers they count the classes, unless some of these are called by numbers themselves.
    """
    kinds = np.unique(np.concatenate([answers.labels, answers.predicted]))
    if all(map(is_number, kinds)) and not any(map(is_number, classes)):
        places = within(answers.name, kinds.astype(np.int64), len(classes))
    else:
        where = places_of(Path(answers.name), kinds.tolist(), classes)
        places = np.array([where[name] for name in kinds.tolist()], np.int64)
    labels, predicted = (places[np.searchsorted(kinds, part)] for part in (answers.labels, answers.predicted))
    return labels, predicted


def as_predictions(answers: Answers) -> Predictions:
    """The answers as thumbnet keeps its own. Raises `UserError` where they have one answer for an image and no probabilities."""
    if answers.logits is None:
        raise UserError(
            f"{answers.name} has one answer for each image, and evaluate needs a probability for every class: an .npz file with "
            "labels and probabilities; thumbnet compare takes answers alone"
        )
    classes = answers.classes or tuple(map(str, range(answers.logits.shape[1])))
    labels, _ = in_classes(answers, classes)
    rows = torch.arange(len(labels))
    if "image" in answers.images and all(map(is_number, answers.images["image"])):
        rows = torch.tensor([int(row) for row in answers.images["image"]])
    return Predictions(
        split="answers", views=1, classes=classes, fingerprint="", rows=rows, labels=torch.from_numpy(labels),
        logits=torch.from_numpy(answers.logits), files=answers.images.get("file", ()),
    )  # fmt: skip


def evaluate_answers(path: str | Path) -> Scores:
    """The scores of another program's answers: FILE.npz with `labels` N and `probabilities` or `logits` N K.

    What the network was trained on, and how often these images were looked at before, nobody can tell from the file. Raises
    `UserError` where it cannot be read or has no probabilities.
    """
    return score_predictions(as_predictions(read_answers(path)))
