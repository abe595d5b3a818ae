"""Where the pictures that a table names are, below the folder that it lies in."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thumbnet.data.columns import folded
from thumbnet.data.images import natural_key, walk
from thumbnet.data.pack import SPLIT_OF_NAME
from thumbnet.errors import UserError
from thumbnet.words import shortened

# In which split to look for images of which the table does not say it: of those to train on, and of those to be classified.
TO_TRAIN_ON = ("train", "validation", "test")
TO_CLASSIFY = ("test", "validation", "train")


@dataclass(frozen=True)
class FoundPictures:
    """The files that were meant, below the folder, with forward slashes; of a name that is nowhere the path it would have."""

    files: list[str]
    note: str = ""  # which of several was meant


def find_pictures(path: Path, names: Sequence[str], splits: Sequence[str], order: Sequence[str]) -> FoundPictures:
    """The files that the table at `path` means by `names`, each of the split that it says, "" where it says none.

    A name is a path from the table's folder. Where there is no such file, one that is called so, with or without its ending, is
    looked for at any depth: in folders that are called as its split or, if none of them has it, in folders that are called as no
    split. Images of no split are all looked for in the first of the splits in `order` that has one of them. Raises `UserError`
    where it cannot be known which is meant, or all are nowhere.
    """
    folder = path.parent
    files = [os.path.normpath(name.replace("\\", "/")) for name in names]
    files = [below(folder, file) if os.path.isabs(file) else file for file in files]
    elsewhere = [place for place, file in enumerate(files) if not os.path.isfile(os.path.join(folder, file))]
    if not elsewhere:
        return FoundPictures(files)
    known = by_ends(images_below(folder))
    candidates = {place: known.get(folded(files[place]), []) for place in elsewhere}
    loose = [place for place in elsewhere if not splits[place]]
    assumed = assumed_split(path, {names[place]: candidates[place] for place in loose}, order)
    meant = {place: of_split(candidates[place], splits[place] or assumed) for place in elsewhere}
    for place, some in meant.items():
        if len(some) > 1:
            raise UserError(
                f"{path} names {shortened(names[place])!r}, and there are several, {some[0]} and {some[1]}; write the path, "
                f"from {folder} on"
            )
    if len(elsewhere) == len(names) and not any(meant.values()):
        raise UserError(
            f"{path} names images such as {shortened(names[0])!r}, and none of them is at or below {folder}; "
            f"{hint(files[0], known, folder)}"
        )
    for place, some in meant.items():
        files[place] = some[0] if some else files[place]
    others = any(len(candidates[place]) > len(meant[place]) > 0 for place in loose)
    told = (
        f"images of one name are in several folders; those of {assumed}, not of other splits, are taken"
        if others
        else ""
    )
    return FoundPictures(files, told)


def below(folder: Path, file: str) -> str:
    """A path from the root as one from the folder; ".." is then what it is to the system, which follows links."""
    own = os.path.abspath(folder)
    if file.startswith(os.path.join(own, "")):
        return os.path.relpath(file, own)
    return os.path.relpath(file, os.path.realpath(folder))


def images_below(folder: Path) -> list[str]:
    """The images at any depth."""
    return [os.path.relpath(entry.path, folder).replace(os.sep, "/") for entry, is_image in walk(folder) if is_image]


def by_ends(files: Iterable[str]) -> dict[str, list[str]]:
    """Files by the ends of their paths, `1.png` and `a/1.png` and so on, and these without the ending of the name."""
    known: dict[str, list[str]] = {}
    for file in files:
        whole = folded(file)
        for form in {whole, os.path.splitext(whole)[0]}:
            parts = form.split("/")
            for first in range(len(parts)):
                known.setdefault("/".join(parts[first:]), []).append(file)
    return known


def of_split(candidates: Sequence[str], split: str) -> list[str]:
    """Those in a folder that is called as the split; where there is none, those in no folder that is called as any."""
    own = [name for name in candidates if split in splits_in(name)]
    return own or [name for name in candidates if not splits_in(name)]


def assumed_split(path: Path, candidates: Mapping[str, Sequence[str]], order: Sequence[str]) -> str:
    """The first split that has one of the images of which the table does not say it.

    Raises `UserError` for images to be classified where another split has more of them: either may be meant.
    """
    has = {split: {name for name, some in candidates.items() if of_split(some, split)} for split in order}
    first = next((split for split in order if has[split]), order[0])
    most = max(order, key=lambda split: len(has[split]))
    if order == TO_CLASSIFY and len(has[most]) > len(has[first]):
        name = min(has[most] - has[first], default="", key=natural_key)
        raise UserError(
            f"{path} names images of which some are in {first} and {most}, and others such as {shortened(name)!r} in {most} "
            f"only; write the path, from {path.parent} on"
        )
    return first


def splits_in(name: str) -> list[str]:
    """The splits that folders on the way to a file are called by."""
    return [SPLIT_OF_NAME[part.casefold()] for part in name.split("/")[:-1] if part.casefold() in SPLIT_OF_NAME]


def hint(file: str, known: dict[str, list[str]], folder: Path) -> str:
    """What to do where an image is nowhere: one of the same name in another folder, or with another ending, may be meant."""
    last = folded(file).rpartition("/")[2]
    near: Iterable[str] = (*known.get(last, ()), *known.get(os.path.splitext(last)[0], ()))
    for one in near:
        return f"is {one!r} meant? names are paths from {folder} on"
    return "put the table where the names begin, or correct them"
