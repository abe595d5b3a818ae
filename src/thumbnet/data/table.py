"""A table of pictures: a CSV file that says which file is of which class, perhaps of which split, and what belongs together."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thumbnet.data.columns import (
    IDS,
    IMAGE_TITLES,
    LABEL_TITLES,
    PICTURED,
    YES_OR_NO,
    columns_for,
    columns_named,
    first_called,
    forms_of,
    group_in,
    label_in,
    refuse_twins,
    shown_titles,
    split_in,
)  # fmt: skip
from thumbnet.data.finding import TO_CLASSIFY, TO_TRAIN_ON, find_pictures
from thumbnet.data.groups import facts_of_grouping, shared_groups, training_groups_by
from thumbnet.data.images import is_image_name, natural_key
from thumbnet.data.pack import MOST_CLASSES, SPLITS
from thumbnet.data.pictures import NAMED, Listing
from thumbnet.errors import UserError, unknown_name
from thumbnet.reading import read_table
from thumbnet.words import counted, shortened

ADVICE = "name the columns in the first line: image for the files, label for their classes, perhaps split and group"


@dataclass(frozen=True)
class Row:
    """One picture, as a table has it."""

    image: str  # a name, not yet found
    label: str
    split: str  # "" where the table does not say
    group: str  # "" where it belongs to none

    @property
    def path(self) -> str:
        """The name of the image with slashes, in which patterns are looked for."""
        return self.image.replace("\\", "/")


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table, and which of its columns were read: by what they are for, their titles."""

    path: Path
    rows: list[Row]
    columns: dict[str, str]
    unread: list[str]
    unlabelled: int = 0  # test images without a class, left out
    repeating: str = ""  # a column that is not read and may say what belongs together

    @property
    def splits(self) -> list[str]:
        """The split of each row; all are training images where the table does not say."""
        return [row.split or "train" for row in self.rows]


def list_table(path: Path, group_by: str = "", columns: str = "") -> Listing:
    """The pictures that a table names, in its order, below the folder that it lies in.

    Labels count the classes of the training images in natural order. `columns` names some of its columns (`columns_named`). In a
    table without one of groups, images in whose paths the regular expression `group_by` finds the same belong together.
    Raises `UserError` for a table that does not tell.
    """
    wanted = columns_named(columns)
    titles, cells = read_cells(path)
    for title in wanted.values():
        if title not in titles:
            raise UserError(f"{path}: {unknown_name('column', shortened(title), filter(None, titles))}")
    table = labels_in(path, titles, cells, wanted)
    classes = classes_of(table)
    places = {name: place for place, name in enumerate(classes)}
    files, note = files_of(table, TO_TRAIN_ON)
    rows, repeated = once_each(table, files)
    splits = [split for split in SPLITS if split in table.splits]
    parts = {split: [(file, row) for file, row in rows if (row.split or "train") == split] for split in splits}
    images = {split: [(file, places[row.label]) for file, row in part] for split, part in parts.items()}
    facts: dict[str, Any] = {"columns": table.columns, "unread_columns": table.unread}
    facts |= {"columns_named": columns} if wanted else {}
    groups: dict[str, list[str]] = {}
    if group_by:
        refuse_two_ways(table, group_by)
        groups = training_groups_by(group_by, {split: [row.path for _, row in part] for split, part in parts.items()})
        facts |= facts_of_grouping(group_by, groups)
    elif "group" in table.columns:
        groups = {split: [row.group for _, row in part] for split, part in parts.items()}
    told = {
        "repeated": repeated,
        "unlabelled": table.unlabelled,
        "shared_groups": shared_groups(groups),
        "found": note,
        "repeating": "" if group_by else table.repeating,
    }
    facts |= {name: value for name, value in told.items() if value}
    return Listing(path.parent, classes, images, groups=groups, facts=facts)


def refuse_two_ways(table: LabelTable, group_by: str) -> None:
    """Raise `UserError` where both a column and a pattern would say what belongs together."""
    if title := table.columns.get("group"):
        raise UserError(
            f"{table.path} has groups in its column {title!r}; leave out group_by {shortened(group_by)!r}, or that column"
        )


def files_of(table: LabelTable, order: Sequence[str]) -> tuple[list[str], str]:
    """The files that the rows of a table mean, and what to say of that."""
    found = find_pictures(table.path, [row.image for row in table.rows], [row.split for row in table.rows], order)
    return found.files, found.note


def once_each(table: LabelTable, files: Sequence[str]) -> tuple[list[tuple[str, Row]], int]:
    """Each file with its row, and how many rows said the same of one again. Raises `UserError` where they say something else."""
    seen: dict[str, Row] = {}
    repeated = 0
    for file, row in zip(files, table.rows, strict=True):
        first = seen.setdefault(file, row)
        if (first.label, first.split, first.group) != (row.label, row.split, row.group):
            told = [", ".join(filter(None, (one.label, one.split, one.group))) for one in (first, row)]
            raise UserError(
                f"{table.path} has two rows for {shortened(file)!r} that say something else: {shortened(told[0])} and "
                f"{shortened(told[1])}; an image has one class, one split and one group"
            )
        repeated += first is not row
    return list(seen.items()), repeated


def told_of_table(name: str, described: Mapping[str, Any]) -> list[str]:
    """What to say of a set that came by a table: columns that were not read, rows left out, which images were meant."""
    told = []
    if unread := described.get("unread_columns"):
        read = ", ".join(f"{title} ({purpose})" for purpose, title in described["columns"].items())
        others = ", ".join(map(shortened, unread[:NAMED])) + (", ..." if len(unread) > NAMED else "")
        told.append(f"of {name} {read} are read, and not {others}")
    if repeating := described.get("repeating"):
        told.append(
            f"words of {repeating} come again; if images that share one belong together, say so with --columns "
            f"{shlex.quote(f'group={repeating}')}"
        )
    if repeated := described.get("repeated"):
        told.append(f"{counted(repeated, 'row says', 'rows say')} again what another one says of the same image")
    if unlabelled := described.get("unlabelled"):
        told.append(
            f"{counted(unlabelled, 'test image without a class is', 'test images without a class are')} left out"
        )
    if note := described.get("found"):
        told.append(note)
    return told


def read_labels(path: Path, liked: Mapping[str, str]) -> LabelTable:
    """What a table says, no file looked for yet; columns of the titles `liked` are for what these say, where there are some."""
    return labels_in(path, *read_cells(path), liked)


def labels_in(
    path: Path, titles: Sequence[str], cells: Sequence[dict[str, str]], named: Mapping[str, str]
) -> LabelTable:
    """The same from its titles and rows, each cell checked."""
    columns = columns_of(path, titles, cells, named)
    one_hot = [] if "label" in columns else one_column_per_class(path, titles, columns, cells)
    rows = [read_row(path, columns, one_hot, row) for row in cells]
    if one_hot:
        columns = columns | {"label": f"one for each of {len(one_hot)} classes"}
    unread = [title for title in titles if title and title not in {*columns.values(), *one_hot}]
    labelled = [row for row in rows if row.label]
    repeating = "" if "group" in columns else first_repeating(unread, cells)
    return LabelTable(path, labelled, columns, unread, len(rows) - len(labelled), repeating)


def first_repeating(titles: Sequence[str], cells: Sequence[dict[str, str]]) -> str:
    """The first of these columns called an id, or what has several pictures, that has some words in several rows; "" of none."""
    for title in titles:
        words = [row[title].strip() for row in cells]
        forms = forms_of(title)
        is_id = any(form.endswith("id") or form in PICTURED for form in forms) and not first_called(
            [title], LABEL_TITLES
        )
        if is_id and 1 < len({*words}) < len(words):
            return title
    return ""


def read_images(path: Path) -> tuple[list[str], list[Path], str]:
    """What a table calls its pictures, in its order, where they are, and what to say of that; whatever classes it gives them."""
    titles, cells = read_cells(path)
    columns = columns_of(path, titles, cells, {})
    rows = [Row(image_in(path, columns, row), "", split_in(str(path), columns, row), "") for row in cells]
    table = LabelTable(path, rows, columns, [])
    files, note = files_of(table, TO_CLASSIFY)
    return [row.image for row in rows], [path.parent / file for file in files], note


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


def columns_of(
    path: Path, titles: Sequence[str], cells: Sequence[dict[str, str]], named: Mapping[str, str]
) -> dict[str, str]:
    """The title of the column for each purpose, as it is named where it is; "label" is missing where no single one tells it."""
    found = {purpose: title for purpose, title in named.items() if title in titles}
    if "image" not in found:
        found["image"] = image_column(path, [title for title in titles if title not in found.values()], cells)
    refuse_twins(path, titles, found)
    others = columns_for(path, [title for title in titles if title not in found.values()], cells)
    return {"image": found["image"]} | others | found


def image_column(path: Path, titles: Sequence[str], cells: Sequence[dict[str, str]]) -> str:
    """The column of the images: one with mostly file names before one of other words, one that is called so before another.

    Tables often have a running number called `id` beside the path of the file.
    """
    if any(map(is_image_name, titles)):  # the first line is one like the others
        raise UserError(f"{path} does not name its columns, its first line has {shown_titles(titles)}; {ADVICE}")
    of_files = [title for title in titles if title and 2 * sum(is_file_name(row[title]) for row in cells) > len(cells)]
    only = of_files[0] if len(of_files) == 1 else None
    ways = (first_called(of_files, IMAGE_TITLES), first_called(titles, IMAGE_TITLES), only, first_called(titles, IDS))
    chosen = next((title for title in ways if title), None)
    if chosen is None:
        raise UserError(f"{path} does not say which column has the images; {ADVICE} (it has {shown_titles(titles)})")
    return chosen


def is_file_name(cell: str) -> bool:
    """Whether this is the name of an image file and no address elsewhere."""
    return "://" not in cell and is_image_name(cell.strip().replace("\\", "/").rpartition("/")[2])


def one_column_per_class(
    path: Path, titles: Sequence[str], columns: dict[str, str], cells: Sequence[dict[str, str]]
) -> list[str]:
    """The titles that are classes, of a table with 1 in the column of each image's class and 0 in the others."""
    others = [title for title in titles if title and title not in columns.values()]
    marked = [title for title in others if all(row[title].strip().casefold() in YES_OR_NO for row in cells)]
    if len(marked) < 2:
        raise UserError(
            f"{path} does not say which column has the classes; name it, as in --columns label=species, or call it label "
            f"(it has {shown_titles(titles)})"
        )
    return marked


def read_row(path: Path, columns: dict[str, str], one_hot: Sequence[str], cells: dict[str, str]) -> Row:
    """One row, its words as they are meant; the label is "" for a test image without one."""
    image = image_in(path, columns, cells)
    who = f"{path}, {shortened(image)!r}"
    split = split_in(who, columns, cells)
    chosen = [title for title in one_hot if YES_OR_NO[cells[title].strip().casefold()]]
    if one_hot and len(chosen) != 1 and (chosen or split != "test"):
        raise UserError(f"{who}: it has {len(chosen)} classes; each image needs just one")
    label = "".join(chosen) if one_hot else label_in(who, columns, cells, split)
    return Row(image, label, split, group_in(columns, cells))


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


def classes_of(table: LabelTable) -> list[str]:
    """The classes of the training images, in natural order; those of all others must be among them."""
    counts = Counter(table.splits)
    if not counts["train"]:
        column = table.columns.get("split", "split")
        raise UserError(f"{table.path} has no training image; write train into the column {column!r} of some")
    labels = {
        split: {row.label for row, own in zip(table.rows, table.splits, strict=True) if own == split}
        for split in SPLITS
    }
    classes = sorted(labels["train"], key=natural_key)
    if not 2 <= len(classes) <= MOST_CLASSES:
        told = counted(len(classes), "class", "classes")
        raise UserError(
            f"{table.path} has {told} of training images, {shortened(classes[0])!r}; a classifier needs 2 to {MOST_CLASSES:,}"
        )
    if len(classes) == counts["train"] > 2:
        raise UserError(
            f"{table.path}: its {len(classes):,} training labels, in column {table.columns['label']!r}, are all different; "
            "give the class of each image"
        )
    for split, found in labels.items():
        for name in sorted(found - labels["train"], key=natural_key):
            unknown = unknown_name("class", name, classes)
            raise UserError(
                f"{table.path} has a {split} image of a class that no training image has, in column {table.columns['label']!r}: "
                f"{unknown}"
            )
    return classes
