"""Data sets that come as arrays: a NumPy .npz file, as of MedMNIST or Keras, a folder of IDX files, as MNIST's relatives have, or
a table of pixels.

Letters in shapes: N images, C channels, H height, W width.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.columns import group_named, is_table
from thumbnet.data.groups import numbered, shared_groups
from thumbnet.data.idx import read_idx
from thumbnet.data.pack import IN_WORDS, LARGEST_ARRAYS, LARGEST_SIDE, MOST_CLASSES, SPLIT_OF_NAME, Pack
from thumbnet.data.pixel_table import is_pixel_table, read_pixel_table
from thumbnet.errors import UserError, first_line
from thumbnet.reading import read_npz
from thumbnet.words import counted, shortened

NPZ_EXPECTED = (
    "expected arrays train_images and train_labels, perhaps val_images, val_labels, test_images, test_labels, classes"
)
IDX_EXPECTED = (
    "expected files train-images-idx3-ubyte and train-labels-idx1-ubyte, perhaps t10k-images-..., t10k-labels-..."
)
TABLE_EXPECTED = "expected a line per image, with a column label, and train in the column split where there is one"
KIND_OF_WORD = {
    "images": "images",
    "imgs": "images",
    "x": "images",
    "labels": "labels",
    "groups": "groups",
    "targets": "labels",
    "y": "labels",
}
CLASSES = ("classes", "class_names")
# train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte
IDX_NAME = re.compile(
    r"(.*[-_.])?(train|t10k|test|val|validation)[-_.](images|labels)[-_.]idx[13]([-_.]ubyte)?(\.gz)?", re.I
)
SPLIT_OF_IDX = SPLIT_OF_NAME | {"t10k": "test"}

Parts = dict[tuple[str, str], NDArray[Any]]  # by split and "images", "labels" or "groups"


@dataclass(frozen=True)
class Found:
    """One split as it was found: images uint8 N C H W, labels N of whole numbers or names, perhaps groups N."""

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    groups: list[str] | None = None


def is_npz(path: str | Path) -> bool:
    """Whether the name is that of an .npz file."""
    return Path(path).suffix.casefold() == ".npz"


def holds_arrays(path: Path) -> bool:
    """Whether `path` is an .npz file, a table of pixels, or a folder with IDX files of training images and labels directly in it.

    Where only one of both is there, folders beside it are taken for classes. Raises `OSError` for a path too long for any.
    """
    if is_npz(path) or is_table(path):
        return path.is_file() and (is_npz(path) or is_pixel_table(path))
    if not path.is_dir() or not os.access(path, os.R_OK):
        return False
    kinds = {kind for split, kind in idx_files(path) if split == "train"}
    return len(kinds) == 2 or (bool(kinds) and not any(os.path.isdir(inside) for inside in path.iterdir()))


def array_files(path: Path) -> list[Path]:
    """The files that `read_arrays` reads."""
    return [path] if path.is_file() else [file for files in idx_files(path).values() for file in files]


def read_arrays(path: Path) -> Pack:
    """The pack of an .npz file, a table of pixels or a folder of IDX files: images uint8 N C H W, labels int64 N.

    Labels are whole numbers or, but for IDX files, names. Classes are named by the array `classes`, else by the labels of
    the training images, sorted. Raises `UserError` for what does not fit together.
    """
    parts, names = read_parts(path)
    splits = {split: checked_split(path, split, parts) for split in dict.fromkeys(split for split, _ in parts)}
    if "train" not in splits:
        raise UserError(f"{path} has no training images; {expected(path)}")
    for split, found in splits.items():
        if found.images.shape[1:] != splits["train"].images.shape[1:]:
            told = [" x ".join(map(str, part.images.shape[1:])) for part in (found, splits["train"])]
            raise UserError(f"{path}: the {split} images are {told[0]}, the training images {told[1]}; make them alike")
    values, classes = classes_of(path, splits["train"].labels, names)
    arrays: dict[str, NDArray[Any]] = {}
    for split, found in splits.items():
        arrays[f"{split}_images"] = np.ascontiguousarray(found.images)
        arrays[f"{split}_labels"] = as_places(path, split, found.labels, values)
    grouped = {split: found.groups for split, found in splits.items() if found.groups is not None}
    groups, group_names = numbered(grouped)
    arrays |= {f"{split}_groups": np.array(numbers, np.int64) for split, numbers in groups.items()}
    missing = np.flatnonzero(np.bincount(arrays["train_labels"], minlength=len(classes)) == 0)
    if len(missing):
        class_ = classes[missing[0]]
        raise UserError(f"{path} has no training image of class {shown(class_)}; add some, or store a set without it")
    described: dict[str, Any] = {"classes": classes} | ({"group_names": group_names} if groups else {})
    return Pack(arrays, described | ({"shared_groups": shared} if (shared := shared_groups(grouped)) else {}))


def expected(path: Path) -> str:
    """What such a set has to hold."""
    return NPZ_EXPECTED if is_npz(path) else TABLE_EXPECTED if is_table(path) else IDX_EXPECTED


def read_parts(path: Path) -> tuple[Parts, NDArray[Any] | None]:
    """The arrays of a set by what they are, and the names of the classes where there are some."""
    if is_npz(path):
        return read_npz_parts(path)
    return (read_pixel_table(path) if is_table(path) else read_idx_parts(path)), None


def read_npz_parts(path: Path) -> tuple[Parts, NDArray[Any] | None]:
    """The arrays of an .npz file by what their names mean, and the names of the classes where there are some."""
    try:
        stored, others = read_npz(
            path, LARGEST_ARRAYS, lambda name: part_named(name) is not None or name.casefold() in CLASSES
        )
    except ValueError as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error
    parts: Parts = {}
    names: NDArray[Any] | None = None
    for name, array in stored.items():
        part = part_named(name)
        if part in parts or (part is None and names is not None):
            told = f"{IN_WORDS[part[0]]} {part[1]}" if part else "names of classes"
            raise UserError(f"{path} has {told} twice, {name!r} being one of them; leave one out")
        if part is None:
            names = array
        else:
            parts[part] = array
    if not parts:
        raise UserError(f"{path} holds {', '.join(map(shown, others[:6])) or 'nothing'}; {NPZ_EXPECTED}")
    return parts, names


def part_named(name: str) -> tuple[str, str] | None:
    """Split and kind of an array by its name: `train_images`, `x_train`, or `images` alone for training images; else None."""
    words = name.casefold().split("_")
    kinds = [KIND_OF_WORD[word] for word in words if word in KIND_OF_WORD]
    splits = [SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME]
    if len(kinds) != 1 or len(splits) > 1 or len(words) != len(kinds) + len(splits):
        return None
    return (splits or ["train"])[0], kinds[0]


def idx_files(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The IDX files directly in a folder, by split and kind; a gzipped one that lies there unpacked too is left out."""
    found: dict[tuple[str, str], list[Path]] = {}
    names = set(os.listdir(folder))
    for name in sorted(names):
        match = IDX_NAME.fullmatch(name)
        if match and name.removesuffix(".gz") not in names - {name} and os.path.isfile(folder / name):
            found.setdefault((SPLIT_OF_IDX[match[2].casefold()], match[3].casefold()), []).append(folder / name)
    return found


def read_idx_parts(folder: Path) -> Parts:
    """The arrays of a folder of IDX files."""
    parts: Parts = {}
    for (split, kind), paths in idx_files(folder).items():
        if len(paths) > 1:
            raise UserError(
                f"{folder} has several files of {IN_WORDS[split]} {kind}: {paths[0].name}, {paths[1].name}; put each set "
                "into a folder of its own"
            )
        array = read_idx(paths[0])
        # EMNIST is published with rows and columns exchanged (Cohen et al. 2017, arXiv 1702.05373).
        is_turned = kind == "images" and array.ndim == 3 and paths[0].name.casefold().startswith("emnist")
        parts[split, kind] = array.transpose(0, 2, 1) if is_turned else array
    return parts


def checked_split(path: Path, split: str, parts: Parts) -> Found:
    """A split's images and labels, which fit together."""
    told = IN_WORDS[split]
    for kind in ("images", "labels"):
        if (split, kind) not in parts:
            raise UserError(f"{path} has no {told} {kind}; {expected(path)}")
    images = channels_first(path, told, parts[split, "images"])
    labels = parts[split, "labels"]
    shape = labels.shape
    if labels.ndim == 2 and shape[1] == 1:  # MedMNIST's
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"{path}: {told} labels have shape {shape}; give one label per image, N whole numbers or names")
    if labels.dtype.kind not in "iubU":
        raise UserError(f"{path}: {told} labels are {labels.dtype}; give whole numbers or names")
    if len(labels) != len(images):
        raise UserError(
            f"{path} has {len(images):,} {told} images and {len(labels):,} {told} labels; give one for each"
        )
    if not is_text(labels):
        raise UserError(f"{path}: {told} labels hold what is no letter; store them again with numpy")
    groups = parts.get((split, "groups"))
    if groups is not None and (groups.shape != labels.shape or groups.dtype.kind not in "iuU" or not is_text(groups)):
        raise UserError(
            f"{path}: {told} groups are {groups.dtype} of shape {groups.shape}; give a number or name for each image"
        )
    return Found(images, labels, None if groups is None else [group_named(str(name)) for name in groups.tolist()])


def channels_first(path: Path, told: str, images: NDArray[Any]) -> NDArray[np.uint8]:
    """Images as uint8 N C H W, from N H W, N H W C or N C H W with one or three channels."""
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {told} images are {images.dtype}; give bytes from 0 to 255, numpy's uint8")
    if images.ndim == 3:
        images = images[:, np.newaxis]
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"{path}: {told} images have shape {images.shape}; expected N H W, N H W 3 or N 3 H W")
    if max(images.shape[2:]) > LARGEST_SIDE:
        raise UserError(f"{path}: {told} images have shape {images.shape}; {LARGEST_SIDE} pixels a side are the most")
    if images.size == 0:
        raise UserError(f"{path} has no {told} image; add some, or store a set without these arrays")
    return images


def classes_of(path: Path, labels: NDArray[Any], names: NDArray[Any] | None) -> tuple[NDArray[Any], list[str]]:
    """The label of each class, in order, and what the class is called: `names`, else the training labels themselves."""
    if names is None:
        values = np.unique(labels)
        if len(values) == len(labels) > 1:
            raise UserError(
                f"{path}: its {len(labels):,} training labels are all different; give the class of each image"
            )
    else:
        names = checked_names(path, names)
        values = names if labels.dtype.kind == "U" else np.arange(len(names))
    if not 2 <= len(values) <= MOST_CLASSES:
        raise UserError(
            f"{path} has {counted(len(values), 'class', 'classes')}; a classifier needs 2 to {MOST_CLASSES:,}"
        )
    return values, [str(value) for value in (values if names is None else names).tolist()]


def checked_names(path: Path, names: NDArray[Any]) -> NDArray[Any]:
    """The names of classes as they were stored: different ones, one text each."""
    fit = names.ndim == 1 and names.dtype.kind == "U" and len(names) <= MOST_CLASSES and is_text(names)
    if not fit or len(np.unique(names)) < len(names):
        raise UserError(f"{path}: its classes are no list of different names; give one text per class, in label order")
    return names


def is_text(array: NDArray[Any]) -> bool:
    """False for texts with numbers in the place of letters that are none, or that are halves of one; a file may hold both."""
    if array.dtype.kind != "U" or array.dtype.itemsize == 0:
        return True
    letters = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).view(np.uint32)
    return not ((letters > 0x10FFFF) | ((letters >= 0xD800) & (letters < 0xE000))).any()


def as_places(path: Path, split: str, labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int64]:
    """Labels as int64 N, their places in `values`."""
    told = IN_WORDS[split]
    if (values.dtype.kind == "U") != (labels.dtype.kind == "U"):
        raise UserError(
            f"{path}: {told} labels are {labels.dtype}, those of the classes {values.dtype}; make them alike"
        )
    strange = labels[~np.isin(labels, values)]
    if len(strange):
        known = f"one of the {len(values)} labels from {shown(values[0])} to {shown(values[-1])}"
        raise UserError(
            f"{path} has the {told} label {shown(strange[0])}, which is not {known}; correct it, or the classes"
        )
    order = np.argsort(values)
    return order[np.searchsorted(values, labels, sorter=order)].astype(np.int64)


def shown(name: Any) -> str:
    """A name or number as an error shows it."""
    return shortened(repr(name.item() if isinstance(name, np.generic) else name))
