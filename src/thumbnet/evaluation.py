"""Measuring a network: the logits of a split, each image exactly once, and the scores that follow from them."""
# Shapes: N images, B batch, C channels, H and W height and width, K classes.

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.augment import to_float
from thumbnet.backend import Backend
from thumbnet.data.batches import Split
from thumbnet.errors import UserError
from thumbnet.statistics import wilson_interval

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset
    from thumbnet.machine import Machine
    from thumbnet.runs import Run

VIEWS = (1, 2, 6)  # what `average_over_views` knows
BATCH_SIZE = 500  # large enough to fill two cores, small enough to stay in their caches; no result depends on it


@dataclass(frozen=True)
class Scores:
    """What was measured on `images` images. Accuracies are fractions in [0, 1]; `confusion[i][j]` counts class i taken for j."""

    split: str
    images: int
    views: int
    accuracy: float
    top5: float  # the right class is among the five likeliest
    loss: float  # mean cross-entropy in nats, without any penalty
    interval95: tuple[float, float]  # Wilson's, of the accuracy
    classes: tuple[str, ...]
    per_class: tuple[float, ...]  # accuracy on the images of each class (recall); nan-free: 0 images give 0
    support: tuple[int, ...]  # images of each class
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `json.dumps` takes them."""
        return json.loads(json.dumps(asdict(self)))


def evaluate(
    run: "Run | str | Path",
    *,
    split: Literal["validation", "test"] = "validation",
    views: int = 1,
    uncertain: float = 1.0,
    machine: "Machine | None" = None,
    data: "Dataset | None" = None,
    data_dir: str | Path | None = None,
) -> Scores:
    """Measure a finished run on its validation images, or on the test images, which is counted in the run folder.

    `views` averages the logits over the image (1), its mirror image too (2), and both shifted by a pixel too (6); with
    `uncertain` below 1 only that part of the images, the least certain in one view, gets them.
    Raises `UserError` where the run is unfinished, the data has changed since, or the split does not exist.
    """
    from thumbnet.backend import place, prepare
    from thumbnet.machine import Machine
    from thumbnet.runs import Run

    check_views(views)
    if not 0 <= uncertain <= 1:
        raise UserError(f"uncertain is {uncertain:g}; give a part of the images, 0 to 1")
    run = run if isinstance(run, Run) else Run.open(run)
    run.require_finished()
    data = run.check_data(data or run.load_data(data_dir=data_dir), strict=split == "validation")
    chosen = open_split(run, data, split)
    backend = prepare(run.machine_to_measure(machine or Machine()))
    model = place(run.model(), backend.device)
    logits = predict_logits(model, chosen.to(backend.device), backend, views=views, uncertain=uncertain)
    scores = score(logits, chosen.labels[chosen.rows], data.classes, split=split, views=views)
    with suppress(UserError):  # a run folder that cannot be written to: the scores are worth more than their record
        run.record_evaluation({**scores.to_json(), "device": str(backend.device), "precision": backend.precision})
    return scores


def open_split(run: "Run", data: "Dataset", split: str) -> Split:
    """The images to measure on; opening the test split leaves a line in the run folder first."""
    if split == "test":
        if data.test is None:
            raise UserError(f"{data.name} has no test split; put its images into {data.name}/test/<class>/")
        run.count_test_opening(data)
        return data.test.unlock()
    if split != "validation":
        raise UserError(f"unknown split {split!r}; choose validation or test")
    if data.validation is None:
        raise UserError(f"{run.path} was trained on all its images (validation 0), so there is no validation split")
    return data.validation


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    split: Split,
    backend: Backend,
    *,
    views: int = 1,
    uncertain: float = 1.0,
    poll: Callable[[], None] = lambda: None,
) -> Tensor:
    """float32 N K on the CPU, in the order of the split. `poll` is called between batches and may raise to stop.

    With `uncertain` below 1, that part of the images with the smallest lead of the first class over the second in one view
    gets all `views`, the others keep the one (hiverge, https://github.com/hiverge/cifar10-speedrun).
    """
    if views > 1 and uncertain < 1:
        logits = predict_logits(model, split, backend, poll=poll)
        first, second = logits.softmax(1).topk(2, dim=1).values.T  # N each
        doubtful = (first - second).argsort()[: round(uncertain * len(split))]
        if len(doubtful):
            chosen = replace(split, rows=split.rows[doubtful.to(split.rows.device)])
            logits[doubtful] = predict_logits(model, chosen, backend, views=views, poll=poll)
        return logits
    model.eval()
    parts = []
    for images, _ in split.in_order(BATCH_SIZE):
        poll()
        x = to_float(images).contiguous(memory_format=torch.channels_last)
        with backend.autocast():
            parts.append(average_over_views(model, x, views).float().cpu())
    return torch.cat(parts)


def check_views(views: int) -> None:
    """Raise `UserError` for a number of views that there is not."""
    if views not in VIEWS:
        raise UserError(f"views is {views}; choose 1, 2 or 6")


def average_over_views(model: nn.Module, images: Tensor, views: int) -> Tensor:
    """Logits B K averaged over views of float images B C H W.

    Six views as in airbench (Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.5): half the weight on the image
    and its mirror image, half on the two shifted by one pixel up-left and down-right.
    """
    check_views(views)
    if views == 1:
        return model(images)
    mirrored = images.flip(3)
    plain = (model(images) + model(mirrored)) / 2
    if views == 2:
        return plain
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    corners = (padded[:, :, 0:height, 0:width], padded[:, :, 2 : height + 2, 2 : width + 2])
    shifted = sum((model(corner) + model(corner.flip(3))) / 4 for corner in corners)
    return (plain + shifted) / 2


def score(logits: Tensor, labels: Tensor, classes: tuple[str, ...], *, split: str, views: int = 1) -> Scores:
    """Scores of logits N K against labels N. Raises `UserError` on an empty split."""
    if len(labels) == 0:
        raise UserError(f"the {split} split has no images")
    labels = labels.cpu()
    kinds = len(classes)
    predicted = logits.argmax(1)
    likeliest = logits.topk(min(5, kinds), dim=1).indices  # N 5
    confusion = torch.bincount(labels * kinds + predicted, minlength=kinds * kinds).view(kinds, kinds)
    support = confusion.sum(1)
    hits = int(confusion.trace())
    return Scores(
        split=split,
        images=len(labels),
        views=views,
        accuracy=hits / len(labels),
        top5=(likeliest == labels[:, None]).any(1).sum().item() / len(labels),
        loss=F.cross_entropy(logits.double(), labels).item(),
        interval95=wilson_interval(hits, len(labels)),
        classes=classes,
        per_class=tuple((confusion.diagonal().double() / support.clamp(min=1)).tolist()),
        support=tuple(support.tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )
