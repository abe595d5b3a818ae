"""Training images that a list names, to be trained without: duplicates or wrong labels that `doctor` found, or a person did.

Only what is trained on changes. The same images are held out as without the list, so that the two can be compared.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

import torch

from thumbnet.errors import UserError
from thumbnet.files import LARGEST_LIST, first_line, read_table, read_text
from thumbnet.words import counted, printable, shortened

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

COLUMN = "image"  # of a .csv file
COMMENT = "#"  # begins a line of a .txt file that names no image


def without(data: "Dataset", listed: str | Path | Sequence[str]) -> "Dataset":
    """`data`, which was cut already, with the training images that are `listed`, by names or in a file of names, left out.

    Raises `UserError` for a name that no training image has, and where a class would lose all of its images.
    """
    names = names_in(Path(listed)) if isinstance(listed, str | Path) else listed
    source = str(listed) if isinstance(listed, str | Path) else "the list"
    places = sorted(set(places_of(names, data, source)))
    out = torch.tensor(places, dtype=torch.int64)
    rows = data.train.rows
    kept = rows[~torch.isin(rows, data.development.rows[out].to(rows.device))]
    made = replace(data, train=replace(data.train, rows=kept), left_out=tuple(name_of(place, data) for place in places))
    refuse_lost_classes(data, made, source)
    return made


def names_in(path: Path) -> list[str]:
    """The images that a file names: a .csv file in its column `image`, a .txt file one in each line."""
    if path.suffix.lower() == ".csv":
        columns, rows = read_table(path)
        if columns.count(COLUMN) != 1:
            found = ", ".join(repr(shortened(title)) for title in columns) or "nothing"
            raise UserError(f"{path} has no column {COLUMN}, or several; its first line must name one (it has {found})")
        return [row[COLUMN].strip() for row in rows if row[COLUMN].strip()]
    if path.suffix.lower() != ".txt":
        raise UserError(
            f"{path} is no list of images; give a .csv file with a column {COLUMN}, or a .txt file of names"
        )
    try:
        lines = read_text(path, LARGEST_LIST).removeprefix("\ufeff").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith(COMMENT)]


def places_of(names: Sequence[str], data: "Dataset", source: str) -> list[int]:
    """Where the named images stand among the training images as they are stored.

    An image is named by its file, below the data set's folder or as one types it from here; where images do not come as files,
    by its number, from 0, as `doctor` gives it.
    """
    files = data.files.get("train")
    if files is None:
        return [place_by_number(name, data, source) for name in names]
    by_name = {known(name): place for place, name in enumerate(files)}
    folder = data.facts["location"]
    found = []
    for name in names:
        below = os.path.relpath(Path(name).resolve(), folder).replace(os.sep, "/")
        place = by_name.get(known(name), by_name.get(known(below)))
        if place is None:
            raise UserError(f"{source} names {shortened(name)!r}, {what_it_is(known(name), data)}")
        found.append(place)
    return found


def known(name: str) -> str:
    """A file's name as lists have it: text throughout, letters with accents in one code, as some systems write them in two."""
    return normalize("NFC", printable(name))


def place_by_number(name: str, data: "Dataset", source: str) -> int:
    """The place in `12`, or `train 12` as pages write it."""
    number = name.removeprefix("train ")
    if not (number.isascii() and number.isdecimal() and len(number) < 10 and int(number) < len(data.development)):
        raise UserError(
            f"{source} names {shortened(name)!r}; the training images of {data.name} go by number, 0 to "
            f"{len(data.development) - 1}"
        )
    return int(number)


def what_it_is(name: str, data: "Dataset") -> str:
    """Why an image of that name cannot be left out."""
    for split, files in data.files.items():
        if split != "train" and name in map(known, files):
            return f"which is a {split} image of {data.name}; only training images can be left out"
    return f"and {data.name} has no such training image; give names as in {data.files['train'][0]!r}"


def name_of(place: int, data: "Dataset") -> str:
    """What a training image is called in a list."""
    files = data.files.get("train")
    return files[place] if files else str(place)


def refuse_lost_classes(before: "Dataset", after: "Dataset", source: str) -> None:
    """Raise `UserError` where a class has training images before and none after."""
    counts = [
        torch.bincount(split.labels[split.rows], minlength=len(before.classes)) for split in (before.train, after.train)
    ]
    lost = ((counts[0] > 0) & (counts[1] == 0)).nonzero().flatten().tolist()
    if lost:
        raise UserError(
            f"{source} names all training images of {before.classes[lost[0]]!r} in {before.name}; leave some of them in"
        )


def told(data: "Dataset", source: str) -> str:
    """How many training images the list at `source` left out, and how many of it are held out, where they stay."""
    cut = 0 if data.own_validation is not None else len(data.validation or ())
    gone = len(data.development) - cut - len(data.train)
    held = len(data.left_out) - gone
    also = f"; {counted(held, 'image')} of it held out as ever" if held else ""
    return f"{counted(gone, 'training image')} of {Path(source).name} left out{also}"
