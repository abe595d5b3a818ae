"""What the columns of a table of images are for, by what they are called."""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from thumbnet.data.pack import SPLIT_OF_NAME
from thumbnet.words import shortened

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
TITLES = {"label": LABEL_TITLES, "split": SPLIT_TITLES, "group": GROUP_TITLES}
SPLIT_IN_TABLE = SPLIT_OF_NAME | {"publictest": "validation", "privatetest": "test"}  # the last two: FER2013's
NO_GROUP = ("", "nan", "na", "n/a", "null", "none")  # an image of none, as programs write it
YES = dict.fromkeys(("1", "1.0", "yes", "true"), True)
YES_OR_NO = YES | dict.fromkeys(("", "0", "0.0", "no", "false"), False)
SHOWN = 8  # titles in a sentence


def is_table(path: str | Path) -> bool:
    """Whether the name is that of a table, a .csv file."""
    return Path(path).suffix.casefold() in (".csv", ".tsv")


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


def plain(name: str) -> str:
    """A name as tables have it: without regard to case, letters with accents in one code rather than two."""
    return normalize("NFC", name).casefold()
