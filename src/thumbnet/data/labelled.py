"""Labelled images that no run was cut from, to judge a trained network on: a folder of class folders, a table, or arrays."""
# Shapes: N images, C channels, H and W height and width.

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.arrays import as_places, checked_names, checked_split, holds_arrays, read_parts
from thumbnet.data.columns import is_table
from thumbnet.data.finding import TO_CLASSIFY
from thumbnet.data.folder import find_classes, relative
from thumbnet.data.groups import groups_by
from thumbnet.data.names import exists
from thumbnet.data.pack import SPLIT_OF_NAME
from thumbnet.data.table import files_of, once_each, read_labels
from thumbnet.errors import UserError, unknown_name
from thumbnet.words import counted, printable, shortened

NAMED = 5  # labels in a sentence
FOR_A_SLASH = "_-: "
NO_TITLES: Mapping[str, str] = {}


@dataclass(frozen=True)
class LabelledImages:
    """Images with the class of each, not yet in the size of any network."""

    images: Sequence[Path] | NDArray[np.uint8]  # N files, or pixels N H W C
    labels: NDArray[np.int64]  # N, places in the classes that were asked for
    groups: tuple[str, ...] = ()  # N names, "" of an image of none, or () where none is named
    ignored: tuple[Path, ...] = ()  # files that are no images, or lie outside the class folders
    note: str = ""  # what was made of arrays that say it in other words


def labelled_images(
    path: Path, classes: Sequence[str], group_by: str = "", columns: Mapping[str, str] = NO_TITLES
) -> LabelledImages:
    """The images at `path` with their places in `classes`, of which some may have none.

    `path` is a folder with one folder of images per class, or a table or arrays as a data set has them, of which the test images
    are taken if there are some. `group_by` tells groups where these do not, as `load_dataset` takes it; `columns`, titles by what
    they are for, come before others of a table. Raises `UserError` for a class that is not among `classes`, and where there is
    no image.
    """
    if not exists(str(path)):
        what = f"{path} is a file" if is_file(path) else f"there is no folder {path}"
        raise UserError(f"{what}; give a folder with one folder of images per class, or a .csv or .npz file")
    if holds_arrays(path):
        return labelled_arrays(path, classes)
    if is_table(path):
        return labelled_table(path, classes, group_by, columns)
    folders, passed_over = find_classes(path)
    found = {name: images for name, images in folders.items() if images}
    refuse_splits(path, set(found) - set(classes))
    places = places_of(path, found, classes)
    rows = [(Path(image.path), places[name]) for name, images in found.items() for image in images]
    if not rows:
        raise UserError(f"no image in the class folders of {path}; add some")
    files, labels = zip(*rows, strict=True)
    groups, note = found_by(group_by, [relative(path, str(file)).partition("/")[2] for file in files])
    ignored = tuple(Path(entry.path) for entry in passed_over)
    return LabelledImages(files, np.array(labels, np.int64), groups, ignored, note)


def labelled_table(path: Path, classes: Sequence[str], group_by: str, columns: Mapping[str, str]) -> LabelledImages:
    """The test images of a table; of one that has none the validation images, else all."""
    table = read_labels(path, columns)
    files, told = files_of(table, TO_CLASSIFY)
    rows, _ = once_each(table, files)
    there = {row.split for row in table.rows}
    if table.unlabelled and "test" not in there:
        raise UserError(
            f"{path}: none of its test images has a class, so nothing can be measured on them; give their classes"
        )
    split = best_split(there) if there != {""} else ""
    chosen = [(file, row) for file, row in rows if row.split == split]
    places = places_of(path, {row.label for _, row in chosen}, classes)
    labels = np.array([places[row.label] for _, row in chosen], np.int64)
    groups, lacking = some_of([row.group for _, row in chosen]), ""
    if not groups:
        groups, lacking = found_by(group_by, [row.path for _, row in chosen])
    left_out = f"{counted(table.unlabelled, 'test image')} without a class left out" if table.unlabelled else ""
    taken = f"of {path} the {split} images are taken" if len(there) > 1 else ""
    note = "; ".join(filter(None, (taken, told, left_out, lacking)))
    return LabelledImages([path.parent / file for file, _ in chosen], labels, groups, note=note)


def found_by(group_by: str, paths: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The groups that a pattern finds in paths, () where there is none or it finds nothing, and a note where it misses some."""
    if not group_by:
        return (), ""
    groups = groups_by(group_by, {"test": paths})["test"]
    missing = groups.count("")
    told = counted(missing, "image")
    note = f"the run's group_by {shortened(group_by)!r} finds nothing in the paths of {told}; each counts as alone"
    return some_of(groups), note if missing else ""


def some_of(groups: Sequence[str]) -> tuple[str, ...]:
    """The groups, or () where no image is of one."""
    return tuple(groups) if any(groups) else ()


def best_split(there: Set[str]) -> str:
    """Of the splits of a data set the one to judge on."""
    return next(split for split in TO_CLASSIFY if split in there)


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; one that no file system could hold is none."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def labelled_arrays(path: Path, classes: Sequence[str]) -> LabelledImages:
    """The test images of arrays; of those that have none the validation images, else all."""
    parts, names = read_parts(path)
    there = {split for split, _ in parts}
    split = best_split(there)
    found = checked_split(path, split, parts)
    values, meant = np.unique(found.labels), called(path, split, found.labels, names, classes)
    places = places_of(path, meant, classes)
    labels = np.array([places[name] for name in meant], np.int64)[np.searchsorted(values, found.labels)]
    images = np.ascontiguousarray(found.images.transpose(0, 2, 3, 1))  # N C H W -> N H W C
    groups = some_of(found.groups or ())
    return LabelledImages(images, labels, groups, note=told_of_arrays(path, split, there, values, meant))


def told_of_arrays(path: Path, split: str, there: Set[str], values: NDArray[Any], meant: Sequence[str]) -> str:
    """Which of several splits was taken, and which classes numbers stand for that are not their names."""
    told = [f"of {path} the {split} images are taken"] if len(there) > 1 else []
    if values.dtype.kind != "U" and [str(value) for value in values.tolist()] != list(meant):
        pairs = [f"{value} for {name!r}" for value, name in zip(values.tolist(), meant, strict=True)]
        told.append(
            f"labels stand for classes by number: {', '.join(pairs[:NAMED])}" + (", ..." if pairs[NAMED:] else "")
        )
    return "; ".join(told)


def called(
    path: Path, split: str, labels: NDArray[Any], names: NDArray[Any] | None, classes: Sequence[str]
) -> list[str]:
    """The class that each different label stands for, in their order.

    A number counts the `names` that lie beside the labels. Without them it counts `classes`, unless some of these are numbers
    themselves, as they are where the run was trained on numbered classes: then it is a name.
    """
    values = np.unique(labels)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if names is None and (values.dtype.kind == "U" or called_by_numbers(classes)):
        return [str(value) for value in values.tolist()]
    known = np.array(classes) if names is None else checked_names(path, names)
    kinds = known if values.dtype.kind == "U" else np.arange(len(known))
    return [printable(str(known[place])) for place in as_places(path, split, values, kinds)]


def called_by_numbers(classes: Iterable[str]) -> bool:
    """Whether some classes are called by numbers: then a number is a name; else it counts the classes."""
    return any(map(is_number, classes))


def is_number(name: str) -> bool:
    """Whether this is how a whole number is written: `-1` and `10`, not `01`."""
    try:
        return str(int(name)) == name
    except ValueError:
        return False


def places_of(path: Path, names: Iterable[str], classes: Sequence[str]) -> dict[str, int]:
    """Where each of the names stands in `classes`, as `places_by_name` knows them."""
    places = places_by_name(classes)
    for name in names:
        if normalize("NFC", name) not in places:
            unknown = unknown_name("class", shortened(name), classes)
            raise UserError(
                f"{path} has images of a class that the network was not trained on; leave them out or rename it: {unknown}"
            )
    return {name: places[normalize("NFC", name)] for name in names}


def places_by_name(classes: Sequence[str]) -> dict[str, int]:
    """Where a class stands, by every way to write its name, each in Unicode's form NFC.

    Letters with accents are the same in one code or in two, as macOS writes them; for a slash, which no folder's name can hold,
    one of `FOR_A_SLASH` is taken.
    """
    places = {normalize("NFC", name): place for place, name in enumerate(classes)}
    for name, place in list(places.items()):
        for sign in FOR_A_SLASH:
            places.setdefault(name.replace("/", sign), place)
    return places


def refuse_splits(path: Path, names: Iterable[str]) -> None:
    """Raise `UserError` where a folder is a split and no class: which images are meant is the user's to say."""
    splits = [name for name in sorted(names) if name.casefold() in SPLIT_OF_NAME]
    if splits:
        unseen = sorted(splits, key=lambda name: TO_CLASSIFY.index(SPLIT_OF_NAME[name.casefold()]))
        told = f"{counted(len(splits), 'split')}, {', '.join(splits)}"
        raise UserError(f"{path} holds {told}, and one folder per class is wanted; name one, as in {path / unseen[0]}")
