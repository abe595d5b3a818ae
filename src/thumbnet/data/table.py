"""A table of pictures: a CSV file that says which file is of which class, perhaps of which split, and what belongs together."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from thumbnet.data.columns import SPLIT_IN_TABLE, TITLES, first_called
from thumbnet.data.images import is_image_name, natural_key, walk
from thumbnet.data.pack import MOST_CLASSES, SPLIT_OF_NAME
from thumbnet.data.pictures import NAMED, Listing
from thumbnet.errors import UserError, unknown_name
from thumbnet.files import read_table
from thumbnet.words import counted, printable, shortened

ADVICE = "name the columns in the first line: image for the files, label for their classes, perhaps split and group"
YES_OR_NO = {"0": False, "0.0": False, "1": True, "1.0": True, "": False}


@dataclass(frozen=True)
class Row:
    """One picture, as a table has it."""

    image: str  # a name, not yet found
    label: str
    split: str
    group: str


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table, and which of its columns were read: by what they are for, their titles."""

    path: Path
    rows: list[Row]
    columns: dict[str, str]
    unread: list[str]


def list_table(path: Path) -> Listing:
    """The pictures that a table names, in its order, below the folder that it lies in.

    Labels count the classes of the training images in natural order. Raises `UserError` for a table that does not tell.
    """
    table = read_labels(path)
    names = found_below(path, table.rows)
    refuse_twins(path, names)
    classes = classes_of(table)
    splits = [split for split in dict.fromkeys(SPLIT_OF_NAME.values()) if any(row.split == split for row in table.rows)]
    places = {name: place for place, name in enumerate(classes)}
    rows = list(zip(table.rows, names, strict=True))
    images = {split: [(name, places[row.label]) for row, name in rows if row.split == split] for split in splits}
    grouped = "group" in table.columns
    groups = {split: [row.group for row in table.rows if row.split == split] for split in splits} if grouped else {}
    facts: dict[str, Any] = {"columns": table.columns, "unread_columns": table.unread}
    if shared := shared_groups(groups):
        facts["shared_groups"] = shared
    return Listing(path.parent, classes, images, groups=groups, facts=facts)


def shared_groups(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many groups of the training images there are in each other split, too."""
    trained_on = {name for name in groups.get("train", ()) if name}
    found = {split: len(trained_on & set(names)) for split, names in groups.items() if split != "train"}
    return {split: count for split, count in found.items() if count}


def told_of_table(name: str, described: Mapping[str, Any]) -> list[str]:
    """What to say of a set that came by a table: which of its columns were read, and where its splits share groups."""
    told = []
    if unread := described.get("unread_columns"):
        read = ", ".join(f"{title} ({purpose})" for purpose, title in described["columns"].items())
        told.append(
            f"of {name} {read} are read, and not {', '.join(map(shortened, unread[:NAMED]))}"
            + (", ..." if len(unread) > NAMED else "")
        )
    return told + told_of_groups(described.get("shared_groups", {}))


def told_of_groups(shared: Mapping[str, int]) -> list[str]:
    """A sentence on each split that shares groups with the training images."""
    return [
        f"{counted(count, 'group has', 'groups have')} training and {split} images; what is measured on these looks too good"
        for split, count in shared.items()
    ]


def read_labels(path: Path) -> LabelTable:
    """What a table says, each cell checked, no file looked for yet."""
    titles, cells = read_cells(path)
    columns = columns_of(path, titles, cells)
    one_hot = [] if "label" in columns else one_column_per_class(path, titles, columns, cells)
    used = {*columns.values(), *one_hot}
    rows = [read_row(path, columns, one_hot, row) for row in cells]
    if one_hot:
        columns = columns | {"label": f"one for each of {len(one_hot)} classes"}
    return LabelTable(path, rows, columns, [title for title in titles if title and title not in used])


def read_images(path: Path) -> list[Path]:
    """The pictures that a table names, in its order, whatever else it says; of several of one name that of the test split."""
    titles, cells = read_cells(path)
    columns = columns_of(path, titles, cells)
    rows = [Row(image_in(path, columns, row), "", split_in(path, columns, row, "test"), "") for row in cells]
    return [path.parent / name for name in found_below(path, rows)]


def read_cells(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The titles of a table, and its rows that are not empty."""
    titles, rows = read_table(path)
    cells = [row for row in rows if any(map(str.strip, filled(row)))]
    if not cells:
        raise UserError(f"{path} names no image; {ADVICE}")
    return titles, cells


def filled(row: dict[str, str]) -> list[str]:
    """The cells of a row that belong to columns."""
    return [cell for title, cell in row.items() if title is not None]


def columns_of(path: Path, titles: Sequence[str], cells: Sequence[dict[str, str]]) -> dict[str, str]:
    """The title of the column for each purpose; "label" is missing where no single column tells the classes."""
    columns = {}
    for purpose, known in TITLES.items():
        title = first_called(titles, known)
        if title is not None and list(titles).count(title) > 1:
            raise UserError(f"{path} has two columns {shortened(title)!r}; rename one")
        if title is not None:
            columns[purpose] = title
    others = [title for title in titles if title and title not in columns.values()]
    if "image" not in columns:
        no_titles = any(map(is_image_name, titles))  # the first line is one like the others
        files = [
            title
            for title in others
            if cells and not no_titles and all(is_image_name(row[title].strip()) for row in cells)
        ]
        if len(files) != 1:
            found = ", ".join(repr(shortened(title)) for title in titles)
            raise UserError(f"{path} has no column of images that is known by its name; {ADVICE} (it has {found})")
        columns["image"] = files[0]
        others.remove(files[0])
    if "label" not in columns and len(others) == 1:
        columns["label"] = others[0]
    return columns


def one_column_per_class(
    path: Path, titles: Sequence[str], columns: dict[str, str], cells: Sequence[dict[str, str]]
) -> list[str]:
    """The titles that are classes, of a table with 1 in the column of each image's class and 0 in the others."""
    others = [title for title in titles if title and title not in columns.values()]
    if len(others) < 2 or not all(row[title].strip() in YES_OR_NO for row in cells for title in others):
        found = ", ".join(repr(shortened(title)) for title in titles)
        raise UserError(f"{path} does not say which column has the classes; call it label (it has {found})")
    return others


def read_row(path: Path, columns: dict[str, str], one_hot: Sequence[str], cells: dict[str, str]) -> Row:
    """One row, its words as they are meant."""
    image = image_in(path, columns, cells)
    if one_hot:
        chosen = [title for title in one_hot if YES_OR_NO[cells[title].strip()]]
        if len(chosen) != 1:
            raise UserError(f"{path} gives {shortened(image)!r} {len(chosen)} classes; each image needs just one")
        label = chosen[0]
    else:
        label = cells[columns["label"]]
    if not label.strip():
        raise UserError(f"{path} gives {shortened(image)!r} no class; add it or delete the row")
    split = split_in(path, columns, cells, "train")
    group = cells[columns["group"]].strip() if "group" in columns else ""
    return Row(image, printable(label.strip()), split, group)


def image_in(path: Path, columns: Mapping[str, str], cells: dict[str, str]) -> str:
    """The name of a row's image."""
    image = cells[columns["image"]].strip()
    if not image:
        raise UserError(
            f"{path} has a row without an image: {shortened(', '.join(filled(cells)))!r}; add it or delete the row"
        )
    if None in cells:  # type: ignore[comparison-overlap]
        raise UserError(
            f"{path}: the row of {shortened(image)!r} has more cells than there are columns; quote commas in texts"
        )
    return image


def split_in(path: Path, columns: Mapping[str, str], cells: dict[str, str], otherwise: str) -> str:
    """The split of a row's image, in a table that does not say `otherwise`."""
    if "split" not in columns:
        return otherwise
    word = cells[columns["split"]].strip()
    if word.casefold() not in SPLIT_IN_TABLE:
        image = shortened(cells[columns["image"]].strip())
        raise UserError(f"{path} puts {image!r} into the split {shortened(word)!r}; give train, validation or test")
    return SPLIT_IN_TABLE[word.casefold()]


def classes_of(table: LabelTable) -> list[str]:
    """The classes of the training images, in natural order; those of all others must be among them."""
    labels = {split: {row.label for row in table.rows if row.split == split} for split in SPLIT_OF_NAME.values()}
    classes = sorted(labels["train"], key=natural_key)
    trained_on = sum(row.split == "train" for row in table.rows)
    if not classes:
        raise UserError(
            f"{table.path} has no training image; write train into the column {table.columns['split']!r} of some"
        )
    if not 2 <= len(classes) <= MOST_CLASSES:
        told = counted(len(classes), "class", "classes")
        raise UserError(
            f"{table.path} has {told} of training images, {shortened(classes[0])!r}; a classifier needs 2 to {MOST_CLASSES:,}"
        )
    if len(classes) == trained_on > 2:
        raise UserError(
            f"{table.path}: its {trained_on:,} training labels, in column {table.columns['label']!r}, are all different; "
            "give the class of each image"
        )
    for split, found in labels.items():
        for name in sorted(found - labels["train"], key=natural_key):
            raise UserError(
                f"{table.path} has a {split} image of a class that no training image has: {unknown_name('class', name, classes)}"
            )
    return classes


def found_below(path: Path, rows: Sequence[Row]) -> list[str]:
    """Where the pictures of a table are, each below the folder that the table lies in, with forward slashes.

    A name is a path from there. Where there is no such file, one of that name, with or without its ending, is looked for at any
    depth, and taken if it is the only one, or the only one in a folder that is called as its split. Of a name that is nowhere the
    path that it would have is given. Raises `UserError` where it cannot be known which is meant, or all are nowhere.
    """
    folder = path.parent
    names = [os.path.normpath(row.image.replace("\\", "/")) for row in rows]
    names = [os.path.relpath(name, folder) if os.path.isabs(name) else name for name in names]
    there = [os.path.isfile(os.path.join(folder, name)) for name in names]
    if not all(there):
        known = by_name(folder)
        nowhere = 0
        for place, row in enumerate(rows):
            if not there[place]:
                found = called(names[place], known)
                names[place] = the_one(path, row, found) if found else names[place]
                nowhere += not found
        if nowhere == len(rows):
            raise UserError(
                f"{path} names images such as {shortened(rows[0].image)!r}, and none of them is at or below {folder}; "
                "put the table where the names begin, or correct them"
            )
    return names


def by_name(folder: Path) -> dict[str, list[str]]:
    """All images at any depth, by the last part of their path, with and without its ending."""
    known: dict[str, list[str]] = {}
    for entry, is_image in walk(folder):
        if is_image:
            below = os.path.relpath(entry.path, folder).replace(os.sep, "/")
            for form in {plain(below), os.path.splitext(plain(below))[0]}:
                known.setdefault(form.rpartition("/")[2], []).append(below)
    return known


def plain(name: str) -> str:
    """A file's name as tables have it: without regard to case, letters with accents in one code rather than two."""
    return normalize("NFC", name).casefold()


def called(name: str, known: dict[str, list[str]]) -> list[str]:
    """The images whose path ends in `name`, or does so without its ending."""
    wanted = f"/{plain(name)}"
    candidates = known.get(wanted.rpartition("/")[2], [])
    return [one for one in candidates if ends_in(f"/{plain(one)}", wanted)]


def ends_in(path: str, wanted: str) -> bool:
    return path.endswith(wanted) or os.path.splitext(path)[0].endswith(wanted)


def the_one(path: Path, row: Row, found: Sequence[str]) -> str:
    """Which of several images of one name a row means: the one in a folder that is called as its split."""
    if len(found) == 1:
        return found[0]
    of_its_split = [name for name in found if row.split in splits_in(name)]
    if len(of_its_split) != 1:
        raise UserError(
            f"{path} names {shortened(row.image)!r}, and there are several, {found[0]} and {found[1]}; write the path, from "
            f"{path.parent} on"
        )
    return of_its_split[0]


def splits_in(name: str) -> Iterable[str]:
    """The splits that folders on the way to a file are called by."""
    return [SPLIT_OF_NAME[part.casefold()] for part in name.split("/")[:-1] if part.casefold() in SPLIT_OF_NAME]


def refuse_twins(path: Path, names: Sequence[str]) -> None:
    """Raise `UserError` where a table names one file twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(
                f"{path} has two rows for {shortened(name)!r}; an image has one class and one split: delete one"
            )
        seen.add(name)
