"""A table of pixels: a CSV file with one image per line, as competitions give MNIST and its relatives, or FER2013 its faces."""
# Shapes: N images, H and W height and width.

import csv
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.columns import (
    IDS,
    IMAGE_TITLES,
    columns_for,
    first_called,
    group_in,
    label_in,
    shown_titles,
    split_in,
)
from thumbnet.data.pack import LARGEST_ARRAYS
from thumbnet.errors import UserError, first_line
from thumbnet.reading import csv_lines, reading

PIXEL = re.compile(r"(?:pixel|px)[ _.-]?(\d{1,7})|(\d{1,4})x(\d{1,4})", re.I)  # pixel0, Kaggle's; 1x1, row and column
PIXELS = "pixels"  # one column with all of an image's, FER2013's
FEWEST = 4  # columns of pixels, so that a table with a title such as 3x3 is none of pixels


@dataclass(frozen=True)
class Lines:
    """The images of a table, a byte per pixel row by row, and the other cells of their lines."""

    pixels: list[bytes]
    titles: list[str]  # of the other columns
    cells: list[dict[str, str]]
    numbers: list[int]  # of the lines in the file


def is_pixel_table(path: Path) -> bool:
    """Whether the first line of a CSV file names columns of pixels; False where it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return bool(pixel_columns(next(csv_lines(file), [])))
    except (OSError, ValueError, csv.Error):
        return False


def pixel_columns(titles: Sequence[str]) -> list[int]:
    """The places of the columns of pixels among the titles, in the order of the pixels; none where this is no table of them."""
    matches = [(PIXEL.fullmatch(title.strip()), place) for place, title in enumerate(titles)]
    many = sorted((tuple(map(int, filter(None, match.groups()))), place) for match, place in matches if match)
    if len(many) >= FEWEST:
        return [place for _, place in many]
    return [place for place, title in enumerate(titles) if title.strip().casefold() == PIXELS]


def read_pixel_table(path: Path) -> dict[tuple[str, str], NDArray[Any]]:
    """Images uint8 N H W, labels N, whole numbers or names, and perhaps groups N, by split and "images", "labels" or "groups".

    Test images without a class are left out. Raises `UserError` for a table without labels, and for images that are not square
    or not of bytes.
    """
    lines = read_lines(path)
    columns = columns_for(path, lines.titles, lines.cells)
    if "label" not in columns:
        told = shown_titles(lines.titles) or "no other column"
        raise UserError(
            f"{path} has pixels and does not say which column has the classes; call it label (it has {told})"
        )
    who = [f"{path}, line {number}" for number in lines.numbers]
    splits = [split_in(*row) or "train" for row in zip(who, [columns] * len(who), lines.cells, strict=True)]
    labels = np.array(
        [label_in(one, columns, row, split) for one, row, split in zip(who, lines.cells, splits, strict=True)]
    )
    groups = np.array([group_in(columns, row) for row in lines.cells])
    images, labelled = as_images(path, lines.pixels), labels != ""
    numbers = labels[labelled]
    with suppress(ValueError, OverflowError):  # names, then
        numbers = numbers.astype(np.int64)
    parts: dict[tuple[str, str], NDArray[Any]] = {}
    for split in dict.fromkeys(splits):
        chosen = np.array(splits)[labelled] == split
        if chosen.any():
            parts[split, "images"], parts[split, "labels"] = images[labelled][chosen], numbers[chosen]
            if "group" in columns:
                parts[split, "groups"] = groups[labelled][chosen]
    return parts


def read_pixels(path: Path) -> tuple[list[str], NDArray[np.uint8]]:
    """All images of a table of pixels, uint8 N H W, in its order, and what a column calls them; no names where there is none."""
    lines = read_lines(path)
    title = first_called(lines.titles, IMAGE_TITLES) or first_called(lines.titles, IDS)
    return [row[title].strip() for row in lines.cells] if title else [], as_images(path, lines.pixels)


def as_images(path: Path, pixels: Sequence[bytes]) -> NDArray[np.uint8]:
    """uint8 N H W, square. Raises `UserError` where the pixels make no square."""
    side = math.isqrt(len(pixels[0]))
    if side * side != len(pixels[0]) or side == 0:
        raise UserError(
            f"{path} has images of {len(pixels[0])} pixels, which is no square of grey ones; store others as an .npz file, in "
            "which they have a shape"
        )
    return np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, side, side)


def read_lines(path: Path) -> Lines:
    """The lines of a table. Raises `UserError` where it cannot be read, or a line does not fit."""
    with reading(path), open(path, encoding="utf-8-sig", newline="") as file:
        lines = csv_lines(file)
        titles = next(lines, [])
        places = pixel_columns(titles)
        refuse_gaps(path, [titles[place] for place in places])
        others = {place: title for place, title in enumerate(titles) if title and place not in set(places)}
        found, total = Lines([], list(others.values()), [], []), 0
        for number, cells in enumerate(lines, start=2):
            if any(cells):
                found.pixels.append(pixels_in(f"{path}, line {number}", places, cells))
                total += len(found.pixels[-1])
                check_size(f"{path}, line {number}", found.pixels, total)
                found.cells.append(words_in(others, cells))
                found.numbers.append(number)
    if not found.pixels:
        raise UserError(f"{path} has no line of pixels below the first; add the images")
    return found


def refuse_gaps(path: Path, titles: Sequence[str]) -> None:
    """Raise `UserError` where the numbers of the pixels are not all of a stretch: some columns are missing, or twice there."""
    numbers = [int(match[1]) for title in titles if (match := PIXEL.fullmatch(title.strip())) and match[1]]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(titles))):
        ends = f"{titles[0].strip()} to {titles[-1].strip()}"
        raise UserError(
            f"{path} has {len(titles)} columns of pixels, {ends}, so some are missing or there twice; give each once"
        )


def pixels_in(who: str, places: Sequence[int], cells: Sequence[str]) -> bytes:
    """The pixels of one line."""
    try:
        values = [cells[place] for place in places]
        return bytes(map(int, values[0].split() if len(values) == 1 else values))
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{who}: pixels are whole numbers from 0 to 255, one in each column ({first_line(error)})"
        ) from error


def words_in(others: Mapping[int, str], cells: Sequence[str]) -> dict[str, str]:
    """The other cells of a line by their titles, "" where it ends early."""
    return {title: cells[place] if place < len(cells) else "" for place, title in others.items()}


def check_size(who: str, pixels: Sequence[bytes], total: int) -> None:
    """Raise `UserError` where the last image has another size than the first, or all of them are too many bytes."""
    first, last = len(pixels[0]), len(pixels[-1])
    if last != first:
        raise UserError(f"{who}: {last} pixels after {first}; make all images of one size")
    if total > LARGEST_ARRAYS:
        raise UserError(f"{who}: more than {LARGEST_ARRAYS >> 30} GiB of images; make it smaller")
