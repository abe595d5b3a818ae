"""Figures: the curves of a run, the figure of the classic report, and grids of images. Matplotlib without pyplot."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from thumbnet.files import replacing
from thumbnet.recipes.recipe import Recipe
from thumbnet.schedule import learning_rate

if TYPE_CHECKING:
    from thumbnet.runs import Run

TRAINING, VALIDATION, RATE = "#0072b2", "#d55e00", "#5b5b5b"  # Okabe & Ito's palette, safe for colour-blind readers
DPI = 120
RATE_POINTS = 50  # of the learning rate's curve in an epoch


def save_run_plots(run: "Run") -> list[Path]:
    """Write plots/curves.png and plots/classic.png of a run with at least one epoch; gives their paths."""
    folder, rows = run.path / "plots", run.metrics
    top5 = len(run.classes) >= 100  # the report shows accuracy for CIFAR-10 and top-5 accuracy for CIFAR-100
    figures = {
        folder / "curves.png": curves(
            rows, run.recipe, title=f"{run.recipe.name} on {run.data['name']}, seed {run.recipe.seed}"
        ),
        folder / "classic.png": classic_figure(rows, top5=top5),
    }
    for path, figure in figures.items():
        save(figure, path)
    return list(figures)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in one step."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def curves(rows: Sequence[dict[str, Any]], recipe: Recipe, *, title: str) -> Figure:
    """Accuracy, loss and learning rate by epoch, training and validation, the best epoch marked.

    Figures stand at the end of their epoch; the learning rate is drawn step by step.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(title, parse_math=False)
    accuracy, loss, rate = figure.subplots(1, 3)
    draw_pair(accuracy, rows, "accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    mark_best(accuracy, rows)
    accuracy.legend(loc="best", frameon=False)
    draw_pair(loss, rows, "loss")
    loss.set_ylim(bottom=0)
    loss.legend(loc="best", frameon=False)
    fractions = np.arange(RATE_POINTS) / RATE_POINTS
    epochs = range(rows[0]["epoch"] - 1, rows[-1]["epoch"])
    points = [(epoch, i) for epoch in epochs for i in range(RATE_POINTS) if epoch + fractions[i] < recipe.epochs]
    rates = [learning_rate(recipe, epoch, i, RATE_POINTS) for epoch, i in points]
    rate.plot([epoch + fractions[i] for epoch, i in points], rates, color=RATE)
    rate.set_ylim(bottom=0)
    for axes, label in ((accuracy, "accuracy"), (loss, "loss (cross-entropy)"), (rate, "learning rate")):
        axes.set(title=label, xlabel="epoch")
        axes.set_xlim(*((0, 2) if len(rows) == 1 else (None, None)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_pair(axes: Axes, rows: Sequence[dict[str, Any]], what: str) -> None:
    """One curve for training and one for validation, where it was measured."""
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, [row[f"train_{what}"] for row in rows], color=TRAINING, label="training", marker=marker(rows))
    measured = [row for row in rows if row[f"validation_{what}"] is not None]
    if measured:
        values = [row[f"validation_{what}"] for row in measured]
        axes.plot([row["epoch"] for row in measured], values, color=VALIDATION, label="validation", marker=marker(rows))


def marker(rows: Sequence[dict[str, Any]]) -> str:
    """Dots where there are few epochs; a single one would otherwise be invisible."""
    return "." if len(rows) <= 30 else ""


def mark_best(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """A ring around the epoch with the highest validation accuracy, with its value in the legend."""
    measured = [row for row in rows if row["validation_accuracy"] is not None]
    if measured:
        best = max(measured, key=lambda row: row["validation_accuracy"])
        label = f"best: {best['validation_accuracy']:.2%} in epoch {best['epoch']}"
        axes.plot(best["epoch"], best["validation_accuracy"], "o", mfc="none", ms=10, color=VALIDATION, label=label)


def classic_figure(rows: Sequence[dict[str, Any]], *, top5: bool) -> Figure:
    """The report's figure: training and validation accuracy in one plot, legend upper left, y label horizontal."""
    key, label, width = ("top5", "Top 5 Accuracy", 15) if top5 else ("accuracy", "Accuracy", 10)
    figure = Figure(figsize=(width, 5), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] - 1 for row in rows]  # the report counts from 0
    axes.plot(epochs, [row[f"train_{key}"] for row in rows], label="Train", marker=marker(rows))
    if rows[-1][f"validation_{key}"] is not None:
        axes.plot(epochs, [row[f"validation_{key}"] for row in rows], label="Valid", marker=marker(rows))
    axes.set(title=f"Model {label}", xlabel="Epochs")
    axes.set_ylabel(label, rotation="horizontal", ha="right")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left")
    return figure


def image_grid(images: np.ndarray, names: Sequence[str], *, rows: int, columns: int, title: str) -> Figure:
    """uint8 N C H W with one name each, in rows x columns, as the report shows its data (no ticks, name below)."""
    figure = Figure(figsize=(1.5 * columns + 0.5, 1.75 * rows + 0.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for index, axes in enumerate(np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).flat):
        axes.set_xticks([])
        axes.set_yticks([])
        if index >= len(images):
            axes.set_axis_off()
            continue
        picture = images[index].transpose(1, 2, 0)  # H W C
        if picture.shape[2] == 1:
            axes.imshow(picture[:, :, 0], cmap="gray", vmin=0, vmax=255)
        else:
            axes.imshow(picture)
        axes.set_xlabel(shortened(names[index]), fontsize=9, parse_math=False)
    return figure


def shortened(name: str, limit: int = 18) -> str:
    """Long class names cut, so that neighbours do not overlap."""
    return name if len(name) <= limit else name[: limit - 1] + "\u2026"
