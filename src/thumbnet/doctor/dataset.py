"""The state of a data set: what is there twice, empty, out of balance or of an odd kind."""
# Shapes: N images, C channels, H and W height and width.

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thumbnet.data.balance import counts_by_class, few_images, uneven
from thumbnet.data.groups import told_of_grouping, told_of_groups
from thumbnet.data.pictures import left_out
from thumbnet.doctor.duplicates import DuplicatePair, Place, exact_duplicates, near_duplicates
from thumbnet.doctor.labels import CheckedLabels
from thumbnet.progress import Progress, no_progress
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

NAMED = 3  # images in a sentence
MODE_NAMES = {"1": "black and white", "L": "grey", "P": "palette", "LA": "grey with alpha"}  # of Pillow's modes


@dataclass(frozen=True)
class Diagnosis:
    """What was found. `near` leaves out the exact ones.

    `leaked` counts test images that training or validation has too, or nearly, `leaked_validation` validation images of a
    split of their own that training has.
    """

    name: str
    images: dict[str, int]  # by split
    exact: tuple[tuple[Place, ...], ...]  # groups with the same pixels
    conflicting: tuple[tuple[Place, ...], ...]  # those of these groups whose members have different labels
    near: tuple[DuplicatePair, ...]
    leaked_exact: int  # test images whose pixels are in the training or validation images
    leaked: int  # test images with an exact or near duplicate there
    leaked_validation_exact: int  # validation images whose pixels are in the training images
    leaked_validation: int  # validation images with an exact or near duplicate there
    constant: tuple[Place, ...]  # images of one colour
    balance: dict[str, dict[str, int]]  # images by split and class
    sizes: dict[str, int]  # folders: files by width x height
    modes: dict[str, int]  # folders: files by kind of pixel
    broken: tuple[str, ...]
    ignored: tuple[str, ...]
    shared_groups: dict[str, int]  # groups of the training images that another split has too, by split
    files: Mapping[str, Sequence[str]]  # folders: the file of each image, by split
    labels: CheckedLabels | None = None  # None: not looked for
    grouping: tuple[str, ...] = ()  # what to say of images whose names may tell, or tell, what belongs together

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a place in a folder with its file."""
        return with_files(
            {field.name: getattr(self, field.name) for field in fields(self) if field.name != "files"}, self.files
        )


def with_files(value: Any, files: Mapping[str, Sequence[str]]) -> Any:
    """Plain values in place of dataclasses, at any depth; a `Place` gets the name of its file where it has one."""
    if isinstance(value, Place):
        return asdict(value) | ({"file": files[value.split][value.row]} if value.split in files else {})
    if isinstance(value, dict):
        return {key: with_files(part, files) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [with_files(part, files) for part in value]
    if is_dataclass(value):
        return {field.name: with_files(getattr(value, field.name), files) for field in fields(value)}
    return value


def examine_dataset(data: "Dataset", progress: Progress = no_progress) -> Diagnosis:
    """Look at every image of every split, the test images too: no network is measured on them, so nothing is counted.

    `progress` is told what is done, how much of it, and all there is.
    """
    splits = stored_splits(data)
    images = {name: pixels for name, (pixels, _) in splits.items()}
    labels = {name: truth for name, (_, truth) in splits.items()}
    exact = exact_duplicates(images)
    near = near_duplicates(images, labels, progress)
    truths = [{int(labels[place.split][place.row]) for place in group} for group in exact]
    sizes, modes = kinds_of_files(data)
    copies = {group[0]: group for group in exact}  # of which one stands for all in `near`
    alike = [[*copies.get(pair.first, [pair.first]), *copies.get(pair.second, [pair.second])] for pair in near]
    leaked_exact, leaked = leaked_images("test", exact, alike)
    leaked_validation_exact, leaked_validation = leaked_images("validation", exact, alike)
    return Diagnosis(
        name=data.name,
        images={name: len(pixels) for name, pixels in images.items()},
        exact=tuple(map(tuple, exact)),
        conflicting=tuple(tuple(group) for group, kinds in zip(exact, truths, strict=True) if len(kinds) > 1),
        near=tuple(near),
        leaked_exact=leaked_exact,
        leaked=leaked,
        leaked_validation_exact=leaked_validation_exact,
        leaked_validation=leaked_validation,
        constant=tuple(constant_images(images)),
        balance={name: counts_by_class(truth, data.classes) for name, truth in labels.items()},
        sizes=sizes,
        modes=modes,
        broken=tuple(data.facts.get("broken", ())),
        ignored=tuple(data.facts.get("ignored", ())),
        shared_groups=data.facts.get("shared_groups", {}),
        grouping=tuple(told_of_grouping(data.facts)),
        files=data.files,
    )


def stored_splits(data: "Dataset") -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Images uint8 N C H W and labels N of each split as it is stored, before any part is held out."""
    test = None if data.test is None else data.test.unlock()
    splits = {"train": data.development, "validation": data.own_validation, "test": test}
    return {name: (split.images.numpy(), split.labels.numpy()) for name, split in splits.items() if split is not None}


def leaked_images(split: str, exact: Sequence[Sequence[Place]], alike: Sequence[Sequence[Place]]) -> tuple[int, int]:
    """How many images of `split` are together with one that was there before: in groups of equal ones, in groups of any kind."""
    before = {"validation": {"train"}, "test": {"train", "validation"}}[split]

    def leaked(groups: Sequence[Sequence[Place]]) -> set[int]:
        together = [group for group in groups if before & {place.split for place in group}]
        return {place.row for group in together for place in group if place.split == split}

    return len(leaked(exact)), len(leaked(exact) | leaked(alike))


def constant_images(images: dict[str, NDArray[np.uint8]]) -> list[Place]:
    """The images whose every channel has one value."""
    found = []
    for split, pixels in images.items():
        flat = pixels.reshape(*pixels.shape[:2], -1)
        constant = (flat.min(axis=2) == flat.max(axis=2)).all(axis=1)
        found += [Place(split, int(row)) for row in np.flatnonzero(constant)]
    return found


def kinds_of_files(data: "Dataset") -> tuple[dict[str, int], dict[str, int]]:
    """Files by size and by mode, the most frequent first; empty where images do not come as files. Only headers are read."""
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for names in data.files.values():
        for name in names:
            with Image.open(data.folder / name) as image:
                sizes[f"{image.width} x {image.height}"] += 1
                modes[image.mode] += 1
    return dict(sizes.most_common()), dict(modes.most_common())


def findings(found: Diagnosis) -> list[tuple[str, str]]:
    """What a person should know, as (how grave, sentence): "fault", "note" or "ok"."""
    shared = [("fault", told) for told in told_of_groups(found.shared_groups)]
    shared += [("note", told) for told in found.grouping]
    lines = [*leak_findings(found), *shared, *within_findings(found), *class_findings(found), *file_findings(found)]
    if found.constant:
        told = counted(len(found.constant), "image")
        lines.append(("fault", f"{told} of one colour throughout: {named(found.constant, found.files)}"))
    if found.labels is not None:
        lines.append(label_finding(found.labels, found.files))
    return lines or [("ok", "nothing found")]


def label_finding(checked: CheckedLabels, files: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """How many labels are doubted, and what that is worth."""
    if not checked.conclusive:
        return "note", (
            f"nothing can be said of labels: networks trained on the other parts agree with {checked.accuracy:.1%} of "
            f"{checked.images:,} (95 % interval from {checked.interval95[0]:.1%}), and the most common class is "
            f"{checked.commonest:.1%} of the images; more images, or another --recipe, may help"
        )
    many, part = len(checked.suspects), len(checked.suspects) / checked.images
    first = f": {named([suspect.place for suspect in checked.suspects], files)}" if many else ""
    return "note" if many else "ok", (
        f"{many:,} of {checked.images:,} training labels ({part:.2%}) {'is' if many == 1 else 'are'} more likely wrong than "
        f"right, and some {round_off(checked.expected_wrong or 0)} wrong in all, by networks that never saw the images and "
        f"agree with {checked.accuracy:.1%} of the labels{first}"
    )


def round_off(number: float) -> str:
    """`310`: a whole number of two digits and zeros, since an estimate has no more; `none` below a half."""
    return f"{round(float(f'{number:.2g}')):,}" if number >= 0.5 else "none"


def leak_findings(found: Diagnosis) -> list[tuple[str, str]]:
    """Test images, and validation images of a split of their own, that training has too."""
    of_splits = {
        "test": (found.leaked_exact, found.leaked),
        "validation": (found.leaked_validation_exact, found.leaked_validation),
    }
    return [
        leak_finding(split, found.images[split], *of_splits[split]) for split in of_splits if found.images.get(split)
    ]


def leak_finding(split: str, images: int, exact: int, leaked: int) -> tuple[str, str]:
    """How many of the split's images training has, exactly and in all."""
    if not leaked:
        return "ok", f"none of the {images:,} {split} images was found among the training images, equal or nearly"
    if exact:
        told = f"{exact:,} of the {images:,} {split} images ({exact / images:.2%}) are training images too"
        if leaked > exact:
            more = leaked - exact
            told += f", and {more:,} more look like one ({more / images:.2%})"
        told += ": accuracy on them says nothing of new images"
    else:
        near = f"{leaked:,} ({leaked / images:.2%})"
        told = (
            f"none of the {images:,} {split} images is a training image too, but {near} look like one: see the gallery"
        )
    return "fault" if exact or leaked > images / 100 else "note", told


def within_findings(found: Diagnosis) -> list[tuple[str, str]]:
    """What is there twice within a split, and twice with different labels."""
    lines = []
    for split in found.images:
        exact = sum(len([place for place in group if place.split == split]) > 1 for group in found.exact)
        near = sum(pair.first.split == pair.second.split == split for pair in found.near)
        counts = [
            (exact, "group of equal images", "groups of equal images"),
            (near, "pair that looks alike", "pairs that look alike"),
        ]
        if told := " and ".join(counted(*row) for row in counts if row[0]):
            lines.append(("note", f"{told} within the {split} images"))
    if found.conflicting:
        groups = counted(len(found.conflicting), "group of equal images has", "groups of equal images have")
        first = named(found.conflicting[0], found.files, " = ")
        lines.append(("fault", f"{groups} different labels: {first}{', ...' if len(found.conflicting) > 1 else ''}"))
    if doubtful := sum(not pair.same_label for pair in found.near):
        pairs = counted(doubtful, "pair that looks alike has", "pairs that look alike have")
        lines.append(("note", f"{pairs} different labels"))
    return lines


def named(places: Sequence[Place], files: Mapping[str, Sequence[str]], between: str = ", ") -> str:
    """The first of these images by their files, or where there are none, by split and row."""
    shown = [
        files[place.split][place.row] if place.split in files else f"{place.split} {place.row}" for place in places
    ]
    return between.join(shown[:NAMED]) + (f"{between}and {len(shown) - NAMED:,} more" if len(shown) > NAMED else "")


def class_findings(found: Diagnosis) -> list[tuple[str, str]]:
    """Classes with few images, or far fewer than others."""
    lines = []
    for split, counts in found.balance.items():
        if few := few_images(counts, split):
            lines.append(("note", few))
        if told := uneven(counts, split):
            lines.append(("note", f"{told}; look at recall by class, not at accuracy alone"))
    return lines


def file_findings(found: Diagnosis) -> list[tuple[str, str]]:
    """Odd sizes and modes, broken and ignored files of a folder."""
    lines = []
    if len(found.sizes) > 1:
        common, count = next(iter(found.sizes.items()))
        total = sum(found.sizes.values())
        lines.append(
            (
                "note",
                f"{len(found.sizes):,} sizes of image, {common} most often ({count / total:.0%}); all are resized and cut "
                "to a square",
            )
        )
    if len(found.modes) > 1:
        told = ", ".join(f"{count:,} {MODE_NAMES.get(mode, mode)}" for mode, count in found.modes.items())
        lines.append(("note", f"several kinds of pixel, all converted to RGB: {told}"))
    sentences = left_out({"broken": found.broken, "ignored": found.ignored})
    if "broken" in sentences:
        lines.append(("fault", f"{sentences['broken']}; train stops at that without --skip-broken"))
    return lines + [("note", sentence) for kind, sentence in sentences.items() if kind == "ignored"]
