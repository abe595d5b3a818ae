"""The training images that better not be trained on, as a list that `train --leave-out` takes once a person has read it."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thumbnet.data.leave_out import COLUMN, name_of
from thumbnet.doctor.dataset import Diagnosis, named
from thumbnet.doctor.duplicates import Place
from thumbnet.doctor.labels import told_of_label

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

COLUMNS = (COLUMN, "class", "fault", "about", "chance")


@dataclass(frozen=True)
class Faulty:
    """A training image, what is wrong with it (`equal`, `alike`, `one colour` or `label`), and how that is known."""

    place: Place
    fault: str
    about: str
    chance: float | None = None  # that a label is wrong


def to_leave_out(found: Diagnosis) -> list[Faulty]:
    """Each training image with a fault, once. Of training images that are equal or alike the first stays.

    None stays of those equal to, or like, a test image or one of a set's own validation images, nor of equal images whose labels
    differ.
    """
    listed: dict[Place, Faulty] = {}
    for fault in [*equal(found), *of_one_colour(found), *wrongly_labelled(found)]:
        listed.setdefault(fault.place, fault)
    for pair in sorted(found.near, key=lambda pair: not pair.across):  # those first of which none stays
        places = (pair.second, pair.first)
        training = [place for place in places if place.split == "train"]
        if training and not any(place in listed for place in places):
            other = pair.first if training[0] == pair.second else pair.second
            labels = "" if pair.same_label else ", of another class"
            about = f"{told(other, found)}{labels}, correlation {pair.similarity:.3f}"
            listed[training[0]] = Faulty(training[0], "alike", about)
    return list(listed.values())


def equal(found: Diagnosis) -> Iterator[Faulty]:
    """Of each group of equal images those in training; all but the first where it is of training images with one label."""
    for group in found.exact:
        training = [place for place in group if place.split == "train"]
        others = [place for place in group if place.split != "train"]
        differing = group in found.conflicting
        for place in training if others or differing else training[1:]:
            other = next(one for one in [*others, *training] if one != place)
            yield Faulty(place, "equal", f"{told(other, found)}{', labels differ' if differing else ''}")


def of_one_colour(found: Diagnosis) -> Iterator[Faulty]:
    """Training images that show nothing."""
    for place in found.constant:
        if place.split == "train":
            yield Faulty(place, "one colour", "")


def wrongly_labelled(found: Diagnosis) -> Iterator[Faulty]:
    """Training images whose label is more likely wrong than right, the likeliest first."""
    for suspect in found.labels.suspects if found.labels else ():
        yield Faulty(suspect.place, "label", told_of_label(suspect), suspect.wrong_probability)


def told(place: Place, found: Diagnosis) -> str:
    """An image by its file, or by split and number."""
    return named([place], found.files)


def as_list(faults: list[Faulty], data: "Dataset") -> str:
    """CSV with one row for each image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    labels = data.development.labels
    for fault in faults:
        label = data.classes[int(labels[fault.place.row])]
        chance = "" if fault.chance is None else f"{fault.chance:.4f}"
        writer.writerow([name_of(fault.place.row, data), label, fault.fault, fault.about, chance])
    return text.getvalue()
