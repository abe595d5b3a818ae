"""What a data set may be called: a published name, and what is known of it, or the path of a folder or file."""

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thumbnet.data.arrays import holds_arrays, is_npz
from thumbnet.data.columns import is_table
from thumbnet.data.pack import LARGEST_SIDE
from thumbnet.errors import UserError, unknown_name

# How pictures are read where nothing else is said.
DECODING: dict[str, Any] = {"image_size": 32, "skip_broken": False, "group_by": "", "columns": ""}


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a published data set before it is opened."""

    name: str
    title: str
    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    train: int  # images
    test: int
    licence: str
    homepage: str
    mirrored: bool = True  # whether a mirror image shows the same class


EMBEDDED = "fashion-mini"  # the one set that needs no files
FASHION_LICENCE = "MIT, Zalando SE"
FASHION_HOME = "https://github.com/zalandoresearch/fashion-mnist"
MNIST_LICENCE = "CC BY-SA 3.0, Yann LeCun and Corinna Cortes"
MNIST_HOME = "http://yann.lecun.com/exdb/mnist/"
CIFAR_LICENCE = "none stated; cite Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
SPECS = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            EMBEDDED,
            "7,000 images of Fashion-MNIST, embedded",
            (1, 28, 28),
            10,
            6_000,
            1_000,
            FASHION_LICENCE,
            FASHION_HOME,
        ),
        DatasetSpec("fashion-mnist", "Fashion-MNIST", (1, 28, 28), 10, 60_000, 10_000, FASHION_LICENCE, FASHION_HOME),
        DatasetSpec("mnist", "MNIST", (1, 28, 28), 10, 60_000, 10_000, MNIST_LICENCE, MNIST_HOME, mirrored=False),
        DatasetSpec("cifar10", "CIFAR-10", (3, 32, 32), 10, 50_000, 10_000, CIFAR_LICENCE, CIFAR_HOME),
        DatasetSpec("cifar100", "CIFAR-100, fine labels", (3, 32, 32), 100, 50_000, 10_000, CIFAR_LICENCE, CIFAR_HOME),
    )
}


def list_datasets() -> list[str]:
    """The names that `load_dataset` knows; it takes paths besides."""
    return list(SPECS)


def is_path(name: str) -> bool:
    """True where `name` means a path rather than a published set: `./x`, `a/b`, `x.npz`, `x.csv`, or any existing folder."""
    return name not in SPECS and (os.sep in name or name.startswith(".") or is_file_name(name) or exists(name))


def is_file_name(path: str | Path) -> bool:
    """Whether a data set of this name is one file, whose ending says of which kind."""
    return is_npz(path) or is_table(path)


def folder_of(path: str | Path) -> Path:
    """The folder that a set's files are below: the one at `path`, or the one that the table there lies in."""
    return Path(path).parent if is_table(path) else Path(path)


def exists(name: str) -> bool:
    """Whether there is a folder of this name, or a file of a kind that is read; one that no file system could hold is none."""
    try:
        return Path(name).is_dir() or (is_file_name(name) and Path(name).is_file())
    except OSError:  # too long
        return False


def is_other_file(name: str) -> bool:
    """Whether there is a file of this name, of a kind that is not read."""
    try:
        return Path(name).is_file() and not is_file_name(name)
    except OSError:  # too long
        return False


def comes_as_files(name: str) -> bool:
    """Whether this is a published set whose files lie in a `data_dir`."""
    return name in SPECS and name != EMBEDDED


def comes_as_pictures(name: str) -> bool:
    """Whether the files of this set are pictures, which are decoded and resized, rather than arrays."""
    return name not in SPECS and not holds_arrays(Path(name))


def decoding_for(dataset: str, decoding: Mapping[str, Any]) -> dict[str, Any]:
    """What of this is for one of several sets: nothing for arrays, and columns for tables alone."""
    if not comes_as_pictures(dataset):
        return {}
    return {key: value for key, value in decoding.items() if key != "columns" or is_table(dataset)}


def decoding_of(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """How the named sets that come as pictures are to be decoded, without what is so anyway.

    Raises `UserError` for values that cannot be, and where none of the sets comes so.
    """
    chosen = {key: given.get(key, own) for key, own in DECODING.items()}
    check_decoding(**chosen)
    found = {key: value for key, value in chosen.items() if value != DECODING[key]}
    if found and not any(map(comes_as_pictures, names)):
        raise UserError(f"{next(iter(found))} is for images in files, and none are trained on here; leave it out")
    return found


def check_decoding(*, image_size: Any, skip_broken: Any, group_by: Any, columns: Any) -> None:
    """Raise `UserError` for values of `DECODING` that cannot be."""
    if type(image_size) is not int or not 1 <= image_size <= LARGEST_SIDE:
        raise UserError(f"image_size is {image_size!r}; give a whole number of pixels from 1 to {LARGEST_SIDE}")
    if not isinstance(skip_broken, bool):
        raise UserError(f"skip_broken is {skip_broken!r}; give true or false")
    for key, value, wanted in (
        ("group_by", group_by, "a regular expression"),
        ("columns", columns, "such as label=species,group=bird_id"),
    ):
        if not isinstance(value, str):
            raise UserError(f"{key} is {value!r}; give a text, {wanted}")


def short_name(name: str | Path) -> str:
    """What a data set is called in names of files and folders: its own name, or the last part of its path."""
    path = Path(name).resolve()
    if is_table(path):  # often called labels or train, so the folder is told, too
        return f"{path.parent.name}-{path.stem}".lstrip("-")
    return path.stem if is_npz(path) else path.name


def called_in_files(dataset: str) -> str:
    """What files that tell of a data set are called after: its folder or file, a table with its folder before."""
    return short_name(dataset) if is_table(dataset) else Path(dataset).resolve().name


def location_of(path: str | Path) -> Path:
    """Where a set lies, links followed; of a table, links of the folder, since its pictures are sought beside it."""
    path = Path(path)
    return path.parent.resolve() / path.name if is_table(path) else path.resolve()


def alike_but_for_case(classes: Iterable[str]) -> list[str]:
    """A sentence where classes are called alike but for capital letters: they may be meant to be one."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return [
                f"the classes {other!r} and {name!r} differ in capital letters only; if one is meant, write it in one way"
            ]
    return []


def folders_here() -> list[str]:
    """The folders that a name without a slash could mean."""
    try:
        return [entry.name for entry in os.scandir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:  # gone, or not to be read
        return []


def check_dataset_name(name: str) -> None:
    """Raise `UserError` where `name` is neither a known set nor a path that holds one."""
    if name in SPECS:
        return
    if not name:
        raise UserError("the data set has no name; give one of `thumbnet list datasets`, or a path")
    if not is_path(name):
        near = difflib.get_close_matches(name, folders_here(), n=1, cutoff=0.6)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"no folder {name!r} here{meant}, and {unknown_name('data set', name, SPECS)}")
    if not exists(name):
        if is_other_file(name):
            raise UserError(
                f"{name} is a file that is not read; give a folder with one folder of images per class, a table saved as .csv, "
                "or an .npz file of arrays"
            )
        kind = "file" if is_file_name(name) else "folder"
        raise UserError(
            f"there is no {kind} {name}; give a folder with one folder of images per class, a .csv file that names images and "
            "their classes, or an .npz file of arrays"
        )
