"""A table that somebody gives to be filled with answers, as competitions do with their sample_submission.csv."""
# Shapes: K classes.

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from thumbnet.data.columns import IDS, IMAGE_TITLES, LABEL_TITLES, first_called, folded, shown_titles
from thumbnet.errors import UserError
from thumbnet.reading import read_table
from thumbnet.words import counted, shortened

SHOWN = 3  # classes in a sentence


@dataclass(frozen=True)
class Form:
    """A table, the column that says which image a row is of, and the columns to be filled."""

    path: Path
    titles: list[str]
    rows: list[dict[str, str]]
    image: str
    answers: dict[str, str | None]  # by title: the class whose probability is wanted there, None where the answer is

    @property
    def wants_probabilities(self) -> bool:
        """Whether it has a column for each class."""
        return None not in self.answers.values()

    def asked(self) -> list[str]:
        """What each row calls its image."""
        return [row[self.image].strip() for row in self.rows]


def read_form(path: Path, classes: Sequence[str]) -> Form:
    """A CSV file with a column for the class, or one for each class to hold its probability.

    Raises `UserError` where it has no row, or does not say what is wanted.
    """
    titles, rows = read_table(path)
    if not rows:
        raise UserError(f"{path} has no row to be filled; each asks for one image")
    named = list(filter(None, titles))
    if len(set(named)) < len(titles):
        raise UserError(f"{path}: each column needs a title of its own; it has {shown_titles(titles)}")
    image = first_called(titles, IMAGE_TITLES) or first_called(titles, IDS) or titles[0]
    others = [title for title in titles if title != image]
    of_titles = {folded(name): name for name in classes}
    answers: dict[str, str | None] = {
        title: of_titles[folded(title.strip())] for title in others if folded(title.strip()) in of_titles
    }
    if len(answers) < max(2, len(classes)):
        label = others[0] if len(others) == 1 else first_called(others, LABEL_TITLES)
        if label is None:
            wanted = ", ".join(map(shortened, classes[:SHOWN])) + (", ..." if len(classes) > SHOWN else "")
            raise UserError(
                f"{path} has the columns {shown_titles(titles)}; beside that of the images, {shortened(image)!r}, there must be "
                f"one called label, or one for each class ({wanted})"
            )
        answers = {label: None}
    return Form(path, titles, rows, image, answers)


def places_in(form: Form, names: Sequence[str], *, numbered: bool) -> list[int]:
    """For each row the place of its image among the `names`, by its path, its name or that without its ending.

    Images that are only `numbered`, as those of arrays are, go row by row. Raises `UserError` for a row without its image.
    """
    asked = form.asked()
    if numbered:
        if len(asked) != len(names):
            raise UserError(
                f"{form.path} has {counted(len(asked), 'row')} and there are {counted(len(names), 'image')} without names, which "
                "go row by row; give as many"
            )
        return list(range(len(names)))
    ways = [
        places_by(names),
        places_by([PurePath(name).name for name in names]),
        places_by([PurePath(name).stem for name in names]),
    ]
    return [place_of(form, name, names, ways) for name in asked]


def places_by(names: Sequence[str]) -> dict[str, list[int]]:
    """Where each name stands."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return places


def place_of(form: Form, asked: str, names: Sequence[str], ways: Sequence[dict[str, list[int]]]) -> int:
    """The image that is called so in the first of the `ways` in which one is."""
    found = next((way[asked] for way in ways if asked in way), [])
    if not found:
        first = shortened(names[0])
        raise UserError(
            f"{form.path} asks for {shortened(asked)!r}, and none of the images given is called so (the first is {first!r})"
        )
    if len({names[place] for place in found}) > 1:
        two = " and ".join(shortened(names[place]) for place in found[:2])
        raise UserError(
            f"{form.path} asks for {shortened(asked)!r}, and several images are called so: {two}; give one of them"
        )
    return found[0]


def filled_in(form: Form, rankings: Sequence[Sequence[tuple[str, float]]]) -> str:
    """The table as CSV, each row with the answer of its `rankings`: classes with their probabilities, likeliest first.

    The likeliest will do, unless the form wants probabilities: then all.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, form.titles, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row, ranking in zip(form.rows, rankings, strict=True):
        shares = dict(ranking)
        cells = {
            title: ranking[0][0] if name is None else f"{shares[name]:.6f}" for title, name in form.answers.items()
        }
        writer.writerow(row | cells)
    return text.getvalue()


def doubts(form: Form, classes: Sequence[str], places: Sequence[int], images: int) -> list[str]:
    """What is probably not meant: words of another kind where classes are written, images that no row asks for."""
    told = []
    for title, name in form.answers.items():
        words = {row[title].strip() for row in form.rows} - {""}
        if name is None and words and not words & set(classes):
            word = shortened(min(words))
            told.append(
                f"{form.path} has {word!r} in {shortened(title)!r}, no class of the run; names of classes are written there"
            )
    if unasked := images - len(set(places)):
        told.append(f"{counted(unasked, 'image is', 'images are')} not asked for in {form.path}")
    return told
