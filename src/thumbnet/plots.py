"""Figures: the curves of a run, the figure of the classic report, and grids of images. Matplotlib without pyplot."""

from collections.abc import Mapping, Sequence
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
    from torch import Tensor

    from thumbnet.calibration import Bin
    from thumbnet.comparison import Comparison, Pair
    from thumbnet.evaluation import Scores
    from thumbnet.explanation import Explanation
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
    if title:
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
        if index >= len(images):
            axes.set_axis_off()
            continue
        show(axes, images[index])
        axes.set_xlabel(shortened(names[index]), fontsize=9, parse_math=False)
    return figure


def shortened(name: str, limit: int = 18) -> str:
    """Long class names cut, so that neighbours do not overlap."""
    return name if len(name) <= limit else name[: limit - 1] + "\u2026"


# ---------------------------------------------------------------- judging


def confusion_figure(scores: "Scores") -> Figure:
    """Rows are classes, columns what they were taken for, colour the part of the row; numbers where there is room."""
    matrix = np.array(scores.confusion)
    parts = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    kinds = len(scores.classes)
    side = min(10.0, 2.5 + 0.55 * kinds)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(
        image, ax=axes, shrink=0.7, label="part of the class's images", format=PercentFormatter(1, decimals=0)
    )
    axes.set(xlabel="taken for", ylabel="class")
    if kinds > 30:
        return figure
    names = [shortened(name) for name in scores.classes]
    axes.set_xticks(range(kinds), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(kinds), names, parse_math=False)
    if kinds <= 15:
        for i, j in np.ndindex(matrix.shape):
            if matrix[i, j]:
                colour = "white" if parts[i, j] > 0.5 else "black"
                axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", fontsize=8, color=colour)
    return figure


def reliability_figure(before: "Sequence[Bin]", after: "Sequence[Bin]", temperature: float) -> Figure:
    """Accuracy by confidence, as trained and at the temperature; on the diagonal confidence is deserved."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=RATE, linewidth=1, linestyle=":", label="as sure as right")
    for bins, colour, label in (
        (before, TRAINING, "as trained"),
        (after, VALIDATION, f"at temperature {temperature:.2f}"),
    ):
        x, y = [row.confidence for row in bins], [row.accuracy for row in bins]
        spread = np.array([[row.accuracy - row.interval95[0], row.interval95[1] - row.accuracy] for row in bins])
        axes.errorbar(x, y, np.abs(spread.T), color=colour, marker="o", ms=4, lw=1.2, elinewidth=0.8, label=label)
    axes.set(xlabel="mean confidence in the bin", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    return percented(axes)


def risk_figure(coverage: Any, risk: Any) -> Figure:
    """Errors among the surest part of the images, by that part."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    places = np.unique(np.linspace(0, len(coverage) - 1, 400).astype(int))
    axes.plot(np.asarray(coverage)[places], np.asarray(risk)[places], color=TRAINING)
    axes.set(xlabel="part of the images answered, surest first", ylabel="errors among them", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    return percented(axes, legend=False)


def percented(axes: Axes, *, legend: bool = True) -> Figure:
    """Axes in percent with a light grid, without the frame's upper and right sides."""
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, loc="best")
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def robustness_figure(measured: dict[str, Any]) -> Figure:
    """Accuracy by kind of corruption, a darker cell for a higher level; the clean accuracy as a line."""
    rows = measured["rows"]
    figure = Figure(figsize=(7.5, 0.32 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    values = np.array([row["accuracies"] for row in rows])
    shades = ["#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#084594"]
    for level, shade in enumerate(shades):
        axes.scatter(values[:, level], range(len(rows)), color=shade, s=28, zorder=3, label=f"level {level + 1}")
    for place, row in enumerate(values):
        axes.plot([row.min(), row.max()], [place, place], color="#c6c6c6", lw=1, zorder=1)
    axes.axvline(measured["clean"], color=VALIDATION, lw=1.2, label="clean")
    axes.set_yticks(range(len(rows)), [row["kind"].replace("_", " ") for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def explanation_figure(explanation: "Explanation", classes: Sequence[str], *, title: str) -> Figure:
    """The image, both maps over it, and its neighbours in the training set."""
    near = explanation.neighbours
    figure = Figure(figsize=(1.7 * (3 + len(near)), 2.5), layout="constrained")
    said = f"{shortened(title, 60)}: {shortened(classes[explanation.target])} {explanation.probability:.1%}"
    figure.suptitle(said, parse_math=False, fontsize=11)
    panels = figure.subplots(1, 3 + len(near), squeeze=False)[0]
    for axes, map_, name in (
        (panels[0], None, "image"),
        (panels[1], occlusion_overlay(explanation.occlusion), "covering costs"),
        (panels[2], explanation.activation.numpy(), "class activation"),
    ):
        show(axes, explanation.image.numpy())
        if map_ is not None:
            axes.imshow(map_, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        axes.set_xlabel(name, fontsize=9)
    for axes, neighbour in zip(panels[3:], near, strict=True):
        show(axes, neighbour.image.numpy())
        text = f"{shortened(classes[neighbour.label])}\ncosine {neighbour.similarity:.2f}"
        axes.set_xlabel(text, fontsize=9, parse_math=False)
    return figure


def occlusion_overlay(occlusion: "Tensor") -> np.ndarray:
    """What covering costs, in parts of the largest cost; places where it helps count as zero."""
    positive = np.maximum(occlusion.numpy(), 0)
    return positive / max(positive.max(), 1e-12)


def show(axes: Axes, image: np.ndarray) -> None:
    """uint8 C H W without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    if image.shape[0] == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(image.transpose(1, 2, 0))


PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#8c510a",
)  # Okabe & Ito's, reordered


def comparison_figure(comparison: "Comparison", metrics: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Validation by epoch, mean and range over seeds, and where every seed ended, with the mean and its 95 % interval.

    `metrics` holds the rows of metrics.jsonl by the path of the run.
    """
    groups = comparison.groups
    figure = Figure(figsize=(11, max(3.8, 1.6 + 0.42 * len(groups))), layout="constrained")
    by_epoch, ends = figure.subplots(1, 2)
    for place, group in enumerate(groups):
        colour = PALETTE[place % len(PALETTE)]
        draw_band(by_epoch, [metrics[member.path] for member in group.members], comparison.metric, colour)
        ends.scatter(group.values, [place] * group.n, color=colour, alpha=0.45, s=22, zorder=2)
        interval = group.interval95 or (group.mean, group.mean)
        ends.plot(interval, [place, place], color=colour, lw=2)
        ends.plot(group.mean, place, "D", color=colour, ms=6, zorder=3)
    by_epoch.set(title=f"validation {comparison.metric}", xlabel="epoch")
    by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True))
    if all(len(rows) == 1 for rows in metrics.values()):
        by_epoch.set_xlim(0, 2)
    names = [f"{shortened(group.name, 44)}  (n = {group.n})" for group in groups]
    ends.set_yticks(range(len(groups)), names, parse_math=False)
    ends.yaxis.tick_right()
    ends.set_ylim(len(groups) - 0.5, -0.5)
    ends.set(title=f"{comparison.split} {comparison.metric} at the end")
    for axes, axis in ((by_epoch, by_epoch.yaxis), (ends, ends.xaxis)):
        if comparison.metric != "loss":
            axis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.25)
        axes.spines["top"].set_visible(False)
    ends.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def draw_band(axes: Axes, runs: Sequence[Sequence[dict[str, Any]]], metric: str, colour: str) -> None:
    """The mean over runs by epoch as a line, their range as a band; nothing where no validation was measured."""
    key = f"validation_{metric}"
    epochs = min(len(rows) for rows in runs)
    if epochs == 0 or any(row[key] is None for rows in runs for row in rows):
        return
    values = np.array([[row[key] for row in rows[:epochs]] for rows in runs])  # runs, epochs
    x = np.arange(1, epochs + 1)
    axes.plot(x, values.mean(0), color=colour, marker="." if epochs <= 30 else "")
    axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)


def effects_figure(pairs: "Sequence[Pair]", metric: str) -> Figure:
    """Differences of means over seeds with their 95 % intervals; the dot filled where a difference is claimed."""
    scale = 1 if metric == "loss" else 100
    figure = Figure(figsize=(9, 1.1 + 0.42 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=RATE, lw=1)
    for place, pair in enumerate(pairs):
        found = pair.difference
        assert found is not None
        axes.plot([scale * found.low, scale * found.high], [place, place], color=TRAINING, lw=2)
        axes.plot(scale * found.estimate, place, "o", color=TRAINING, mfc=TRAINING if pair.claimed else "white", ms=8)
    names = [f"{shortened(pair.second, 44)}  against  {shortened(pair.first, 44)}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), names, parse_math=False)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlabel("difference in nats" if metric == "loss" else "difference in points")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure
