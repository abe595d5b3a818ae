"""A table that somebody gives to be filled with answers, as competitions do with their sample_submission.csv."""
# Shapes: N images, K classes.

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.columns import IDS, IMAGE_TITLES, LABEL_TITLES, first_called, folded, shown_titles
from thumbnet.data.finding import by_ends
from thumbnet.errors import UserError
from thumbnet.reading import csv_lines, reading
from thumbnet.words import counted, shortened

SHOWN = 3  # classes in a sentence


@dataclass(frozen=True)
class Form:
    """A table, the column that says which image a row is of, and the columns to be filled, by their places."""

    path: Path
    titles: list[str]
    image: int
    answers: dict[int, str | None]  # the class whose probability is wanted there; None: the name of the likeliest
    rows: list[list[str]]  # "" in the columns to be filled
    words: set[str]  # that stood in these columns

    @property
    def asked(self) -> list[str]:
        """What each row calls its image."""
        return [row[self.image].strip() for row in self.rows]


def read_form(path: Path, classes: Sequence[str]) -> Form:
    """A CSV file with a column for the class, or one for each class, or for one of two, to hold its probability.

    Raises `UserError` where it has no row, or does not say what is wanted.
    """
    rows: list[list[str]] = []
    words: set[str] = set()
    with reading(path), open(path, encoding="utf-8-sig", newline="") as file:
        lines = csv_lines(file)
        titles = next(lines, [])
        image, answers = columns_in(path, titles, classes)
        for number, cells in enumerate(lines, start=2):
            if len(cells) > len(titles):
                raise UserError(
                    f"{path}, line {number}: it has more cells than there are columns; quote commas in texts"
                )
            if any(cells):
                words.update(cells[place].strip() for place in answers if place < len(cells))
                kept = enumerate(cells + [""] * (len(titles) - len(cells)))
                rows.append(["" if place in answers else cell for place, cell in kept])
    if not rows:
        raise UserError(f"{path} has no row to be filled; each asks for one image")
    return Form(path, titles, image, answers, rows, words - {""})


def columns_in(path: Path, titles: Sequence[str], classes: Sequence[str]) -> tuple[int, dict[int, str | None]]:
    """The places of the column of images and of those to be filled, each with the class whose probability it is for."""
    if len(titles) < 2:
        only = f"only the column {shortened(titles[0])!r}" if titles else "nothing in it"
        raise UserError(f"{path} has {only}; there must be one for the images and one for their classes")
    if "" in titles or len(set(titles)) < len(titles):
        raise UserError(f"{path}: each column needs a title of its own; it has {shown_titles(titles)}")
    named = first_called(titles, IMAGE_TITLES) or first_called(titles, IDS)
    image = titles.index(named) if named else 0
    others = [place for place in range(len(titles)) if place != image]
    meant = {place: name for place in others if (name := class_called(titles[place].strip(), classes))}
    if sorted(meant.values()) == sorted(classes) or (len(others) == len(meant) == 1 and len(classes) == 2):
        return image, dict(meant)
    label = first_called([titles[place] for place in others], LABEL_TITLES)
    if label is None and len(others) != 1:
        lacking = next((name for name in classes if name not in meant.values()), None)
        wanted = f"there is none for {shortened(lacking)!r}" if lacking and meant else ", ".join(classes[:SHOWN])
        raise UserError(
            f"{path} has the columns {shown_titles(titles)}; beside that of the images, {shortened(titles[image])!r}, there must "
            f"be one called label, or one for each class ({wanted})"
        )
    return image, {titles.index(label) if label else others[0]: None}


def class_called(title: str, classes: Sequence[str]) -> str | None:
    """The class of this name, in any letters where that leaves one."""
    if title in classes:
        return title
    alike = [name for name in classes if folded(name) == folded(title)]
    return alike[0] if len(alike) == 1 else None


def places_in(form: Form, names: Sequence[str], *, numbered: bool) -> list[int]:
    """For each row the place of its image among the `names`: by its path, the end of it, or these without the ending.

    Images that are only `numbered`, as those of arrays are, go row by row. Raises `UserError` for a row without its image.
    """
    asked = form.asked
    if numbered:
        check_order(form, len(names))
        return list(range(len(names)))
    exact = {name: place for place, name in enumerate(names)}
    if form.titles[form.image] in {*exact, *(os.path.basename(name) for name in exact)}:
        raise UserError(
            f"{form.path} does not name its columns, its first line has {shown_titles(form.titles)}; add titles"
        )
    if exact.keys() >= set(asked):
        return [exact[name] for name in asked]
    known, slashed = by_ends(exact), {name.replace("\\", "/"): name for name in exact}
    meant = {name: slashed.get(name) or of_end(form, name, known) for name in dict.fromkeys(asked)}
    return [exact[meant[name]] for name in asked]


def of_end(form: Form, asked: str, known: dict[str, list[str]]) -> str:
    """The one name with this end. Raises `UserError` where there is none, or several."""
    found = known.get(folded(os.path.normpath(asked.replace("\\", "/"))), [])
    if not found:
        raise UserError(
            f"{form.path} asks for {shortened(asked)!r}, and none of the images given is called so, or ends so; they are called "
            f"as {shortened(next(iter(known.values()))[0])!r} is"
        )
    if len(found) > 1:
        two = " and ".join(map(shortened, found[:2]))
        raise UserError(
            f"{form.path} asks for {shortened(asked)!r}, and several images are called so: {two}; give one of them"
        )
    return found[0]


def check_order(form: Form, images: int) -> None:
    """Raise `UserError` where rows cannot be those of so many images in their order."""
    asked = form.asked
    if len(asked) != images:
        raise UserError(
            f"{form.path} has {counted(len(asked), 'row')} and there are {counted(images, 'image')} without names, which go row "
            "by row; give as many"
        )
    if all(name.isdecimal() for name in asked):
        numbers = [int(name) for name in asked]
        if fallen := [second for first, second in zip(numbers, numbers[1:], strict=False) if second <= first]:
            raise UserError(
                f"{form.path} asks for {fallen[0]} after a larger number or again, and images without names go row by row; sort "
                "its rows"
            )


def filled_in(form: Form, probabilities: NDArray[np.float32], places: Sequence[int], classes: Sequence[str]) -> str:
    """The table as CSV, each row with the answer for its image, of `probabilities` N K."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(form.titles)
    columns = {place: None if name is None else classes.index(name) for place, name in form.answers.items()}
    likeliest = probabilities.argmax(1)
    for row, image in zip(form.rows, places, strict=True):
        cells = list(row)
        for place, column in columns.items():
            # Nine digits tell every float32: a score of logarithms asks for the small ones, too.
            cells[place] = classes[likeliest[image]] if column is None else f"{probabilities[image, column]:.9g}"
        writer.writerow(cells)
    return text.getvalue()


def doubts(form: Form, classes: Sequence[str], names: Sequence[str], places: Sequence[int]) -> list[str]:
    """What is probably not meant: columns that stay as they were, words of another kind, images that no row asks for."""
    told = []
    label = next((place for place, name in form.answers.items() if name is None), None)
    if label is not None and form.words and not form.words & set(classes):
        two = f"; called {classes[-1]!r}, it would get the probability of that class" if len(classes) == 2 else ""
        told.append(
            f"{form.path} has {shortened(min(form.words))!r} in {shortened(form.titles[label])!r}, no class of the run; names of "
            f"classes are written there{two}"
        )
    kept = [title for place, title in enumerate(form.titles) if place != form.image and place not in form.answers]
    if kept:
        told.append(f"left as {form.path} has it: {shown_titles(kept)}")
    if again := len(places) - len(set(places)):
        told.append(f"{counted(again, 'row asks', 'rows ask')} again for an image of another row")
    if unasked := len(set(names)) - len({names[place] for place in places}):
        told.append(f"{counted(unasked, 'image is', 'images are')} not asked for in {form.path}")
    return told
