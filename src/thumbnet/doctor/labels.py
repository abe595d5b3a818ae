"""Suspect labels: images that networks which never saw them take for another class, and surely."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thumbnet.calibration import fit_temperature
from thumbnet.doctor.duplicates import Place
from thumbnet.recipes.recipe import Recipe, vary
from thumbnet.training import train

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset


@dataclass(frozen=True)
class SuspectLabel:
    """An image whose label may be wrong: its class, the one the networks name, and both probabilities."""

    place: Place
    label: str
    suggested: str
    label_probability: float
    suggested_probability: float


def suspect_labels(
    data: "Dataset", recipe: Recipe, folder: Path, *, folds: int = 4, **options: Any
) -> list[SuspectLabel]:
    """The training images that confident learning doubts, the most doubtful first.

    `folds` networks are trained by the recipe, each on all but one part, and asked about that part; their runs lie in `folder`,
    where a stopped call goes on. `options` are those of `train`.
    """
    parts = []
    for fold in range(folds):
        run = train(vary(recipe, folds=folds, fold=fold), data, folder / f"fold-{fold}", **options)
        parts.append(run.predictions("validation"))
    rows, labels, logits = (torch.cat([getattr(part, name) for part in parts]) for name in ("rows", "labels", "logits"))
    probabilities = (logits.double() / fit_temperature(logits, labels)).softmax(1)
    found = []
    for place, suggested in doubted(probabilities, labels):
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
    return found


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
