"""A folder of pictures: FOLDER/<class>/*, or FOLDER/{train,val,test}/<class>/*, or the first with test/ or val/ beside."""

import os
from collections.abc import Set
from pathlib import Path

from thumbnet.data.columns import is_table
from thumbnet.data.groups import facts_of_grouping, pattern_of_series, training_groups_by
from thumbnet.data.images import FORMATS_IN_WORDS, entries, is_folder, is_image_name, walk
from thumbnet.data.pack import SPLIT_OF_NAME, SPLITS
from thumbnet.data.pictures import Listing
from thumbnet.errors import UserError, unknown_name
from thumbnet.words import printable

EXPECTED = "expected FOLDER/<class>/<images> or FOLDER/train/<class>/<images>"


def list_folder(folder: Path, group_by: str = "") -> Listing:
    """Find splits, classes and images, and everything that is passed over. Raises `UserError` for another shape.

    Labels count the training class folders in natural order; other splits are matched to them by name. Images in whose paths
    below their class the regular expression `group_by` finds the same belong together.
    """
    if not os.path.exists(folder):
        raise UserError(f"no such folder: {folder}; {EXPECTED}")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder; {EXPECTED}")
    splits, passed_over = find_splits(folder)
    by_class = {}
    for split, path in splits.items():
        by_class[split], others = find_classes(path, {other for other in splits.values() if other != path})
        passed_over += others
    classes = check_classes(splits, by_class)
    images = {
        split: [
            (relative(folder, image.path), label) for label, name in enumerate(classes) for image in found.get(name, [])
        ]
        for split, found in by_class.items()
    }
    for split, rows in images.items():
        if not rows:
            raise UserError(f"no image in {splits[split]}; add {FORMATS_IN_WORDS} files or remove the folder")
    below = {split: [below_class(splits[split], folder, file) for file, _ in rows] for split, rows in images.items()}
    passed = [relative(folder, entry.path) for entry in passed_over]
    if group_by:
        groups = training_groups_by(group_by, below)
        return Listing(folder, classes, images, passed, groups, facts_of_grouping(group_by, groups))
    of_classes: dict[int, list[str]] = {}
    for (_, label), name in zip(images["train"], below["train"], strict=True):
        of_classes.setdefault(label, []).append(name)
    pattern = pattern_of_series(of_classes)
    return Listing(folder, classes, images, passed, facts={"series": pattern} if pattern else {})


def find_splits(folder: Path) -> tuple[dict[str, Path], list[os.DirEntry[str]]]:
    """The folder of each split, and what lies beside them. Without a train folder, `folder` itself is the train split.

    A folder named `train` beside classes, and with images directly in it, is a class: trains among cars and planes. One named
    `test` beside them is a split where it holds a folder of one of these classes.
    """
    inside = entries(folder)
    folders = [entry for entry in inside if is_folder(entry)]
    holders = {split: [entry for entry in folders if split_of(entry) == split] for split in SPLITS}
    holders = {split: found for split, found in holders.items() if found}
    named = [entry for found in holders.values() for entry in found]
    only_splits = bool(named) and len(named) == len(folders)
    if "train" not in holders:
        if only_splits:
            raise UserError(f"{folder} has {', '.join(entry.name for entry in named)} but no train folder; {EXPECTED}")
        classes = {entry.name.casefold() for entry in folders if entry not in named}
        return {"train": folder, **one_each({s: f for s, f in holders.items() if hold_classes(f, classes)})}, []
    train_has_folders = any(is_folder(entry) for entry in entries(holders["train"][0].path))
    if not (only_splits or len(holders) > 1 or train_has_folders):
        return {"train": folder}, []
    return one_each(holders), [entry for entry in inside if entry not in named]


def one_each(holders: dict[str, list[os.DirEntry[str]]]) -> dict[str, Path]:
    """The one folder of each split. Raises `UserError` where there are two."""
    for split, found in holders.items():
        if len(found) > 1:
            raise UserError(f"both {found[0].path} and {found[1].path} hold the {split} split; remove one of them")
    return {split: Path(found[0].path) for split, found in holders.items()}


def hold_classes(holders: list[os.DirEntry[str]], classes: set[str]) -> bool:
    """Whether these folders hold one of the classes, in any letters; another name in them is then refused as no class."""
    return any(
        is_folder(entry) and entry.name.casefold() in classes for holder in holders for entry in entries(holder.path)
    )


def split_of(entry: os.DirEntry[str]) -> str | None:
    """The split that a folder's name stands for."""
    return SPLIT_OF_NAME.get(entry.name.casefold())


def find_classes(
    folder: Path, splits: Set[Path] = frozenset()
) -> tuple[dict[str, list[os.DirEntry[str]]], list[os.DirEntry[str]]]:
    """The images of each class folder, by class in natural order, and what is passed over; `splits` beside them are neither."""
    inside = [entry for entry in entries(folder) if Path(entry.path) not in splits]
    found: dict[str, list[os.DirEntry[str]]] = {}
    passed_over = [entry for entry in inside if not is_folder(entry)]
    for entry in inside:
        if is_folder(entry):
            below = list(walk(entry.path))
            found[printable(entry.name)] = [image for image, is_image in below if is_image]
            passed_over += [other for other, is_image in below if not is_image]
    if found:
        return found, passed_over
    if tables := [entry.name for entry in inside if is_table(entry.name)]:
        raise UserError(
            f"{folder} has no class folder, and a table, {tables[0]}; if it says which image is of which class, give "
            f"{Path(folder) / tables[0]}"
        )
    direct = [entry.name for entry in inside if is_image_name(entry.name)]
    if direct:
        raise UserError(
            f"images such as {direct[0]} lie directly in {folder}, without class folders; "
            f"put each into a folder named by its class"
        )
    raise UserError(f"{folder} {'has no class folder' if inside else 'is empty'}; {EXPECTED}")


def check_classes(splits: dict[str, Path], by_class: dict[str, dict[str, list[os.DirEntry[str]]]]) -> list[str]:
    """The class names in label order: those of the train split, and every other split's must be among them."""
    classes = list(by_class["train"])
    if len(classes) == 1:
        raise UserError(
            f"{splits['train']} has only one class folder, {classes[0]!r}; a classifier needs at least 2 "
            f"(if the classes lie deeper, give {splits['train'] / classes[0]})"
        )
    for name, images in by_class["train"].items():
        if not images:
            raise UserError(
                f"class folder {splits['train'] / name} has no {FORMATS_IN_WORDS} image; add some or remove the folder"
            )
    for split, found in by_class.items():
        for name in found:
            if name not in by_class["train"]:
                raise UserError(f"{splits[split]} has a class that train lacks: {unknown_name('class', name, classes)}")
    return classes


def below_class(split: Path, folder: Path, file: str) -> str:
    """The path of a file below the folder of its class, from that below `folder`."""
    return relative(split, os.path.join(folder, file)).partition("/")[2]


def relative(folder: Path, path: str) -> str:
    """The path below `folder`, with forward slashes."""
    return path.removeprefix(os.path.join(folder, "")).replace(os.sep, "/")
