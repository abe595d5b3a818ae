"""Images that belong together, such as those of one patient."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from thumbnet.data.columns import folded
from thumbnet.data.pack import IN_WORDS, SPLITS
from thumbnet.errors import UserError
from thumbnet.words import counted, shortened

# What joins the name of a series to a running number or a letter, as in B017_3, 12-b or P4 (2).
SIGNS = "_- "
RUNNING = re.compile(r"\(?(?:\d{1,5}|[A-Za-z])\)?")
LARGEST_SERIES = 60  # pictures, on average; more are a class or a day's work, hardly one animal
FEWEST_SERIES = 3  # of a class, on average


def numbered(groups: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[int]], list[str]]:
    """The groups of the images of each split as numbers, and the name of each number; "" is a group of its own each time.

    The same name is the same number in all splits. Those of the training images come first, so that other splits change none.
    """
    numbers: dict[str | tuple[str, int], int] = {}
    found = {
        split: [numbers.setdefault(name or (split, place), len(numbers)) for place, name in enumerate(groups[split])]
        for split in sorted(groups, key=SPLITS.index)
        if split == "train" or any(groups[split])
    }
    return found, [name if isinstance(name, str) else "" for name in numbers]


def groups_by(pattern: str, paths: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By split, the group of each image: what a regular expression finds in its path, or what its parentheses hold of that.

    "" where it finds nothing. Raises `UserError` where it is no regular expression.
    """
    try:
        search = re.compile(pattern).search
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"group_by {shortened(pattern)!r} is no regular expression: {error}; correct it") from error
    return {split: [group_of(search(path)) for path in names] for split, names in paths.items()}


def group_of(match: "re.Match[str] | None") -> str:
    """The group that a pattern found, "" if none."""
    if match is None:
        return ""
    parts = match.groups("") or (match[0],)
    return folded("/".join(parts).strip()) if any(parts) else ""


def training_groups_by(pattern: str, paths: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The same, of a set that is trained on: raises `UserError` unless some training images belong together then."""
    groups = groups_by(pattern, paths)
    names = [name for name in groups["train"] if name]
    if len(set(groups["train"])) == 1 and names:
        raise UserError(
            f"group_by {shortened(pattern)!r} puts all training images together, for it finds {shortened(repr(names[0]))} in "
            "each; give a regular expression for what the paths of those that belong together share"
        )
    if len(set(names)) == len(names):
        first, found = (shortened(repr(name)) for name in (paths["train"][0], groups["train"][0]))
        finds = f"finds {found} in {first}, and nothing twice" if groups["train"][0] else f"finds nothing in {first}"
        raise UserError(
            f"group_by {shortened(pattern)!r} puts no two training images together: it {finds}; give a regular expression for "
            "what the paths of those that belong together share"
        )
    return groups


def facts_of_grouping(pattern: str, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a set whose groups a pattern tells says of them, JSON."""
    found: dict[str, Any] = {"group_by": pattern, "shared_groups": shared_groups(groups)}
    counts = {split: sum(not name for name in names) for split, names in groups.items()}
    found["ungrouped"] = {split: count for split, count in counts.items() if count}
    return {name: value for name, value in found.items() if value}


def pattern_of_series(classes: Mapping[int, Sequence[str]]) -> str:
    """What `group_by` could be, from the paths below the folder of each class: by deeper folders, or by names in series.

    "" where there is nothing of the kind: an average class needs `FEWEST_SERIES`, with two pictures or more on average.
    """
    paths = [(label, path) for label, names in classes.items() for path in names]
    by_folder = [(label, path.rpartition("/")[0]) for label, path in paths if "/" in path]
    if len(by_folder) == len(paths) and are_series(by_folder, len(classes)):
        return "(.+)/"
    for sign in SIGNS:
        found = [(label, series) for label, path in paths if (series := series_of(path, sign))]
        if 2 * len(found) > len(paths) and are_series(found, len(classes)):
            return f"([^/]+){sign}"
    return ""


def series_of(path: str, sign: str) -> str:
    """What the name of a file shares with others of its series, "" where it does not look like one."""
    series, _, rest = path.rpartition("/")[2].rpartition(".")[0].rpartition(sign)
    return series if RUNNING.fullmatch(rest) and any(map(str.isdigit, series)) else ""


def are_series(series: Sequence[tuple[int, str]], classes: int) -> bool:
    """Whether series, by class and name of each picture, may well be one thing each, such as an animal.

    Names that come again in another class do not tell that from this one, and no pattern could.
    """
    different = set(series)
    apart = len({name for _, name in different}) == len(different)
    return (
        apart
        and len(different) >= FEWEST_SERIES * classes
        and (2 * len(different) <= len(series) <= LARGEST_SERIES * len(different))
    )


def shared_groups(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many groups of the training images there are in each other split, too."""
    trained_on = {name for name in groups.get("train", ()) if name}
    found = {split: len(trained_on & set(names)) for split, names in groups.items() if split != "train"}
    return {split: count for split, count in found.items() if count}


def told_of_grouping(described: Mapping[str, Any]) -> list[str]:
    """What to say of a set whose groups the paths tell, or may tell: by what, and how many images are of none."""
    told = [
        f"group_by finds nothing in the paths of {counted(count, IN_WORDS[split] + ' image')}; each counts as alone"
        for split, count in described.get("ungrouped", {}).items()
    ]
    if pattern := described.get("series"):
        told.append(
            f"the pictures seem to come in series; if those of one show the same animal, patient or the like, keep them together "
            f"with --group-by {shlex.quote(pattern)}"
        )
    return told


def of_groups(count: int | None) -> str:
    """What follows the number of some images: ` of 15 groups`, or nothing where none was named."""
    return "" if count is None else f" of {counted(count, 'group')}"


def told_of_groups(shared: Mapping[str, int]) -> list[str]:
    """A sentence on each split that shares groups with the training images."""
    return [
        f"{counted(count, 'group has', 'groups have')} training and {split} images; what is measured on these looks too good"
        for split, count in shared.items()
    ]
