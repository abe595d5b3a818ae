"""Pictures on disk as a pack, whatever says which class each is of: the folders they lie in (folder.py) or a table (table.py).

Letters in shapes: N images, S the side of the square images.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.groups import numbered
from thumbnet.data.images import FORMATS_IN_WORDS, decode_image, quiet_pillow
from thumbnet.data.pack import LARGEST_SIDE, Pack
from thumbnet.errors import BrokenImage, UserError
from thumbnet.words import counted

READER = "thumbnet-folder-1"  # part of every signature: change it when the same files would give other arrays
BLOCK = 64  # images per task: 8 to 512 are equally fast, 1 is a tenth slower; few enough for a smooth progress bar
# Threads of Python share one lock. Measured on 2 cores, they halve the speed on files of 2 kB (32 x 32), change nothing
# at 8 kB (64 x 64), and give 1.7 times from 20 kB on; no gain was seen beyond one thread a core.
SMALL_FILE = 8_000  # bytes
MOST_WORKERS = 8
NAMED = 3  # files in a sentence


@dataclass(frozen=True)
class Listing:
    """Which pictures make up a data set, before any of them is opened.

    `images` gives, by split, (file below `folder`, label) in row order, and `groups`, by split, too, what those that belong
    together share.
    """

    folder: Path
    classes: list[str]
    images: dict[str, list[tuple[str, int]]]
    ignored: list[str] = field(default_factory=list)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # what else to say of the set, JSON


def read_pictures(
    listing: Listing,
    *,
    image_size: int,
    skip_broken: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pack:
    """Decode every listed picture, in its order, to `<split>_images` uint8 N 3 S S and `<split>_labels` int64 N.

    The description has `classes`, `files` (by split, in row order), `ignored` and `broken`, all paths relative to the listing's
    folder. Where there are groups, `<split>_groups` int64 N has the same number for images of the same one, and the description
    `group_names`. `progress` is called in the calling thread with (images done, images in all). Raises `UserError` for an
    unreadable image unless `skip_broken`, which leaves such images out.
    """
    check_size(image_size)
    total = sum(len(rows) for rows in listing.images.values())
    arrays: dict[str, NDArray[Any]] = {}
    files: dict[str, list[str]] = {}
    broken: list[str] = []
    groups, group_names = numbered(listing.groups)
    done = 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    for split, rows in listing.images.items():
        names = [name for name, _ in rows]
        paths = [os.path.join(listing.folder, name) for name in names]
        images, unreadable = decode_files(paths, image_size, skip_broken=skip_broken, advance=advance)
        arrays[f"{split}_images"] = images
        columns = {"labels": [label for _, label in rows]} | ({"groups": groups[split]} if split in groups else {})
        for kind, column in columns.items():
            arrays[f"{split}_{kind}"] = np.delete(np.array(column, dtype=np.int64), unreadable)
        broken += [names[row] for row in unreadable]
        left_out = set(unreadable)
        files[split] = [name for row, name in enumerate(names) if row not in left_out]
    refuse_lost_images(listing, arrays)
    described = {"classes": listing.classes, "ignored": listing.ignored, "broken": broken, "files": files}
    return Pack(arrays, described | listing.facts | ({"group_names": group_names} if groups else {}))


def check_size(image_size: int) -> None:
    """Raise `UserError` for a size that no image can have."""
    if not 1 <= image_size <= LARGEST_SIDE:
        raise UserError(f"image size {image_size} is not possible; give 1 to {LARGEST_SIDE} pixels")


def pictures_signature(listing: Listing, image_size: int, *, skip_broken: bool = False) -> str:
    """Hex SHA-256 that changes when the pack of these could: names, sizes, times of the files, labels and options.

    Opens no image.
    """
    stamps = [
        (split, name, *stamp(os.path.join(listing.folder, name)))
        for split, rows in listing.images.items()
        for name, _ in rows
    ]
    content = [READER, image_size, skip_broken, listing.classes, listing.ignored, sorted(stamps)]
    # Those of a table, which says what a folder's names say, and in which order, or of what belongs together.
    if listing.facts:
        content += [listing.facts, dict(listing.groups), listing.images]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def stamp(path: str) -> tuple[int, int]:
    """Size and time of change in nanoseconds; of a file that is not there, or a dangling link, one that no file has."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return -1, -1
    return status.st_size, status.st_mtime_ns


def decode_files(
    paths: Sequence[str], image_size: int, *, skip_broken: bool, advance: Callable[[int], None]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Decode to uint8 N 3 S S with a few threads; gives also the rows left out as broken, counted before that."""
    images = room_for(len(paths), image_size)

    def decode_block(start: int) -> list[int]:
        unreadable = []
        for row in range(start, min(start + BLOCK, len(paths))):
            try:
                images[row] = decode_image(Path(paths[row]), channels=3, size=(image_size, image_size))
            except UserError as error:
                if not skip_broken:
                    raise BrokenImage(str(error)) from error
                unreadable.append(row)
        return unreadable

    broken: list[int] = []
    starts = range(0, len(paths), BLOCK)
    with quiet_pillow(), ThreadPoolExecutor(workers_for(paths)) as pool:
        # `map` gives results in the order of the blocks, so the first broken file of a folder is the one reported. When
        # an error or Ctrl-C ends this loop, `map` drops the blocks that have not begun.
        for start, unreadable in zip(starts, pool.map(decode_block, starts), strict=True):
            broken += unreadable
            advance(min(BLOCK, len(paths) - start))
    return (np.delete(images, broken, axis=0) if broken else images), broken


def workers_for(paths: Sequence[str]) -> int:
    """How many threads decode these files fastest."""
    small = sum(stamp(path)[0] for path in paths) < SMALL_FILE * len(paths)
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
    """A sentence on the `broken` and one on the `ignored` files of a set's description, where there are any."""
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


def refuse_lost_images(listing: Listing, arrays: dict[str, NDArray[Any]]) -> None:
    """A class or split of which nothing is left is an error even with `skip_broken`."""
    counts = np.bincount(arrays["train_labels"], minlength=len(listing.classes))
    for name, count in zip(listing.classes, counts, strict=True):
        if count == 0:
            raise UserError(
                f"no image of class {name!r} in {listing.folder} can be read; replace them or remove the class"
            )
    for split in listing.images:
        if len(arrays[f"{split}_images"]) == 0:
            raise UserError(f"no {split} image in {listing.folder} can be read; replace them or remove that split")
