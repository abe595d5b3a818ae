"""What a network said of labelled images, as a file holds it: one that thumbnet wrote, or any other program."""
# Shapes: N images, K classes.

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.data.arrays import checked_names
from thumbnet.data.labelled import called_by_numbers, is_number, places_by_name
from thumbnet.errors import UserError, unknown_name
from thumbnet.judging.calibration import Calibration
from thumbnet.judging.evaluation import Scores, score_predictions
from thumbnet.reading import read_npz, read_table
from thumbnet.runs.paths import ANSWERS, is_answers
from thumbnet.runs.predictions import LARGEST, Predictions
from thumbnet.runs.run import Run
from thumbnet.words import printable, shortened

ARRAY_OF = {"file": "files", "image": "rows"}  # what tells which image a row is of, the surest first: column, and array
SUM_TO_ONE = 0.01  # how far the sum of an image's probabilities may be off; in half precision it is off by a thousandth
SMALLEST = 1e-12  # for a probability of 0, whose logarithm there is none of
TOP = 5  # guesses of `Scores.top5`
UNKNOWN = math.nan  # a score that the file does not tell


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
    groups: NDArray[np.int64] | None = None  # N, numbers from 0 on, where the images are of groups
    split: str | None = None  # where it is told
    views: int | None = None  # where it is told
    test_openings: int | None = None  # of a run; None for a file, of which nobody knows

    def __str__(self) -> str:
        """What to call them: those of a run are of one split."""
        return f"{self.name} ({self.split} images)" if self.split else self.name


def read_answers(path: str | Path) -> Answers:
    """The answers in FILE.csv or FILE.npz; docs/evaluate.md and docs/compare.md tell the arrays and columns.

    Raises `UserError` where it cannot be read, or does not say what each image is and what it was taken for.
    """
    if not isinstance(path, str | Path) or not is_answers(Path(path)):
        raise UserError(f"{path} is no file of answers; give a name that ends in {' or '.join(ANSWERS)}")
    path = Path(path)
    found = read_csv(path) if path.suffix.lower() == ".csv" else read_arrays(path)
    if not len(found.labels):
        raise UserError(f"{path} has no answers; give one for each image")
    for kind, names in found.images.items():
        [(name, times)] = Counter(names).most_common(1)
        if times > 1:
            raise UserError(f"{path} has {kind} {shortened(name)} twice; give one answer for each image")
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
        groups=None if kept.groups is None else kept.groups.numpy(),
        split=split,
        views=1,
        test_openings=run.test_openings,
    )


# ---------------------------------------------------------------- CSV


def read_csv(path: Path) -> Answers:
    """Columns `class` and `predicted`, perhaps `file` or `image` and `group`, as `evaluate --predictions` writes them."""
    there, rows = read_table(path)
    for name in ("class", "predicted"):
        if there.count(name) != 1:
            found = ", ".join(repr(shortened(title)) for title in there) or "nothing"
            raise UserError(
                f"{path} has {'no' if name not in there else 'more than one'} column {name}; its first line must name "
                f"the columns class and predicted, perhaps image or file, with commas between them (it has {found})"
            )
    wanted = ["class", "predicted", *(name for name in (*ARRAY_OF, "group") if name in there)]
    for number, row in enumerate(rows, 1):
        empty = next((name for name in wanted if not row[name]), None)
        if empty or None in row:
            wrong = f"nothing under {empty}" if empty else "more values than there are columns"
            raise UserError(f"{path}: row {number:,} of the answers has {wrong}; correct it")
    columns = {name: tuple(row[name] for row in rows) for name in wanted}
    labels, predicted = (as_text(columns.pop(name)) for name in ("class", "predicted"))
    groups = as_groups(np.array(columns.pop("group"))) if "group" in columns else None
    return Answers(str(path), labels, predicted, images=columns, groups=groups)


def as_groups(names: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers from 0 on for the names or numbers of groups."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


# ---------------------------------------------------------------- arrays


def read_arrays(path: Path) -> Answers:
    """`labels` with `logits`, `probabilities` or `predicted`, and perhaps `classes`, `rows` or `files`."""
    try:
        arrays, _ = read_npz(path, LARGEST)
    except ValueError as error:
        raise UserError(f"cannot read {path} as a file of numpy.savez: {error}") from error
    labels = column(path, arrays, "labels")
    classes, counted = classes_in(path, arrays)
    logits = logits_in(path, arrays, len(labels), classes)
    if logits is None:
        predicted = as_names(path, column(path, arrays, "predicted", len(labels)), classes, counted)
    else:
        if labels.dtype.kind == "U" and not classes:
            raise UserError(
                f"{path} has names as labels and no array classes; give them, one for each column, in its order"
            )
        predicted = as_names(path, logits.argmax(1), classes, True)
        check_likeliest(path, arrays, predicted, classes, counted)
    images = {
        kind: tuple(map(str, column(path, arrays, name, len(labels)).tolist()))
        for kind, name in ARRAY_OF.items()
        if name in arrays
    }
    ours = {"split", "views", "fingerprint"} <= set(arrays)  # what evaluate --predictions wrote
    return Answers(
        str(path),
        as_names(path, labels, classes, counted),
        predicted,
        classes=classes,
        images=images,
        logits=logits,
        groups=as_groups(column(path, arrays, "groups", len(labels))) if "groups" in arrays else None,
        split=str(arrays["split"]) if ours else None,
        views=int(arrays["views"]) if ours else None,
    )


def column(path: Path, arrays: Mapping[str, Any], name: str, count: int | None = None) -> NDArray[Any]:
    """One whole number, int64, or one text for each image: N, or N 1 as Keras has them."""
    if name not in arrays:
        there = ", ".join(map(shortened, arrays)) or "nothing"
        raise UserError(
            f"{path} has no array {name}; give labels with logits, probabilities or predicted (there is {there})"
        )
    values: NDArray[Any] = arrays[name]
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    whole = whole_numbers(values)
    if values.ndim != 1 or whole is None or (count is not None and len(values) != count):
        wanted = "one whole number or text for each image" + ("" if count is None else f", {count:,} of them")
        raise UserError(f"{path}: its {name} are {values.dtype} of shape {values.shape}; give {wanted}")
    return whole


def whole_numbers(values: NDArray[Any]) -> NDArray[Any] | None:
    """Texts as they are, numbers as int64 where all are whole, as booleans and the floats of some programs are; else None."""
    if values.dtype.kind == "U":
        return values
    if values.dtype.kind not in "biuf":
        return None
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    return whole if np.array_equal(whole, values) and (whole >= 0).all() == (values >= 0).all() else None


def classes_in(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[tuple[str, ...], bool]:
    """Names of the classes, if there are some, and whether numbers count them.

    Where they are numbers themselves, such as `classes_` of scikit-learn's classifiers, numbers are names.
    """
    if "classes" not in arrays:
        return (), False
    values = arrays["classes"]
    numbers = values.dtype.kind in "biu"
    names = checked_names(path, values.astype(np.int64).astype(np.str_) if numbers else values)
    if "" in names:
        raise UserError(f"{path}: one of its classes has no name; give each a text")
    return tuple(printable(str(name)) for name in names), not numbers


def logits_in(
    path: Path, arrays: Mapping[str, NDArray[Any]], images: int, classes: Sequence[str]
) -> NDArray[np.float64] | None:
    """Logits N K, or the logarithms of probabilities, which are such; None where there are neither."""
    names = [name for name in ("logits", "probabilities") if name in arrays]
    if not names:
        return None
    if len(names) > 1:
        raise UserError(f"{path} has both logits and probabilities; keep one of them")
    [name] = names
    values = arrays[name]
    if values.ndim != 2 or values.dtype.kind not in "biuf" or len(values) != images or values.shape[1] < 2:
        raise UserError(
            f"{path}: its {name} are {values.dtype} of shape {values.shape}; give a number for each of {images:,} images and of "
            "all classes (of two classes, two columns)"
        )
    if classes and len(classes) != values.shape[1]:
        raise UserError(
            f"{path} names {len(classes)} classes, and its {name} have {values.shape[1]} columns; make them alike"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: some of its {name} are no finite numbers")
    if name == "logits":
        return values
    off = (values < 0).any(1) | (np.abs(values.sum(1) - 1) > SUM_TO_ONE)
    if off.any():
        raise UserError(
            f"{path}: the probabilities of its image {int(off.argmax()):,} are negative or do not add up to 1; "
            "if they are logits, call them so"
        )
    return np.log(np.maximum(values, SMALLEST))


def check_likeliest(
    path: Path, arrays: Mapping[str, Any], likeliest: NDArray[np.str_], classes: Sequence[str], counted: bool
) -> None:
    """Raise `UserError` where `predicted` beside probabilities says something else, as support vector machines may."""
    if "predicted" not in arrays:
        return
    said = as_names(path, column(path, arrays, "predicted", len(likeliest)), classes, counted)
    if differ := int((said != likeliest).sum()):
        raise UserError(
            f"{path}: for {differ:,} images its predicted is not the class of the largest probability; leave one of the two out"
        )


def as_names(path: Path, values: NDArray[Any], classes: Sequence[str], counted: bool) -> NDArray[np.str_]:
    """Names of classes: numbers count the `classes` where they are `counted`; else they stay numbers, as texts."""
    if values.dtype.kind == "U" or not classes or not counted:
        return as_text(values.tolist())
    beyond = np.flatnonzero((values < 0) | (values >= len(classes)))
    if len(beyond):
        raise beyond_classes(str(path), int(beyond[0]), values[beyond[0]], len(classes))
    return np.array(classes)[values]


def as_text(values: Sequence[Any]) -> NDArray[np.str_]:
    """Names as they are shown, N."""
    texts = [str(value) for value in values]
    shown = {text: printable(text) for text in set(texts)}
    return np.array([shown[text] for text in texts], dtype=np.str_)


def beyond_classes(name: str, row: int, value: Any, count: int) -> UserError:
    """The error for a number that counts no class."""
    return UserError(f"{name}, answer {row + 1:,}: class {value}, and {count} classes count from 0 to {count - 1}")


# ---------------------------------------------------------------- what they are in classes, and their scores


def in_classes(answers: Answers, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and answers, N each, as places in `classes`.

    Where all of a file's are whole numbers they count the classes, unless some of these are called by numbers themselves.
    """
    said = np.concatenate([answers.labels, answers.predicted])
    kinds = np.unique(said)
    counting = all(map(is_number, kinds.tolist())) and not called_by_numbers(classes)
    where = {str(place): place for place in range(len(classes))} if counting else places_by_name(classes)
    places = np.array([where.get(normalize("NFC", kind), -1) for kind in kinds.tolist()], np.int64)
    if (places < 0).any():
        raise unknown_class(answers, kinds[places < 0].tolist(), classes, counting=counting)
    found = places[np.searchsorted(kinds, said)]
    return found[: len(answers.labels)], found[len(answers.labels) :]


def unknown_class(answers: Answers, unknown: Sequence[str], classes: Sequence[str], *, counting: bool) -> UserError:
    """The error for what is none of the classes: the first of it, or the odd one out among numbers."""
    said = np.concatenate([answers.labels, answers.predicted])
    numbers, odd = list(filter(is_number, unknown)), [kind for kind in unknown if not is_number(kind)]
    mostly_numbers = bool(odd) and 2 * np.isin(said, numbers).sum() > len(said)
    kind = odd[0] if mostly_numbers else unknown[0]
    row = int(np.flatnonzero(said == kind)[0]) % len(answers.labels)
    if counting:
        return beyond_classes(answers.name, row, kind, len(classes))
    told = f"{shortened(kind)!r} is no whole number, and most classes are" if mostly_numbers else ""
    return UserError(f"{answers.name}, answer {row + 1:,}: {told or unknown_name('class', shortened(kind), classes)}")


def as_predictions(answers: Answers) -> Predictions:
    """The answers as thumbnet keeps its own, with logits that are 1 for the answer where there are no probabilities."""
    classes = answers.classes
    if not classes and answers.logits is not None:
        classes = tuple(map(str, range(answers.logits.shape[1])))
    classes = classes or everything_said([answers])
    labels, predicted = in_classes(answers, classes)
    logits = np.eye(len(classes))[predicted] if answers.logits is None else answers.logits
    numbered = answers.images.get("image", ())
    known = all(is_number(row) and len(row) < 19 for row in numbered) and numbered
    return Predictions(
        split=answers.split or "answers",
        views=answers.views or 1,
        classes=classes,
        fingerprint="",
        rows=torch.tensor([int(row) for row in numbered]) if known else torch.arange(len(labels)),
        labels=torch.from_numpy(labels),
        logits=torch.from_numpy(logits),
        files=answers.images.get("file", ()),
        groups=None if answers.groups is None else torch.from_numpy(answers.groups),
    )


def everything_said(given: Sequence[Answers]) -> tuple[str, ...]:
    """All classes that occur, where no file tells which there are."""
    return tuple(np.unique(np.concatenate([part for it in given for part in (it.labels, it.predicted)])).tolist())


def score_answers(answers: Answers) -> Scores:
    """The scores of answers; NaN for those that need probabilities where there are none, and for top-5 where it hangs on ties."""
    scores = score_predictions(as_predictions(answers))
    if answers.logits is None:
        errors = Calibration(*[UNKNOWN] * 7)
        scores = replace(scores, loss=UNKNOWN, brier=UNKNOWN, calibration=errors)
    else:  # no temperature was fitted
        after = {name: UNKNOWN for name in ("temperature", "error_after", "error_equal_mass_after", "loss_after")}
        scores = replace(scores, calibration=replace(scores.calibration, **after))
    if answers.logits is None or ties_at(TOP, answers.logits):
        scores = replace(scores, top5=UNKNOWN, top5_interval95=(UNKNOWN, UNKNOWN))
    return scores


def ties_at(place: int, logits: NDArray[np.float64]) -> bool:
    """Whether for some image the likeliest so many classes of K cannot be told, as of a tree that gives most classes nothing."""
    if place >= logits.shape[1]:
        return False
    ordered = -np.partition(-logits, (place - 1, place), axis=1)
    return bool((ordered[:, place - 1] == ordered[:, place]).any())


def evaluate_answers(path: str | Path) -> Scores:
    """The scores of another program's answers: FILE.npz with `labels` N and `probabilities` or `logits` N K, or answers alone.

    Scores that the file does not tell are NaN (those of probabilities, where there are none), as is what a temperature would
    make of them; `split` and `views` are those that a file of thumbnet's own tells, else "answers" and 1. What the network was
    trained on, and how often these images were looked at before, nobody can tell. Raises `UserError` where it cannot be read.
    """
    return score_answers(read_answers(path))
