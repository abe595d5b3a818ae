"""Suspect labels: images that networks which never saw them take for another class, and surely."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thumbnet.doctor.duplicates import Place
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


@dataclass(frozen=True)
class SuspectLabel:
    """An image whose label may be wrong: its class, the one the networks name, and both probabilities."""

    place: Place
    label: str
    suggested: str
    label_probability: float
    suggested_probability: float


@dataclass(frozen=True)
class CheckedLabels:
    """What networks said of images that they never saw: on how many they agree with the labels, and whose label they doubt."""

    images: int
    accuracy: float
    interval95: tuple[float, float]  # Wilson's, of the accuracy
    commonest: float  # part of the images that are of the commonest class
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
    """The training images whose label confident learning doubts.

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
    found = []
    for place, suggested in doubted(probabilities, labels) if conclusive else []:
        label = int(labels[place])
        found.append(
            SuspectLabel(
                place=Place("train", int(rows[place])),
                label=data.classes[label],
                suggested=data.classes[suggested],
                label_probability=probabilities[place, label].item(),
                suggested_probability=probabilities[place, suggested].item(),
            )
        )
    return CheckedLabels(images, hits / images, interval, commonest, conclusive, tuple(found))


def name_of_check(data: "Dataset", recipe: Recipe, folds: int) -> str:
    """A short hash of what decides the networks: the training images with their labels, the recipe and the folds."""
    decisive = [data.fingerprint_of_training, recipe_table(recipe), folds]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:8]


def doubted(probabilities: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """(image, class it is surely taken for) where that is not its label; probabilities are float N K, out of sample.

    Confident learning, Northcutt et al. 2021, https://arxiv.org/abs/1911.00068: a class counts as surely named where its
    probability reaches the mean that images of the class give it. Ordered by how far the label's probability lies behind.
    """
    kinds = probabilities.shape[1]
    sums = torch.zeros(kinds, dtype=probabilities.dtype)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    counts = torch.bincount(labels, minlength=kinds)
    thresholds = sums.index_add(0, labels, own) / counts.clamp(min=1)  # K
    sure = torch.where(probabilities >= thresholds, probabilities, torch.zeros_like(probabilities))
    best, named = sure.max(1)
    doubtful = ((best > 0) & (named != labels)).nonzero().flatten()
    order = (own - best)[doubtful].argsort(stable=True)
    return [(int(i), int(named[i])) for i in doubtful[order]]
