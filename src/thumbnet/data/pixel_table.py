"""A table of pixels: a CSV file with one image per line, as competitions give MNIST and its relatives, or FER2013 its faces."""
# Shapes: N images, H and W height and width.

import csv
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.columns import NO_GROUP, SPLIT_IN_TABLE, TITLES, first_called, plain, shown_titles
from thumbnet.errors import UserError
from thumbnet.files import first_line, separator_in
from thumbnet.words import printable, shortened

PIXEL = re.compile(
    r"(?:pixel|px)[ _.-]?(\d+)|(\d+)x(\d+)", re.I
)  # pixel0 (Kaggle's), 1x1 (row and column, in mnist-in-csv)
PIXELS = "pixels"  # one column with all of an image's, FER2013's
FEWEST = 4  # columns of pixels, so that a table with a title such as 3x3 is none of pixels
LARGEST = 4 << 30  # bytes of all images of a file, as of arrays
LONGEST_TITLES = 1 << 20  # letters of the first line; a thousand by a thousand pixels have more than ten times as many


@dataclass(frozen=True)
class Line:
    """One image, a byte per pixel row by row, and what is said of it."""

    pixels: bytes
    label: str
    split: str
    group: str


@dataclass(frozen=True)
class PixelColumns:
    """Where in a line the pixels are, and the label, split and group where they are wanted and there."""

    pixels: list[int]
    label: int | None = None
    split: int | None = None
    group: int | None = None


def is_pixel_table(path: Path) -> bool:
    """Whether the first line of a CSV file names columns of pixels; False where it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline(LONGEST_TITLES)
    except (OSError, UnicodeDecodeError):
        return False
    return bool(pixel_columns(next(csv.reader([first], delimiter=separator_in(first)), [])))


def pixel_columns(titles: Sequence[str]) -> list[int]:
    """The places of the columns of pixels among the titles, in the order of the pixels; none where this is no table of them."""
    one = [place for place, title in enumerate(titles) if title.strip().casefold() == PIXELS]
    matches = [(PIXEL.fullmatch(title.strip()), place) for place, title in enumerate(titles)]
    many = sorted((list(map(int, filter(None, match.groups()))), place) for match, place in matches if match)
    return [place for _, place in many] if len(many) >= FEWEST else one


def read_pixel_table(path: Path) -> dict[tuple[str, str], NDArray[Any]]:
    """Images uint8 N H W, labels N, whole numbers or names, and perhaps groups N, by split and "images", "labels" or "groups".

    Raises `UserError` for a table without labels, and for images that are not square or not of bytes.
    """
    lines = read_lines(path, labelled=True)
    labels, splits = np.array([line.label for line in lines]), np.array([line.split for line in lines])
    with suppress(ValueError, OverflowError):  # names, then
        labels = labels.astype(np.int64)
    images = as_images(path, lines)
    parts: dict[tuple[str, str], NDArray[Any]] = {}
    for split in np.unique(splits).tolist():
        parts[split, "images"], parts[split, "labels"] = images[splits == split], labels[splits == split]
        if any(line.group for line in lines):
            parts[split, "groups"] = np.array([line.group for line in lines])[splits == split]
    return parts


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """All images of a table of pixels, uint8 N H W, in its order, whatever else it says of them."""
    return as_images(path, read_lines(path, labelled=False))


def as_images(path: Path, lines: Sequence[Line]) -> NDArray[np.uint8]:
    """uint8 N H W, square. Raises `UserError` where the pixels make no square."""
    pixels = len(lines[0].pixels)
    side = math.isqrt(pixels)
    if side * side != pixels or side == 0:
        raise UserError(
            f"{path} has images of {pixels} pixels, which is no square of grey ones; store others as an .npz file, in which they "
            "have a shape"
        )
    return np.frombuffer(b"".join(line.pixels for line in lines), np.uint8).reshape(-1, side, side)


def read_lines(path: Path, *, labelled: bool) -> list[Line]:
    """The images of a table. Raises `UserError` where it cannot be read, or a line does not fit."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            separator = separator_in(first)
            columns = columns_of(path, next(csv.reader([first], delimiter=separator)), labelled=labelled)
            lines, total = [], 0
            for number, cells in enumerate(csv.reader(file, delimiter=separator), start=2):
                if any(cells):
                    lines.append(read_line(f"{path}, line {number}", columns, cells))
                    total += len(lines[-1].pixels)
                    check_size(f"{path}, line {number}", lines, total)
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is no text in UTF-8; save it as such (in Excel: CSV UTF-8)") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    if not lines:
        raise UserError(f"{path} has no line of pixels below the first; add the images")
    return lines


def columns_of(path: Path, titles: Sequence[str], *, labelled: bool) -> PixelColumns:
    """What the first line says of the others."""
    pixels = pixel_columns(titles)
    if not labelled:
        return PixelColumns(pixels)
    others = [title for place, title in enumerate(titles) if title and place not in set(pixels)]
    found = {name: first_called(others, known) for name, known in TITLES.items()}
    rest = [title for title in others if title not in found.values()]
    label = found["label"] or (rest[0] if len(rest) == 1 else None)
    if label is None:
        told = shown_titles(others) or "no other column"
        raise UserError(
            f"{path} has pixels and does not say which column has the classes; call it label (it has {told})"
        )
    split, group = (None if title is None else titles.index(title) for title in (found["split"], found["group"]))
    return PixelColumns(pixels, titles.index(label), split, group)


def read_line(where: str, columns: PixelColumns, cells: Sequence[str]) -> Line:
    """One line as it is meant."""
    try:
        values = [cells[place] for place in columns.pixels]
        pixels = bytes(map(int, values[0].split() if len(values) == 1 else values))
        label = "" if columns.label is None else cells[columns.label].strip()
        word = "train" if columns.split is None else cells[columns.split].strip()
        group = "" if columns.group is None else plain(cells[columns.group].strip())
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{where}: pixels are whole numbers from 0 to 255, one in each column ({first_line(error)})"
        ) from error
    if word.casefold() not in SPLIT_IN_TABLE:
        raise UserError(f"{where}: the split is {shortened(word)!r}; give train, validation or test")
    if columns.label is not None and not label:
        raise UserError(f"{where}: the image has no class; add it or delete the line")
    return Line(pixels, printable(label), SPLIT_IN_TABLE[word.casefold()], "" if group in NO_GROUP else group)


def check_size(where: str, lines: Sequence[Line], total: int) -> None:
    """Raise `UserError` where the last image has another size than the first, or all of them are too many bytes."""
    first, last = len(lines[0].pixels), len(lines[-1].pixels)
    if last != first:
        raise UserError(f"{where}: {last} pixels after {first}; make all images of one size")
    if total > LARGEST:
        raise UserError(f"{where}: more than {LARGEST >> 30} GiB of images; make it smaller")
