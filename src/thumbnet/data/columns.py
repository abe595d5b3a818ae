"""What the columns of a table of images are for, by what they are called, and what its cells mean."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from thumbnet.data.pack import SPLIT_OF_NAME
from thumbnet.errors import UserError, unknown_name
from thumbnet.words import printable, shortened

# Without regard to case, spaces, `_`, `-`, `.` and a final s; the first that a table has is taken. Seen in tables of
# competitions, of annotation programs and of Hugging Face's image folders (file_name).
IMAGE_TITLES = ("image", "filename", "file", "filepath", "imagepath", "path", "imagename", "imagefile", "imageid", "img",
                "imgpath", "relativepath", "fname")  # fmt: skip
IDS = ("id", "name")  # may be the image or a running number
LABEL_TITLES = ("label", "class", "classes", "classname", "category", "target", "species", "breed", "diagnosis", "dx",
                "classid", "categories")  # fmt: skip
SPLIT_TITLES = ("split", "subset", "dataset", "set", "partition", "usage")
GROUP_TITLES = ("group", "groupid", "patient", "patientid", "patientnumber", "subject", "subjectid", "participant",
                "participantid", "person", "personid", "lesionid", "video", "videoid")  # fmt: skip
# What may have several pictures, so that words which come again are worth a hint; but it may as well be a class.
PICTURED = ("individual", "specimen", "animal", "plant", "tree", "colony", "donor", "sample", "slide", "site", "plot", "camera",
            "session", "sequence", "clip", "batch", "object", "instance", "identity", "author", "writer")  # fmt: skip
PURPOSES = ("image", "label", "split", "group")
SPLIT_IN_TABLE = SPLIT_OF_NAME | {"publictest": "validation", "privatetest": "test"}  # the last two: FER2013's
WHOLE = re.compile(r"^(\d+)\.0+$")  # a whole number in a column that misses some, as pandas writes it
NO_GROUP = ("", "nan", "na", "n/a", "null", "none")  # an image of none, as programs write it
NO_LABEL = ("", "nan")  # other such words may be classes
YES = dict.fromkeys(("1", "1.0", "yes", "true"), True)
YES_OR_NO = YES | dict.fromkeys(("", "0", "0.0", "no", "false"), False)
SHOWN = 8  # titles in a sentence


def is_table(path: str | Path) -> bool:
    """Whether the name is that of a table, a .csv file, and no folder's."""
    return Path(path).suffix.casefold() in (".csv", ".tsv") and not os.path.isdir(path)


def columns_named(text: str) -> dict[str, str]:
    """Titles by what their columns are for, from `label=species,group=bird_id`, where "a part" with a comma may be quoted.

    Raises `UserError` for anything else.
    """
    named: dict[str, str] = {}
    parts = next(csv.reader([text], skipinitialspace=True), [])
    for part in filter(None, map(str.strip, parts)):
        purpose, sign, title = (word.strip() for word in part.partition("="))
        if not sign or not title:
            raise UserError(
                f"columns has {shortened(part)!r}; give what a column is for and its title, as in label=species"
            )
        if purpose not in PURPOSES:
            raise UserError(f"columns: {unknown_name('purpose', shortened(purpose), PURPOSES)}")
        if purpose in named:
            raise UserError(f"columns names two columns for {purpose}, {named[purpose]!r} and {title!r}; give one")
        if title in named.values():
            raise UserError(f"columns names {title!r} twice; each column is for one thing")
        named[purpose] = title
    return named


def columns_as_text(named: Mapping[str, str]) -> str:
    """What `columns_named` reads."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([f"{purpose}={title}" for purpose, title in named.items()])
    return text.getvalue()


def columns_for(path: Path, titles: Sequence[str], rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The titles of the columns for label, split and group, as far as there are such; for labels the only other one will do.

    Raises `UserError` where two columns have the same title.
    """
    telling = [title for title in titles if title and tells_splits(title, rows)]
    found = {
        "label": first_called(titles, LABEL_TITLES),
        "split": first_called(telling, SPLIT_TITLES),
        "group": first_called(titles, GROUP_TITLES),
    }
    columns = {purpose: title for purpose, title in found.items() if title is not None}
    others = [title for title in titles if title and title not in columns.values()]
    if "label" not in columns and len(others) == 1:
        columns["label"] = others[0]
    refuse_twins(path, titles, columns)
    return columns


def refuse_twins(path: Path, titles: Sequence[str], columns: Mapping[str, str]) -> None:
    """Raise `UserError` where a column that is read has the title of another."""
    for title in columns.values():
        if list(titles).count(title) > 1:
            raise UserError(f"{path} has two columns {shortened(title)!r}; rename one")


def tells_splits(title: str, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether some words of a column are splits: `dataset` may as well be where an image comes from."""
    return any(row[title].strip().casefold() in SPLIT_IN_TABLE for row in rows)


def label_in(who: str, columns: Mapping[str, str], cells: Mapping[str, str], split: str) -> str:
    """The class of an image; "" for a test image without one."""
    label = normalize("NFC", printable(cells[columns["label"]].strip()))
    if label.casefold() not in NO_LABEL:
        return label
    if split != "test":
        raise UserError(f"{who}: it has no class; add it or delete the row")
    return ""


def split_in(who: str, columns: Mapping[str, str], cells: Mapping[str, str]) -> str:
    """The split of an image; "" in a table that does not say."""
    if "split" not in columns:
        return ""
    word = cells[columns["split"]].strip()
    if word.casefold() not in SPLIT_IN_TABLE:
        raise UserError(f"{who}: its split is {shortened(word)!r}; give train, validation or test")
    return SPLIT_IN_TABLE[word.casefold()]


def group_in(columns: Mapping[str, str], cells: Mapping[str, str]) -> str:
    """The group of an image; "" where it is of none."""
    return group_named(cells[columns["group"]]) if "group" in columns else ""


def group_named(text: str) -> str:
    """A group as it is told from others: in any letters, 12.0 as 12; "" where the word says that there is none."""
    name = WHOLE.sub(r"\1", folded(text.strip()))
    return "" if name in NO_GROUP else name


def first_called(titles: Sequence[str], known: Sequence[str]) -> str | None:
    """The title that is called by the first of the `known` names that one is called by; None where none is."""
    return next((title for name in known for title in titles if title and name in forms_of(title)), None)


def forms_of(title: str) -> set[str]:
    """How a title may be meant: in small letters without what joins words, with and without the s of a plural."""
    plain = "".join(letter for letter in title.casefold() if letter not in " _-.")
    return {plain, plain.removesuffix("s")}


def shown_titles(titles: Sequence[str]) -> str:
    """The first titles of a table, for a sentence."""
    return ", ".join(repr(shortened(title)) for title in titles[:SHOWN]) + (", ..." if len(titles) > SHOWN else "")


def folded(name: str) -> str:
    """A name without regard to case, letters with accents in one code rather than two."""
    return normalize("NFC", name).casefold()
