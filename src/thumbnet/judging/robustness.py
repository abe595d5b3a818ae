"""Robustness: the accuracy of a finished run on corrupted images, by kind and level."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from thumbnet.augment import to_float
from thumbnet.backend import Backend
from thumbnet.data.batches import Split, spread_over, whole
from thumbnet.judging.corruptions import FAMILIES, LEVELS, corrupt
from thumbnet.judging.evaluation import load_for_evaluation, predict_logits
from thumbnet.judging.intervals import count_of, interval_of
from thumbnet.machine import Machine
from thumbnet.progress import Progress, no_progress
from thumbnet.recipes.recipe import Recipe
from thumbnet.runs.run import Run
from thumbnet.words import counted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from thumbnet.data.datasets import Dataset

SEED = 0  # of the corruptions: all networks see the same ones
# Of a batch. Twice evaluation's: 2 to 3 % less time for 76 passes, since kernels are changed for tiles half as often, and half as
# much memory again.
PIXELS_AT_ONCE = 1_000 * 32**2


@dataclass(frozen=True)
class KindRow:
    """One kind of corruption: accuracy at levels 1 to 5, each in [0, 1]."""

    kind: str
    family: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True)
class Robustness:
    """Accuracy on clean and corrupted images; `corrupted` is the mean over kinds and levels."""

    split: str
    images: int
    clean: float
    clean_interval95: tuple[float, float]
    corrupted: float
    rows: tuple[KindRow, ...]
    warnings: tuple[str, ...]
    groups: int | None = None  # that the images are of, None where none was named

    @property
    def relative(self) -> float:
        """What is left of the clean accuracy, 1 for all; 0 where there was none."""
        return self.corrupted / self.clean if self.clean else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "relative": self.relative}


def evaluate_robustness(
    run: "Run | str | Path",
    *,
    split: str = "validation",
    images: int = 1_000,
    machine: Machine | None = None,
    data: "Dataset | None" = None,
    data_dir: str | Path | None = None,
    progress: Progress = no_progress,
) -> Robustness:
    """Measure a finished run on `images` images of a split, evenly spread over it, corrupted in 15 kinds and 5 levels.

    One view each. The result is kept in the run's robustness.json. Opening the test split is counted. `progress` is told what is
    done, how many of its 75 passes, and that number.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    run.require_finished()
    data = run.check_data(data or run.load_data(data_dir=data_dir), split=split)
    model, chosen, backend = load_for_evaluation(run, data, split, machine, images)
    rows = data.validation.rows if split == "validation" and data.validation else torch.arange(len(data.test or ()))
    groups = data.groups_at(split, rows[spread_over(len(rows), images)] if images else rows)
    found = measure_robustness(model, chosen, backend, split=split, recipe=run.recipe, groups=groups, progress=progress)
    run.save_robustness(found.to_dict())
    return found


def measure_robustness(
    model: "nn.Module",
    images: Split,
    backend: Backend,
    *,
    split: str,
    recipe: Recipe,
    groups: "Tensor | None" = None,
    progress: Progress = no_progress,
) -> Robustness:
    """The accuracies of a model on clean and corrupted copies of `images`, of `groups` int64 N."""
    images = images.to(backend.device)
    hit = hits_of(model, images, images.images, backend)
    x = to_float(images.images)
    rows: list[KindRow] = []
    passes, done = sum(map(len, LEVELS.values())), 0
    for family, kinds in FAMILIES.items():
        for kind in kinds:
            parts: list[float] = []
            for level in range(1, len(LEVELS[kind]) + 1):
                progress(f"corrupting {counted(len(images), 'image')} in {len(LEVELS)} kinds", done, passes)
                corrupted = (corrupt(x, kind, level, seed=SEED) * 255).round().to(torch.uint8)
                parts.append(hits_of(model, images, corrupted, backend).double().mean().item())
                done += 1
            rows.append(KindRow(kind, family, tuple(parts)))
    return Robustness(
        split=split,
        images=len(images),
        clean=hit.double().mean().item(),
        clean_interval95=interval_of(hit, groups),
        corrupted=sum(row.mean for row in rows) / len(rows),
        rows=tuple(rows),
        warnings=tuple(overlaps(recipe)),
        groups=count_of(groups),
    )


def hits_of(model: "nn.Module", split: Split, images: "Tensor", backend: Backend) -> "Tensor":
    """bool N: which of `images`, uint8 N C H W with the labels of `split`, are taken for what they are."""
    logits = predict_logits(model, whole(images, split.labels), backend, pixels=PIXELS_AT_ONCE)
    return logits.argmax(1) == split.labels.cpu()


def overlaps(recipe: Recipe) -> list[str]:
    """Where training saw what the test corrupts with, so that the score flatters."""
    pairs = (
        (recipe.jitter, "jitter", ("brightness", "contrast")),
        (recipe.zoom, "zoom", ("zoom_blur", "elastic_transform")),
    )
    return [
        f"training changed images by {field} {value:g}, which is close to {' and '.join(kinds)}: those rows flatter"
        for value, field, kinds in pairs
        if value
    ]
