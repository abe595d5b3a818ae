"""A table of pixels: a CSV file with one image per line, as competitions give MNIST and its relatives, or FER2013 its faces."""
# Shapes: N images, H and W height and width.

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.columns import LABEL_TITLES, SPLIT_IN_TABLE, SPLIT_TITLES, first_called
from thumbnet.errors import UserError
from thumbnet.files import first_line, separator_in
from thumbnet.words import shortened

PIXEL = re.compile(r"pixel[ _.-]?\d+|px[ _.-]?\d+|\d+x\d+", re.I)  # pixel0 (Kaggle's), 1x1 (as mnist-in-csv has them)
PIXELS = "pixels"  # one column with all of an image's, FER2013's
FEWEST = 4  # columns of pixels, so that a table with a title such as 3x3 is none of pixels
LARGEST = 4 << 30  # bytes of all images of a file, as of arrays
LONGEST_TITLES = 1 << 20  # letters of the first line; a thousand by a thousand pixels have more than ten times as many


@dataclass(frozen=True)
class PixelColumns:
    """Where in a line the pixels are, the label, and perhaps the split."""

    pixels: list[int]
    label: int
    split: int | None


def is_pixel_table(path: Path) -> bool:
    """Whether the first line of a CSV file names columns of pixels; False where it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline(LONGEST_TITLES)
    except (OSError, UnicodeDecodeError):
        return False
    return bool(pixel_columns(next(csv.reader([first], delimiter=separator_in(first)), [])))


def pixel_columns(titles: Sequence[str]) -> list[int]:
    """The places of the columns of pixels among the titles; none where this is no table of pixels."""
    one = [place for place, title in enumerate(titles) if title.strip().casefold() == PIXELS]
    many = [place for place, title in enumerate(titles) if PIXEL.fullmatch(title.strip())]
    return many if len(many) >= FEWEST else one


def read_pixel_table(path: Path) -> dict[tuple[str, str], NDArray[Any]]:
    """Images uint8 N H W and labels N, whole numbers or names, by split and "images" or "labels".

    Raises `UserError` for a table without labels, and for images that are not square or not of bytes.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            titles, lines = (
                next(csv.reader([first], delimiter=separator_in(first))),
                csv.reader(file, delimiter=separator_in(first)),
            )
            splits = read_lines(path, columns_of(path, titles), lines)
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is no text in UTF-8; save it as such") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    parts: dict[tuple[str, str], NDArray[Any]] = {}
    for split, (pixels, labels) in splits.items():
        side = side_of(path, len(pixels[0]))
        parts[split, "images"] = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, side, side)
        parts[split, "labels"] = np.array(labels)
    as_numbers = [split_labels(parts, split) for split in splits]
    if all(numbers is not None for numbers in as_numbers):
        parts |= {
            (split, "labels"): numbers for split, numbers in zip(splits, as_numbers, strict=True) if numbers is not None
        }
    return parts


def split_labels(parts: dict[tuple[str, str], NDArray[Any]], split: str) -> NDArray[np.int64] | None:
    """The labels of a split as whole numbers, or None where one of them is no such number."""
    try:
        return parts[split, "labels"].astype(np.int64)
    except (ValueError, OverflowError):
        return None


def columns_of(path: Path, titles: Sequence[str]) -> PixelColumns:
    """What the first line says of the others."""
    pixels = pixel_columns(titles)
    split = first_called(titles, SPLIT_TITLES)
    others = [title for place, title in enumerate(titles) if place not in set(pixels) and title not in ("", split)]
    label = first_called(others, LABEL_TITLES) or (others[0] if len(others) == 1 else None)
    if label is None:
        found = ", ".join(repr(shortened(title)) for title in others) or "no other column"
        raise UserError(
            f"{path} has pixels and does not say which column has the classes; call it label (it has {found})"
        )
    return PixelColumns(pixels, titles.index(label), None if split is None else titles.index(split))


def read_lines(
    path: Path, columns: PixelColumns, lines: Iterator[list[str]]
) -> dict[str, tuple[list[bytes], list[str]]]:
    """By split, the pixels of each image and its label."""
    found: dict[str, tuple[list[bytes], list[str]]] = {}
    length, total = None, 0
    for number, cells in enumerate(lines, start=2):
        if not any(cells):
            continue
        try:
            values = [cells[place] for place in columns.pixels]
            pixels = bytes(map(int, values[0].split() if len(values) == 1 else values))
            label, word = (
                cells[columns.label].strip(),
                "train" if columns.split is None else cells[columns.split].strip(),
            )
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{path}, line {number}: pixels are whole numbers from 0 to 255, one in each column ({first_line(error)})"
            ) from error
        if word.casefold() not in SPLIT_IN_TABLE:
            raise UserError(f"{path}, line {number}: the split is {shortened(word)!r}; give train, validation or test")
        if not label:
            raise UserError(f"{path}, line {number}: the image has no class; add it or delete the line")
        length, total = length or len(pixels), total + len(pixels)
        if len(pixels) != length or total > LARGEST:
            told = (
                f"more than {LARGEST >> 30} GiB of images"
                if total > LARGEST
                else f"{len(pixels)} pixels after {length}"
            )
            raise UserError(f"{path}, line {number}: {told}; make it smaller, or all images of one size")
        images, labels = found.setdefault(SPLIT_IN_TABLE[word.casefold()], ([], []))
        images.append(pixels)
        labels.append(label)
    if not found:
        raise UserError(f"{path} has no line of pixels below the first; add the images")
    return found


def side_of(path: Path, pixels: int) -> int:
    """The side of a square grey image of so many pixels."""
    side = math.isqrt(pixels)
    if side * side != pixels or side == 0:
        raise UserError(
            f"{path} has images of {pixels} pixels, which is no square of grey ones; store others as an .npz file, in which they "
            "have a shape"
        )
    return side
