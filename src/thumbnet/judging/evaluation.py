"""Measuring a network: the logits of a split, each image exactly once, and the scores that follow from them."""
# Shapes: N images, B batch, C channels, H and W height and width, K classes.

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.augment import to_float
from thumbnet.backend import Backend, place, prepare
from thumbnet.data.batches import Split, whole
from thumbnet.data.columns import is_table
from thumbnet.data.groups import told_of_groups
from thumbnet.errors import UserError
from thumbnet.judging.calibration import Calibration, calibration, fit_temperature
from thumbnet.judging.intervals import count_of, interval_of, part_of
from thumbnet.machine import Machine
from thumbnet.runs.predictions import Predictions
from thumbnet.runs.run import Run
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

VIEWS = (1, 2, 6)  # what `average_over_views` knows
# Of the images that are computed at once, so that there are fewer large ones. Results depend on it by rounding only.
PIXELS_AT_ONCE = 500 * 32**2  # enough to fill two cores, and few enough for their caches
PIXELS_ON_GPU = 2_500 * 32**2  # a GPU waits less for Python with few large batches


@dataclass(frozen=True)
class Scores:
    """What was measured on `images` images. Accuracies are fractions in [0, 1]; `confusion[i][j]` counts class i taken for j.

    What a class has no images for is None: its recall where it has none, its precision where it was never predicted, its F1
    where both are so.
    """

    split: str
    images: int
    views: int
    accuracy: float
    top5: float  # the right class is among the five likeliest
    loss: float  # mean cross-entropy in nats, without any penalty
    brier: float  # mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950)
    interval95: tuple[float, float]  # Wilson's, of the accuracy; that for groups where images have some
    top5_interval95: tuple[float, float]
    calibration: Calibration
    classes: tuple[str, ...]
    per_class: tuple[float | None, ...]  # accuracy on the images of each class (recall)
    precision: tuple[float | None, ...]  # part of the images taken for each class that are of it
    f1: tuple[float | None, ...]  # harmonic mean of the two
    support: tuple[int, ...]  # images of each class
    per_class_interval95: tuple[tuple[float, float] | None, ...]  # as `interval95`, of the recall
    confusion: tuple[tuple[int, ...], ...]
    groups: int | None = None  # that the images are of, such as patients; None where none was named

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images, each counting alike however many it has."""
        return fmean(value for value in self.per_class if value is not None)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have images."""
        return fmean(value for value, images in zip(self.f1, self.support, strict=True) if value is not None and images)

    def most_confused(self, limit: int = 10) -> list[tuple[str, str, int, float]]:
        """The most frequent mistakes: class, what it was taken for, how often, which part of the class's images."""
        pairs = [
            (count, i, j) for i, row in enumerate(self.confusion) for j, count in enumerate(row) if i != j and count > 0
        ]
        pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
        return [(self.classes[i], self.classes[j], count, count / self.support[i]) for count, i, j in pairs[:limit]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `json.dumps` takes them; None for what is not known of another program's answers, NaN here."""
        means = {"balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}
        return json.loads(json.dumps(asdict(self) | means), parse_constant=lambda name: None)


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
    The predictions are kept in the run folder; probabilities are scaled by the run's temperature where `Scores` says "after".
    Where those of the same test images, views, device and precision are there already, they are scored and nothing is opened.
    Raises `UserError` where the run is unfinished, the data has changed since, or the split does not exist.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    options: dict[str, Any] = {"machine": machine, "data": data, "data_dir": data_dir}
    return measure(run, split=split, views=views, uncertain=uncertain, **options)[0]


def measure(
    run: "Run",
    *,
    split: str = "validation",
    views: int = 1,
    uncertain: float = 1.0,
    machine: "Machine | None" = None,
    data: "Dataset | None" = None,
    data_dir: str | Path | None = None,
    say: Callable[[str], None] = lambda told: None,
) -> tuple[Scores, Predictions]:
    """What `evaluate` does, with what the network said of every image; `say` is told of earlier looks at the test images, and of
    groups of images that the split shares with the training images.
    """
    check_views(views, mirrored=run.recipe.flip)
    check_part(uncertain)
    run.require_finished()
    data = run.check_data(data or run.load_data(data_dir=data_dir), split=split)
    shared = data.facts.get("shared_groups", {})
    for told in told_of_groups({name: count for name, count in shared.items() if name == split}):
        say(told)
    if split == "test":
        if kept := answers_kept(run, data, machine, views=views, uncertain=uncertain):
            say("the answers kept of an earlier opening of the test set; nothing was opened")
            return score_predictions(kept, temperature=run.temperature), kept
        say_of_earlier_looks(run, say)
    model, chosen, backend = load_for_evaluation(run, data, split, machine)
    if split == "test" and views > 1:  # `compare` goes by one view: it shall not need a second look
        record_scores(run, predictions_of(chosen, predict_logits(model, chosen, backend), data, split=split), backend)
    logits = predict_logits(model, chosen, backend, views=views, uncertain=uncertain)
    predictions = predictions_of(chosen, logits, data, split=split, views=views)
    if split == "validation" and views == 1 and not run.calibrated:
        with suppress(UserError):
            keep_validation(run, predictions)
    return record_scores(run, predictions, backend, uncertain=uncertain), predictions


def record_scores(run: "Run", predictions: Predictions, backend: Backend, *, uncertain: float = 1.0) -> Scores:
    """The scores of what was predicted, kept in the run folder with the predictions."""
    scores = score_predictions(predictions, temperature=run.temperature)
    with suppress(UserError):  # a run folder that cannot be written to: the scores are worth more than their record
        about = {"device": str(backend.device), "precision": backend.precision, "uncertain": uncertain}
        about["fingerprint"] = predictions.fingerprint
        run.record_evaluation({**scores.to_dict(), **about})
        if uncertain == 1:
            run.save_predictions(predictions)
    return scores


def keep_validation(run: "Run", predictions: Predictions) -> None:
    """Write what a finished network says of its validation images in one view, and the temperature that fits them."""
    temperature = fit_temperature(predictions.logits, predictions.labels)
    run.save_predictions(predictions)
    measured = asdict(score_predictions(predictions, temperature=temperature).calibration)
    run.save_calibration({"images": len(predictions.labels), **measured})


def predictions_of(chosen: Split, logits: Tensor, data: "Dataset", *, split: str, views: int = 1) -> Predictions:
    """Logits N K of the images `chosen`, with what tells which images they were."""
    rows, names = chosen.rows.cpu(), data.files_of(split)
    files = tuple(names[row] for row in rows.tolist()) if names else ()
    return Predictions(split, views, data.classes, data.fingerprint, rows, chosen.labels.cpu()[rows], logits, files,
                       data.groups_at(split, rows))  # fmt: skip


def answers_kept(
    run: "Run", data: "Dataset", machine: Machine | None, *, views: int, uncertain: float
) -> Predictions | None:
    """What the network said of these test images before, computed alike: using it again is no second look at them."""
    backend = prepare(run.machine_to_measure(machine or Machine()))
    same = [row for row in run.evaluations if (row["split"], row["views"], row.get("uncertain")) == ("test", views, 1)]
    alike = {"fingerprint": data.fingerprint, "device": str(backend.device), "precision": backend.precision}
    # The newest of them, whose answers lie in the file.
    if uncertain == 1 and same and all(same[-1].get(name) == value for name, value in alike.items()):
        with suppress(UserError):  # not there any more, or damaged
            kept = run.predictions("test", views=views)
            if kept.fingerprint == data.fingerprint:
                return replace(kept, groups=data.groups_at("test", kept.rows))  # an older run's lack them
    return None


def say_of_earlier_looks(run: "Run", say: Callable[[str], None]) -> None:
    """Before the test images of a run are looked at again."""
    if run.test_openings:
        times = counted(run.test_openings, "time")
        say(f"the test set was opened {times} before for this run; compare claims nothing of it then")


def load_for_evaluation(
    run: "Run", data: "Dataset", split: str, machine: Machine | None, images: int | None = None
) -> tuple[nn.Module, Split, Backend]:
    """A finished run's network and the images to measure it on, all or so many of them, evenly spread, both on the device.

    Opening the test split is counted.
    """
    backend = prepare(run.machine_to_measure(machine or Machine()))
    model = place(run.model(), backend.device)
    chosen = open_split(run, data, split, images)  # last: what fails before opens nothing
    return model, chosen.to(backend.device), backend


def open_split(run: "Run", data: "Dataset", split: str, images: int | None = None) -> Split:
    """The images to measure on, all or so many of them, evenly spread; opening the test split leaves a line in the run first."""
    check_split(run, data, split)
    if split == "test":
        assert data.test is not None
        run.count_test_opening(data, images)
        return some_of(data.test.unlock(), images)
    assert data.validation is not None
    return some_of(data.validation, images)


def check_split(run: "Run", data: "Dataset", split: str) -> None:
    """Raise `UserError` where the data, cut as for the run, have no such split."""
    if split not in ("validation", "test"):
        raise UserError(f"unknown split {split!r}; choose validation or test")
    if split == "test" and data.test is None:
        raise UserError(no_test_split(data.name, on_pictures=run.data.on_pictures))
    if split == "validation" and data.validation is None:
        raise UserError(
            f"{run.path} was trained on all its images (validation 0), so there is no validation split; take --split test"
        )


def no_test_split(name: str, *, on_pictures: bool) -> str:
    """What to say of a data set without test images."""
    if on_pictures and is_table(name):
        return f"{name} has no test split; write test into a column split for some of its images"
    missing = f"its images into {name}/test/<class>/" if on_pictures else f"one into {name}"
    return f"{name} has no test split; put {missing}"


def some_of(split: Split, images: int | None) -> Split:
    """So many images of a split, evenly spread over it, or all."""
    return whole(*split.evenly_spaced(images)) if images else split


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    split: Split,
    backend: Backend,
    *,
    views: int = 1,
    uncertain: float = 1.0,
    poll: Callable[[], None] = lambda: None,
    pixels: int | None = None,
) -> Tensor:
    """float32 N K on the CPU, in the order of the split. `poll` is called between batches and may raise to stop.

    A batch has images of so many `pixels` at the most, or of as many as this module thinks right.

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
    for images, _ in split.in_order(batch_size(split, backend, pixels)):
        poll()
        x = to_float(images).contiguous(memory_format=torch.channels_last)
        with backend.autocast():
            parts.append(average_over_views(model, x, views).float().cpu())
    return torch.cat(parts)


def batch_size(split: Split, backend: Backend, pixels: int | None = None) -> int:
    """How many images of a split are computed at once, so that they have `pixels` at the most."""
    height, width = split.images.shape[2:]
    pixels = pixels or (PIXELS_ON_GPU if backend.device.type == "cuda" else PIXELS_AT_ONCE)
    return max(1, pixels // (height * width))


def check_views(views: int, *, mirrored: bool = True) -> None:
    """Raise `UserError` for a number of views that there is not, or for mirror images that the network never saw."""
    if views not in VIEWS:
        raise UserError(f"views is {views}; choose 1, 2 or 6")
    if views > 1 and not mirrored:
        raise UserError(f"views is {views}, and the run was trained without mirror images (no flip); leave it out")


def check_part(uncertain: float) -> None:
    """Raise `UserError` for what is no part of the images."""
    if not 0 <= uncertain <= 1:
        raise UserError(f"uncertain is {uncertain:g}; give a part of the images, 0 to 1")


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


def score_predictions(predictions: Predictions, *, temperature: float = 1.0) -> Scores:
    """Scores of saved predictions; no network is needed."""
    return score(
        predictions.logits,
        predictions.labels,
        predictions.classes,
        split=predictions.split,
        views=predictions.views,
        temperature=temperature,
        groups=predictions.groups,
    )


def score(
    logits: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    *,
    split: str,
    views: int = 1,
    temperature: float = 1.0,
    groups: Tensor | None = None,
) -> Scores:
    """Scores of logits N K against labels N, of `groups` N. Raises `UserError` on an empty split."""
    if len(labels) == 0:
        raise UserError(f"the {split} split has no images")
    labels = labels.cpu()
    count = len(classes)
    predicted = logits.argmax(1)
    top5 = logits.topk(min(5, count), dim=1).indices  # N 5
    confusion = torch.bincount(labels * count + predicted, minlength=count * count).view(count, count)
    right, support, taken = (part.tolist() for part in (confusion.diagonal(), confusion.sum(1), confusion.sum(0)))
    hits = sum(right)
    probabilities = logits.double().softmax(1)
    hit, among = predicted == labels, (top5 == labels[:, None]).any(1)  # N each
    recall = [ratio(n, of) for n, of in zip(right, support, strict=True)]
    return Scores(
        split=split,
        images=len(labels),
        views=views,
        accuracy=hits / len(labels),
        top5=int(among.sum()) / len(labels),
        loss=F.cross_entropy(logits.double(), labels).item(),
        brier=(probabilities - F.one_hot(labels, count)).square().sum(1).mean().item(),
        interval95=interval_of(hit, groups),
        top5_interval95=interval_of(among, groups),
        calibration=calibration(logits, labels, temperature),
        classes=classes,
        per_class=tuple(recall),
        precision=tuple(ratio(n, of) for n, of in zip(right, taken, strict=True)),
        f1=tuple(ratio(2 * n, of + said) for n, of, said in zip(right, support, taken, strict=True)),
        support=tuple(support),
        per_class_interval95=tuple(
            interval_of(hit[of_class], part_of(groups, of_class)) if of_class.any() else None
            for of_class in (labels == label for label in range(count))
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        groups=count_of(groups),
    )


def ratio(part: int, whole: int) -> float | None:
    """`part` of `whole`, None of nothing."""
    return part / whole if whole else None
