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

from thumbnet.data.columns import IDS, IMAGE_TITLES, first_called, folded, is_table, shown_titles
from thumbnet.data.finding import by_ends
from thumbnet.data.names import folder_of
from thumbnet.errors import UserError
from thumbnet.reading import read_table, read_written
from thumbnet.words import counted, printable, shortened

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

COLUMN = "image"  # of a .csv file
LARGEST_LIST = 16 << 20  # bytes of a .txt file; the names of a hundred thousand images
COMMENT = "#"  # begins a line of a .txt file that names no image


def without(data: "Dataset", listed: str | Path | Sequence[str]) -> "Dataset":
    """`data`, which was cut already, with the training images that are `listed`, by names or in a file of names, left out.

    Raises `UserError` for a name that no training image has, and where a class would lose all of its images.
    """
    names: Sequence[str] = () if isinstance(listed, str | Path) else listed
    source = "the list"
    if isinstance(listed, str | Path):
        names, source = names_in(Path(listed), titles=titles_of(data)), str(listed)
    places = sorted(set(places_of(names, data, source)))
    rows = data.train.rows
    listed_rows = data.development.rows[torch.tensor(places, dtype=torch.int64)].to(rows.device)
    kept = rows[~torch.isin(rows, listed_rows)]
    made = replace(data, train=replace(data.train, rows=kept), left_out=tuple(name_of(place, data) for place in places))
    refuse_lost_classes(data, made, source)
    return made


def names_in(path: Path, *, titles: Sequence[str] = ()) -> list[str]:
    """The images that a file names: a .csv file in its column `image`, a .txt file one in each line.

    Without a column `image`, the first of `titles` will do.
    """
    if path.suffix.lower() == ".csv":
        columns, rows = read_table(path)
        column = COLUMN if COLUMN in columns else next((title for title in titles if title in columns), None)
        column = column or (first_called(columns, (*IMAGE_TITLES, *IDS)) if titles else None)
        if column is None or columns.count(column) != 1:
            raise UserError(
                f"{path} has no column {COLUMN}, or several; its first line must name one "
                f"(it has {shown_titles(columns) or 'nothing'})"
            )
        return [row[column] for row in rows if row[column].strip()]
    if path.suffix.lower() != ".txt":
        raise UserError(
            f"{path} is no list of images; give a .csv file with a column {COLUMN}, or a .txt file of names"
        )
    lines = read_written(path, LARGEST_LIST).splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith(COMMENT)]


def titles_of(data: "Dataset") -> tuple[str, ...]:
    """What a list may call the column of images that are files: as the table of the data does, or as others do.

    Images that are no files go by number from 0, which an `ImageId` seldom does.
    """
    if "train" not in data.files:
        return ()
    return (data.facts.get("columns", {}).get("image", COLUMN),)


def places_of(names: Sequence[str], data: "Dataset", source: str) -> list[int]:
    """Where the named images stand among the training images as they are stored.

    An image is named by its file, below the data set's folder or as one types it from here; where images do not come as files,
    by its number, from 0, as `doctor` gives it.
    """
    files = data.files.get("train")
    if files is None:
        return [place_by_number(name.strip(), data, source) for name in names]
    exactly = {name: place for place, name in enumerate(files)}
    nearly: dict[str, list[int]] = {}
    for place, name in enumerate(files):
        nearly.setdefault(as_listed(name), []).append(place)
    endings = by_ends(files) if is_table(data.name) else {}  # a table's names may be parts of paths
    found = []
    for name in names:
        written = [name, os.path.normpath(name).replace(os.sep, "/"), *below(data, name)]
        places = [exactly[one] for one in written if one in exactly] or nearly.get(as_listed(name), [])
        places = places or [place for one in written for place in nearly.get(as_listed(one), [])]
        places = places or [exactly[file] for file in endings.get(folded(name.strip().replace("\\", "/")), [])]
        if not places:
            raise UserError(f"{source} names {shortened(name)!r}, {what_it_is(as_listed(name), data)}")
        if len(set(places)) > 1:
            raise UserError(
                f"{source} names {shortened(name)!r}, and {data.name} has several images that are called so"
            )
        found.append(places[0])
    return found


def as_listed(name: str) -> str:
    """A file's name as lists have it: no space around it, text throughout, letters with accents in one code rather than two."""
    return normalize("NFC", printable(name)).strip()


def below(data: "Dataset", name: str) -> list[str]:
    """What the path `name`, seen from here, is called below the folder of the data; links in it are not followed."""
    folders = dict.fromkeys((os.path.abspath(folder_of(data.name)), str(data.folder)))
    path = os.path.abspath(name.strip())
    return [os.path.relpath(path, folder).replace(os.sep, "/") for folder in folders]


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
        if split != "train" and name in map(as_listed, files):
            return f"which is a {split} image of {data.name}; only training images can be left out"
    return (
        f"and {data.name} has no such training image; if it was moved or deleted, take it off the list; names are as in "
        f"{data.files['train'][0]!r}"
    )


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
    gone = data.trained_without
    if not data.left_out:
        return f"note: {Path(source).name} names no image, so none is left out"
    held = len(data.left_out) - gone
    also = f"; {counted(held, 'image that it names is', 'images that it names are')} held out" if held else ""
    return f"{counted(gone, 'training image')} left out, by {Path(source).name}{also}"
