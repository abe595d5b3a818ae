"""A folder of images as a pack: FOLDER/<class>/*, or FOLDER/{train,val,test}/<class>/*, or the first with test/ or val/ beside.

Letters in shapes: N images, S the side of the square images.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.images import FORMATS_IN_WORDS, decode_image, entries, is_folder, is_image_name, quiet_pillow, walk
from thumbnet.data.pack import LARGEST_SIDE, SPLIT_OF_NAME, Pack
from thumbnet.errors import BrokenImage, UserError, unknown_name
from thumbnet.words import counted, printable

SPLITS = tuple(dict.fromkeys(SPLIT_OF_NAME.values()))  # train first, as its classes are the measure for the others
EXPECTED = "expected FOLDER/<class>/<images> or FOLDER/train/<class>/<images>"
READER = "thumbnet-folder-1"  # part of every signature: change it when the same files would give other arrays
BLOCK = 64  # images per task: 8 to 512 are equally fast, 1 is a tenth slower; few enough for a smooth progress bar
# Threads of Python share one lock. Measured on 2 cores, they halve the speed on files of 2 kB (32 x 32), change nothing
# at 8 kB (64 x 64), and give 1.7 times from 20 kB on; no gain was seen beyond one thread a core.
SMALL_FILE = 8_000  # bytes
MOST_WORKERS = 8
NAMED = 3  # files in a sentence


@dataclass(frozen=True)
class Listing:
    """What a folder holds, before any image is opened. `images` gives, by split, (entry, label) in row order."""

    classes: list[str]
    images: dict[str, list[tuple[os.DirEntry[str], int]]]
    ignored: list[str]


def read_folder(
    folder: Path,
    *,
    image_size: int,
    skip_broken: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pack:
    """Decode every image of a folder, in a fixed order, to `<split>_images` uint8 N 3 S S and `<split>_labels` int64 N.

    Labels count the training class folders in natural order; other splits are matched to them by name. The description
    has `classes`, `files` (by split, in row order), `ignored` and `broken`, all paths relative to `folder`. `progress`
    is called in the calling thread with (images done, images in all). Raises `UserError` for a folder of another shape,
    and for an unreadable image unless `skip_broken`, which leaves such images out.
    """
    if not 1 <= image_size <= LARGEST_SIDE:
        raise UserError(f"image size {image_size} is not possible; give 1 to {LARGEST_SIDE} pixels")
    listing = list_folder(folder)
    total = sum(len(rows) for rows in listing.images.values())
    arrays: dict[str, NDArray[Any]] = {}
    files: dict[str, list[str]] = {}
    broken: list[str] = []
    done = 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    for split, rows in listing.images.items():
        names = [relative(folder, entry.path) for entry, _ in rows]
        images, unreadable = decode_files(
            [entry for entry, _ in rows], image_size, skip_broken=skip_broken, advance=advance
        )
        labels = np.array([label for _, label in rows], dtype=np.int64)
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.delete(labels, unreadable)
        broken += [names[row] for row in unreadable]
        left_out = set(unreadable)
        files[split] = [name for row, name in enumerate(names) if row not in left_out]
    refuse_lost_images(folder, listing.classes, arrays)
    description = {"classes": listing.classes, "ignored": listing.ignored, "broken": broken, "files": files}
    return Pack(arrays, description)


def folder_signature(folder: Path, image_size: int, *, skip_broken: bool = False) -> str:
    """Hex SHA-256 that changes when the pack of this folder could: names, sizes, times of its files, and the options.

    Opens no image. Raises `UserError` for a folder of another shape, as `read_folder` does.
    """
    listing = list_folder(folder)
    stamps = [
        (split, relative(folder, entry.path), *stamp(entry))
        for split, rows in listing.images.items()
        for entry, _ in rows
    ]
    content = [READER, image_size, skip_broken, listing.classes, listing.ignored, sorted(stamps)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Size and time of change in nanoseconds; of a dangling link, one that no file has."""
    try:
        status = entry.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def list_folder(folder: Path) -> Listing:
    """Find splits, classes and images, and everything that is passed over. Raises `UserError` for another shape."""
    if not os.path.exists(folder):
        raise UserError(f"no such folder: {folder}; {EXPECTED}")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder; {EXPECTED}")
    splits, passed_over = find_splits(folder)
    by_class = {}
    for split, path in splits.items():
        by_class[split], others = find_classes(path, {other for other in splits.values() if other != path})
        passed_over += others
    classes = check_classes(splits, by_class)
    images = {
        split: [(image, label) for label, name in enumerate(classes) for image in found.get(name, [])]
        for split, found in by_class.items()
    }
    for split, rows in images.items():
        if not rows:
            raise UserError(f"no image in {splits[split]}; add {FORMATS_IN_WORDS} files or remove the folder")
    return Listing(classes, images, [relative(folder, entry.path) for entry in passed_over])


def find_splits(folder: Path) -> tuple[dict[str, Path], list[os.DirEntry[str]]]:
    """The folder of each split, and what lies beside them. Without a train folder, `folder` itself is the train split.

    A folder named `train` beside classes, and with images directly in it, is a class: trains among cars and planes. One named
    `test` beside them is a split where it holds a folder of one of these classes.
    """
    inside = entries(folder)
    folders = [entry for entry in inside if is_folder(entry)]
    holders = {split: [entry for entry in folders if split_of(entry) == split] for split in SPLITS}
    holders = {split: found for split, found in holders.items() if found}
    named = [entry for found in holders.values() for entry in found]
    only_splits = bool(named) and len(named) == len(folders)
    if "train" not in holders:
        if only_splits:
            raise UserError(f"{folder} has {', '.join(entry.name for entry in named)} but no train folder; {EXPECTED}")
        classes = {entry.name.casefold() for entry in folders if entry not in named}
        return {"train": folder, **one_each({s: f for s, f in holders.items() if hold_classes(f, classes)})}, []
    train_has_folders = any(is_folder(entry) for entry in entries(holders["train"][0].path))
    if not (only_splits or len(holders) > 1 or train_has_folders):
        return {"train": folder}, []
    return one_each(holders), [entry for entry in inside if entry not in named]


def one_each(holders: dict[str, list[os.DirEntry[str]]]) -> dict[str, Path]:
    """The one folder of each split. Raises `UserError` where there are two."""
    for split, found in holders.items():
        if len(found) > 1:
            raise UserError(f"both {found[0].path} and {found[1].path} hold the {split} split; remove one of them")
    return {split: Path(found[0].path) for split, found in holders.items()}


def hold_classes(holders: list[os.DirEntry[str]], classes: set[str]) -> bool:
    """Whether these folders hold one of the classes, in any letters; another name in them is then refused as no class."""
    return any(
        is_folder(entry) and entry.name.casefold() in classes for holder in holders for entry in entries(holder.path)
    )


def split_of(entry: os.DirEntry[str]) -> str | None:
    """The split that a folder's name stands for."""
    return SPLIT_OF_NAME.get(entry.name.casefold())


def find_classes(
    folder: Path, splits: Set[Path] = frozenset()
) -> tuple[dict[str, list[os.DirEntry[str]]], list[os.DirEntry[str]]]:
    """The images of each class folder, by class in natural order, and what is passed over; `splits` beside them are neither."""
    inside = [entry for entry in entries(folder) if Path(entry.path) not in splits]
    found: dict[str, list[os.DirEntry[str]]] = {}
    passed_over = [entry for entry in inside if not is_folder(entry)]
    for entry in inside:
        if is_folder(entry):
            below = list(walk(entry.path))
            found[printable(entry.name)] = [image for image, is_image in below if is_image]
            passed_over += [other for other, is_image in below if not is_image]
    if found:
        return found, passed_over
    direct = [entry.name for entry in inside if is_image_name(entry.name)]
    if direct:
        raise UserError(
            f"images such as {direct[0]} lie directly in {folder}, without class folders; "
            f"put each into a folder named by its class"
        )
    raise UserError(f"{folder} {'has no class folder' if inside else 'is empty'}; {EXPECTED}")


def check_classes(splits: dict[str, Path], by_class: dict[str, dict[str, list[os.DirEntry[str]]]]) -> list[str]:
    """The class names in label order: those of the train split, and every other split's must be among them."""
    classes = list(by_class["train"])
    if len(classes) == 1:
        raise UserError(
            f"{splits['train']} has only one class folder, {classes[0]!r}; a classifier needs at least 2 "
            f"(if the classes lie deeper, give {splits['train'] / classes[0]})"
        )
    for name, images in by_class["train"].items():
        if not images:
            raise UserError(
                f"class folder {splits['train'] / name} has no {FORMATS_IN_WORDS} image; add some or remove the folder"
            )
    for split, found in by_class.items():
        for name in found:
            if name not in by_class["train"]:
                raise UserError(f"{splits[split]} has a class that train lacks: {unknown_name('class', name, classes)}")
    return classes


def decode_files(
    files: Sequence[os.DirEntry[str]], image_size: int, *, skip_broken: bool, advance: Callable[[int], None]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Decode to uint8 N 3 S S with a few threads; gives also the rows left out as broken, counted before that."""
    images = room_for(len(files), image_size)

    def decode_block(start: int) -> list[int]:
        unreadable = []
        for row in range(start, min(start + BLOCK, len(files))):
            try:
                images[row] = decode_image(Path(files[row].path), channels=3, size=(image_size, image_size))
            except UserError as error:
                if not skip_broken:
                    raise BrokenImage(str(error)) from error
                unreadable.append(row)
        return unreadable

    broken: list[int] = []
    starts = range(0, len(files), BLOCK)
    with quiet_pillow(), ThreadPoolExecutor(workers_for(files)) as pool:
        # `map` gives results in the order of the blocks, so the first broken file of a folder is the one reported. When
        # an error or Ctrl-C ends this loop, `map` drops the blocks that have not begun.
        for start, unreadable in zip(starts, pool.map(decode_block, starts), strict=True):
            broken += unreadable
            advance(min(BLOCK, len(files) - start))
    return (np.delete(images, broken, axis=0) if broken else images), broken


def workers_for(files: Sequence[os.DirEntry[str]]) -> int:
    """How many threads decode these files fastest."""
    small = sum(stamp(file)[0] for file in files) < SMALL_FILE * len(files)
    return 1 if small else min(MOST_WORKERS, os.cpu_count() or 1)


def room_for(count: int, image_size: int) -> NDArray[np.uint8]:
    """An array for all images, uint8 N 3 S S, not yet filled."""
    shape = (count, 3, image_size, image_size)
    try:
        return np.empty(shape, dtype=np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more bytes than an address can count
        gigabytes = np.prod(shape, dtype=np.float64) / 1e9
        raise UserError(
            f"{count} images of {image_size} x {image_size} need {gigabytes:.1f} GB of memory; choose a smaller size"
        ) from error


def left_out(described: Mapping[str, Any]) -> dict[str, str]:
    """A sentence on the `broken` and one on the `ignored` files of a folder's description, where there are any."""
    sentences = {
        "broken": ("file cannot be read and is left out", "files cannot be read and are left out"),
        "ignored": (
            f"file is ignored, no {FORMATS_IN_WORDS} image or outside the class folders",
            f"files are ignored, no {FORMATS_IN_WORDS} images or outside the class folders",
        ),
    }
    told = {}
    for kind, words in sentences.items():
        if names := described.get(kind):
            shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            told[kind] = f"{counted(len(names), *words)}: {shown}"
    return told


def refuse_lost_images(folder: Path, classes: list[str], arrays: dict[str, NDArray[Any]]) -> None:
    """A class or split of which nothing is left is an error even with `skip_broken`."""
    counts = np.bincount(arrays["train_labels"], minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise UserError(f"no image of class {name!r} in {folder} can be read; replace them or remove the class")
    for key, images in arrays.items():
        if len(images) == 0:
            split = key.partition("_")[0]
            raise UserError(f"no {split} image in {folder} can be read; replace them or remove that folder")


def relative(folder: Path, path: str) -> str:
    """The path below `folder`, with forward slashes."""
    return path.removeprefix(os.path.join(folder, "")).replace(os.sep, "/")
