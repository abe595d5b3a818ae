"""Suspect labels: those that are more likely wrong than right, by networks that never saw the images."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thumbnet.doctor.duplicates import Place
from thumbnet.doctor.label_noise import chances_of_wrong
from thumbnet.judging.calibration import fit_temperature
from thumbnet.judging.statistics import wilson_interval
from thumbnet.recipes.recipe import Recipe, vary
from thumbnet.recipes.recipe_file import recipe_table
from thumbnet.training.loop import train
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset


# Part of the way from naming the commonest class to being always right; with less, doubts are the networks' own.
LEARNT = 0.25
SUSPECT = 0.5  # from which chance on a label is listed


@dataclass(frozen=True)
class SuspectLabel:
    """An image whose label may be wrong: its class, the likeliest other, what the networks gave both, how likely it is wrong."""

    place: Place
    label: str
    suggested: str
    label_probability: float
    suggested_probability: float
    wrong_probability: float


def told_of_label(suspect: SuspectLabel) -> str:
    """`wrong: 97%; dog 90.1%, cat 0.2%`."""
    said = f"{suspect.suggested} {suspect.suggested_probability:.1%}, {suspect.label} {suspect.label_probability:.1%}"
    return f"wrong: {suspect.wrong_probability:.0%}; {said}"


@dataclass(frozen=True)
class CheckedLabels:
    """What networks said of images that they never saw: on how many they agree with the labels, and whose label they doubt."""

    images: int
    accuracy: float
    interval95: tuple[float, float]  # Wilson's, of the accuracy
    commonest: float  # part of the images that are of the commonest class
    expected_wrong: float | None  # labels, in all: the sum of the chances of each; None where nothing can be concluded
    conclusive: bool  # False where they may do little better than naming the commonest class: their doubts say nothing
    suspects: tuple[SuspectLabel, ...]  # the most doubtful first; none where nothing can be concluded


def check_labels(
    data: "Dataset",
    recipe: Recipe,
    folder: Path,
    *,
    folds: int = 4,
    tell: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> CheckedLabels:
    """The training images whose label is more likely wrong than right, as `chances_of_wrong` has it.

    `folds` networks are trained by the recipe, each on all but one part, and asked about that part; their runs lie below
    `folder`, where a stopped call goes on; with other images, labels, recipe or folds others are begun. `tell` gets a line
    for each; `options` are those of `train`.
    """
    data = replace(data, own_validation=None)  # the training images alone are cut
    folder, parts = folder / name_of_check(data, recipe, folds), []
    for fold in range(folds):
        run = train(vary(recipe, folds=folds, fold=fold), data, folder / f"fold-{fold}", **options)
        parts.append(run.predictions("validation"))
        tell(
            f"fold {fold + 1} of {folds}: a network trained on {counted(run.data['train'], 'image')} is right on "
            f"{run.summary['validation_accuracy']:.1%} of the {run.data['validation']:,} others"
        )
    rows, labels, logits = (torch.cat([getattr(part, name) for part in parts]) for name in ("rows", "labels", "logits"))
    probabilities = (logits.double() / fit_temperature(logits, labels)).softmax(1)
    hits, images = int((logits.argmax(1) == labels).sum()), len(labels)
    interval, commonest = wilson_interval(hits, images), torch.bincount(labels).max().item() / images
    conclusive = interval[0] >= commonest + LEARNT * (1 - commonest)
    wrong, others = chances_of_wrong(probabilities, labels)
    found = []
    for place in in_doubt(wrong, probabilities, labels) if conclusive else []:
        label, suggested = int(labels[place]), int(others[place])
        found.append(
            SuspectLabel(
                place=Place("train", int(rows[place])),
                label=data.classes[label],
                suggested=data.classes[suggested],
                label_probability=probabilities[place, label].item(),
                suggested_probability=probabilities[place, suggested].item(),
                wrong_probability=wrong[place].item(),
            )
        )
    expected = wrong.sum().item() if conclusive else None
    return CheckedLabels(images, hits / images, interval, commonest, expected, conclusive, tuple(found))


def in_doubt(wrong: Tensor, probabilities: Tensor, labels: Tensor) -> list[int]:
    """The images whose label is more likely `wrong` (N) than right: the likeliest first, of equal ones the least probable."""
    own = probabilities.gather(1, labels[:, None])[:, 0]
    by_label = own.argsort(stable=True)
    order = by_label[wrong[by_label].argsort(descending=True, stable=True)]
    return [int(place) for place in order if wrong[place] > SUSPECT]


def name_of_check(data: "Dataset", recipe: Recipe, folds: int) -> str:
    """A short hash of what decides the networks: the training images with their labels, the recipe and the folds."""
    decisive = [data.fingerprint_of_training, recipe_table(recipe), folds]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:8]
