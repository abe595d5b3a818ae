"""The training images that better not be trained on, as a list that `train --leave-out` takes once a person has read it."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
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

    def and_also(self, other: "Faulty") -> "Faulty":
        """Both faults of one image in one."""
        about = "; ".join(filter(None, (self.about, other.about)))
        chance = self.chance if other.chance is None else other.chance
        return Faulty(self.place, f"{self.fault} and {other.fault}", about, chance)


def to_leave_out(found: Diagnosis) -> list[Faulty]:
    """Each training image with faults, once. Of training images that are equal or alike the first stays.

    None stays of those equal to, or like, a test image or one of a set's own validation images, nor of equal images whose labels
    differ.
    """
    listed: dict[Place, Faulty] = {}
    for fault in [*equal(found), *of_one_colour(found), *wrongly_labelled(found)]:
        listed[fault.place] = listed[fault.place].and_also(fault) if fault.place in listed else fault
    copies = {place: group for group in found.exact for place in group}

    def side(place: Place) -> Sequence[Place]:
        return copies.get(place, (place,))  # of equal images one stands for all in a pair

    # Pairs with an image that is measured on first, since of these none stays.
    for pair in sorted(found.near, key=lambda pair: not measured_on([*side(pair.first), *side(pair.second)])):
        first, second = side(pair.first), side(pair.second)
        for images, others in ((second, first), (first, second)):
            fixed = measured_on(others) or [place for place in others if place not in listed]
            for place in images:
                if fixed and place.split == "train" and place not in listed:
                    labels = "" if pair.same_label else ", of another class"
                    about = f"{told(fixed[0], found)}{labels}, correlation {pair.similarity:.3f}"
                    listed[place] = Faulty(place, "alike", about)
    return list(listed.values())


def measured_on(places: Iterable[Place]) -> list[Place]:
    """Those of them that are test images, or validation images of the set's own."""
    return [place for place in places if place.split != "train"]


def equal(found: Diagnosis) -> Iterator[Faulty]:
    """Of each group of equal images those in training; all but the first where it is of training images with one label."""
    for group in found.exact:
        training = [place for place in group if place.split == "train"]
        others = measured_on(group)
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
