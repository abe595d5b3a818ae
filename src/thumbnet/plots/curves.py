"""The curves of a run by epoch, and the figure of the classic report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from thumbnet.plots.style import RATE, TRAINING, VALIDATION, save
from thumbnet.recipes import title_of
from thumbnet.recipes.recipe import Recipe
from thumbnet.recipes.schedule import learning_rate

if TYPE_CHECKING:
    from thumbnet.runs.run import Run

CURVES = ("accuracy", "loss", "learning rate")
RATE_POINTS = 50  # of the learning rate's curve in an epoch


def save_run_plots(run: "Run") -> list[Path]:
    """Write plots/curves.png and plots/classic.png of a run with at least one epoch; gives their paths."""
    folder, rows = run.path / "plots", run.metrics
    top5 = len(run.classes) >= 100  # the report shows accuracy for CIFAR-10 and top-5 accuracy for CIFAR-100
    figures = {
        folder / "curves.png": curves(
            rows, run.recipe, title=f"{title_of(run.recipe)} on {run.data['name']}, seed {run.recipe.seed}"
        ),
        folder / "classic.png": classic_figure(rows, top5=top5, hardest=run.recipe.hardest < 1),
    }
    for path, figure in figures.items():
        save(figure, path)
    return list(figures)


def curves(rows: Sequence[dict[str, Any]], recipe: Recipe, *, title: str) -> Figure:
    """Accuracy, loss and learning rate by epoch, training and validation, the best epoch marked.

    Figures stand at the end of their epoch, the last one where the run ended; the learning rate is drawn step by step.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    if title:
        figure.suptitle(title, parse_math=False)
    for axes, what in zip(figure.subplots(1, 3), CURVES, strict=True):
        draw_curve(axes, what, rows, recipe)
    return figure


def curve(what: str, rows: Sequence[dict[str, Any]], recipe: Recipe) -> Figure:
    """One of `CURVES` as a figure of its own."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    draw_curve(figure.subplots(), what, rows, recipe)
    return figure


def draw_curve(axes: Axes, what: str, rows: Sequence[dict[str, Any]], recipe: Recipe) -> None:
    """One of `CURVES` by epoch."""
    if what == "learning rate":
        draw_rate(axes, rows, recipe)
    else:
        draw_pair(axes, rows, what, recipe)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16))  # inside, long labels leave the frame
    if what == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        axes.set_ylim(bottom=0)
    axes.set(title="loss (cross-entropy)" if what == "loss" else what, xlabel="epoch")
    axes.set_xlim(*((0, 2) if len(rows) == 1 else (None, None)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_rate(axes: Axes, rows: Sequence[dict[str, Any]], recipe: Recipe) -> None:
    """The learning rate over the epochs that were trained, each by what was planned at its end."""
    places, rates = [], []
    for row in rows:
        planned, epoch = replace(recipe, epochs=row.get("epochs", recipe.epochs)), row["epoch"] - 1
        points = [i for i in range(RATE_POINTS) if epoch + i / RATE_POINTS < planned.epochs]
        places += [epoch + i / RATE_POINTS for i in points]
        rates += [learning_rate(planned, epoch, i, RATE_POINTS) for i in points]
    axes.plot(places, rates, color=RATE)


def draw_pair(axes: Axes, rows: Sequence[dict[str, Any]], what: str, recipe: Recipe) -> None:
    """One curve for training and one for validation, where it was measured; of the accuracy the best is marked."""
    place = ended(rows, recipe.epochs)
    label = "training" if recipe.hardest == 1 else "training (hardest images)"
    if what == "loss" and recipe.label_smoothing:  # keeps it from zero, and above that of validation
        label += f", labels smoothed by {recipe.label_smoothing:g}"
    axes.plot(place, [row[f"train_{what}"] for row in rows], color=TRAINING, label=label, marker=marker(rows))
    measured = [(x, row) for x, row in zip(place, rows, strict=True) if row[f"validation_{what}"] is not None]
    if not measured:
        return
    values = [row[f"validation_{what}"] for _, row in measured]
    style: dict[str, Any] = {"color": VALIDATION, "linestyle": "--", "marker": marker(rows)}
    axes.plot([x for x, _ in measured], values, label="validation", **style)
    if what == "accuracy":
        x, best = max(measured, key=lambda point: (point[1]["validation_accuracy"], point[0]))  # of equal ones the last
        label = f"best: {best['validation_accuracy']:.2%} in epoch {best['epoch']}"
        label += "" if best is rows[-1] else "; the last is kept"
        axes.plot(x, best["validation_accuracy"], "o", mfc="none", ms=10, color=VALIDATION, label=label)


def ended(rows: Sequence[dict[str, Any]], epochs: float) -> list[float]:
    """Where on the axis each epoch ended: the last of a run of 1.4 epochs at 1.4."""
    return [min(row["epoch"], epochs) for row in rows]


def marker(rows: Sequence[dict[str, Any]]) -> str:
    """Dots where there are few epochs; a single one would otherwise be invisible."""
    return "." if len(rows) <= 30 else ""


def classic_figure(rows: Sequence[dict[str, Any]], *, top5: bool, hardest: bool = False) -> Figure:
    """The report's figure: training and validation accuracy in one plot, legend upper left, y label horizontal."""
    key, label, width = ("top5", "Top 5 Accuracy", 15) if top5 else ("accuracy", "Accuracy", 10)
    figure = Figure(figsize=(width, 5), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] - 1 for row in rows]  # the report counts from 0
    axes.plot(
        epochs,
        [row[f"train_{key}"] for row in rows],
        label="Train (hardest images)" if hardest else "Train",
        marker=marker(rows),
    )
    if rows[-1][f"validation_{key}"] is not None:
        axes.plot(epochs, [row[f"validation_{key}"] for row in rows], label="Valid", marker=marker(rows))
    axes.set(title=f"Model {label}", xlabel="Epochs")
    axes.set_ylabel(label, rotation="horizontal", ha="right")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left")
    return figure
