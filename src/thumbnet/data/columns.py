"""What the columns of a table of images are for, by what they are called."""

from collections.abc import Sequence
from pathlib import Path

from thumbnet.data.pack import SPLIT_OF_NAME

# Without regard to case, spaces, `_`, `-`, `.` and a final s; the first that a table has is taken. Seen in tables of
# competitions, of annotation programs and of Hugging Face's image folders (file_name).
IMAGE_TITLES = ("image", "filename", "file", "filepath", "imagepath", "path", "imagename", "imagefile", "imageid", "img",
                "id", "fname", "name")  # fmt: skip
LABEL_TITLES = ("label", "class", "classes", "classname", "category", "target", "species", "breed", "diagnosis", "dx",
                "classid", "categories")  # fmt: skip
SPLIT_TITLES = ("split", "subset", "dataset", "set", "partition", "usage")
GROUP_TITLES = ("group", "groupid", "patient", "patientid", "subject", "subjectid", "lesionid")
TITLES = {"image": IMAGE_TITLES, "label": LABEL_TITLES, "split": SPLIT_TITLES, "group": GROUP_TITLES}
SPLIT_IN_TABLE = SPLIT_OF_NAME | {"publictest": "validation", "privatetest": "test"}  # the last two: FER2013's


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
