"""Images that belong together, such as those of one patient."""

from collections.abc import Mapping, Sequence

from thumbnet.words import counted


def numbered(groups: Sequence[str]) -> list[int]:
    """The groups of images as numbers, the same name the same number; "" is a group of its own each time."""
    numbers: dict[str | int, int] = {}
    return [numbers.setdefault(name or place, len(numbers)) for place, name in enumerate(groups)]


def shared_groups(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many groups of the training images there are in each other split, too."""
    trained_on = {name for name in groups.get("train", ()) if name}
    found = {split: len(trained_on & set(names)) for split, names in groups.items() if split != "train"}
    return {split: count for split, count in found.items() if count}


def of_groups(count: int | None) -> str:
    """What follows the number of some images: ` of 15 groups`, or nothing where none was named."""
    return "" if count is None else f" of {counted(count, 'group')}"


def told_of_groups(shared: Mapping[str, int]) -> list[str]:
    """A sentence on each split that shares groups with the training images."""
    return [
        f"{counted(count, 'group has', 'groups have')} training and {split} images; what is measured on these looks too good"
        for split, count in shared.items()
    ]
