"""Figures: the curves of a run, the figure of the classic report, and grids of images. Matplotlib without pyplot."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from thumbnet.claims import metric_in_words
from thumbnet.files import replacing
from thumbnet.recipes import as_typed, title_of
from thumbnet.recipes.recipe import Recipe
from thumbnet.schedule import learning_rate
from thumbnet.words import shortened, told_apart

if TYPE_CHECKING:
    from torch import Tensor

    from thumbnet.calibration import Bin
    from thumbnet.comparison import Comparison, Pair
    from thumbnet.evaluation import Scores
    from thumbnet.explanation import Explanation
    from thumbnet.runs import Run

TRAINING, VALIDATION, RATE = "#0072b2", "#d55e00", "#5b5b5b"  # Okabe & Ito's palette, safe for colour-blind readers
DPI = 120
NAME = 18  # letters of a class that have room below a thumbnail
OVERLAY = 0.6  # opacity of a map over its image; less hides the map, more the image
RATE_POINTS = 50  # of the learning rate's curve in an epoch


def save_run_plots(run: "Run") -> list[Path]:
    """Write plots/curves.png and plots/classic.png of a run with at least one epoch; gives their paths."""
    folder, rows = run.path / "plots", run.metrics
    top5 = len(run.classes) >= 100  # the report shows accuracy for CIFAR-10 and top-5 accuracy for CIFAR-100
    figures = {
        folder / "curves.png": curves(
            rows, run.recipe, title=f"{title_of(run.recipe)} on {run.data['name']}, seed {run.recipe.seed}"
        ),
        folder / "classic.png": classic_figure(rows, top5=top5),
    }
    for path, figure in figures.items():
        save(figure, path)
    return list(figures)


@contextmanager
def letters_may_be_missing() -> Iterator[None]:
    """Without a warning for each letter of a class's name that the font lacks: it is drawn as a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in one step."""
    with replacing(path) as temporary, letters_may_be_missing():
        figure.savefig(temporary, format="png", dpi=DPI)


def curves(rows: Sequence[dict[str, Any]], recipe: Recipe, *, title: str) -> Figure:
    """Accuracy, loss and learning rate by epoch, training and validation, the best epoch marked.

    Figures stand at the end of their epoch, the last one where the run ended; the learning rate is drawn step by step.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    if title:
        figure.suptitle(title, parse_math=False)
    for axes, what in zip(figure.subplots(1, 3), CURVES, strict=True):
        draw_curve(axes, what, rows, recipe)
    return figure


def curve(what: str, rows: Sequence[dict[str, Any]], recipe: Recipe) -> Figure:
    """One of `CURVES` as a figure of its own."""
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    draw_curve(figure.subplots(), what, rows, recipe)
    return figure


CURVES = ("accuracy", "loss", "learning rate")


def draw_curve(axes: Axes, what: str, rows: Sequence[dict[str, Any]], recipe: Recipe) -> None:
    """One of `CURVES` by epoch."""
    if what == "learning rate":
        draw_rate(axes, rows, recipe)
    else:
        draw_pair(axes, rows, what, recipe)
        axes.legend(loc="best", frameon=False)
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
    smoothed = what == "loss" and recipe.label_smoothing  # keeps it from zero, and above that of validation
    label = f"training, labels smoothed by {recipe.label_smoothing:g}" if smoothed else "training"
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
        axes.set_xlabel(shortened(names[index], NAME), fontsize=9, parse_math=False)
    return figure


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
    axes.set(xlabel="predicted", ylabel="true")
    if kinds > 30:
        return figure
    names = [shortened(name, NAME) for name in scores.classes]
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
    axes.plot([0, 1], [0, 1], color=RATE, linewidth=1, linestyle=":", label="perfectly calibrated")
    for bins, colour, mark, label in (
        (before, TRAINING, "o", "as trained"),
        (after, VALIDATION, "s", f"at temperature {temperature:.2f}"),
    ):
        x, y = [row.confidence for row in bins], [row.accuracy for row in bins]
        spread = np.array([[row.accuracy - row.interval95[0], row.interval95[1] - row.accuracy] for row in bins])
        axes.errorbar(x, y, np.abs(spread.T), color=colour, marker=mark, ms=4, lw=1.2, elinewidth=0.8, label=label)
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
    said = f"{shortened(title, 60)}: {shortened(classes[explanation.target], NAME)} {explanation.probability:.1%}"
    figure.suptitle(said, parse_math=False, fontsize=11)
    panels = figure.subplots(1, 3 + len(near), squeeze=False)[0]
    image = explanation.image.numpy()
    for axes, pixels, name in (
        (panels[0], image, "image"),
        (panels[1], overlaid(image, occlusion_overlay(explanation.occlusion)).transpose(2, 0, 1), "covering costs"),
        (panels[2], overlaid(image, explanation.activation.numpy()).transpose(2, 0, 1), "class activation"),
    ):
        show(axes, pixels)
        axes.set_xlabel(name, fontsize=9)
    for axes, neighbour in zip(panels[3:], near, strict=True):
        show(axes, neighbour.image.numpy())
        text = f"{shortened(classes[neighbour.label], NAME)}\ncosine {neighbour.similarity:.2f}"
        axes.set_xlabel(text, fontsize=9, parse_math=False)
    return figure


def overlaid(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """uint8 C H W in grey under a map H W in [0, 1], whose colours go from black over red to yellow: uint8 H W 3."""
    grey = image.mean(axis=0, keepdims=True).transpose(1, 2, 0) / 255  # H W 1
    colours = colormaps["inferno"](np.asarray(values))[:, :, :3]  # H W 3
    return (((1 - OVERLAY) * grey + OVERLAY * colours) * 255).round().astype(np.uint8)


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


STYLES = ("-", "--", "-.", ":")  # after a round of colours the next: 32 groups can be told apart


def comparison_figure(comparison: "Comparison", metrics: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Validation by epoch, and where every seed ended, side by side.

    `metrics` holds the rows of metrics.jsonl by the path of the run.
    """
    groups = comparison.groups
    figure = Figure(figsize=(11, max(3.8, 1.6 + 0.42 * len(groups))), layout="constrained")
    by_epoch, ends = figure.subplots(1, 2)
    draw_epochs(by_epoch, comparison, metrics)
    draw_ends(ends, comparison)
    return figure


def epochs_figure(comparison: "Comparison", metrics: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Validation by epoch of each group."""
    figure = Figure(figsize=(5.4, 3.8 + 0.2 * len(comparison.groups)), layout="constrained")
    draw_epochs(figure.subplots(), comparison, metrics)
    return figure


def ends_figure(comparison: "Comparison") -> Figure:
    """Where every seed of each group ended."""
    figure = Figure(figsize=(5.4, 1.6 + 0.42 * len(comparison.groups)), layout="constrained")
    draw_ends(figure.subplots(), comparison)
    return figure


def draw_epochs(axes: Axes, comparison: "Comparison", metrics: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Validation by epoch: the mean over seeds as a line, their range as a band."""
    names = told_apart([group.name for group in comparison.groups])
    for place, group in enumerate(comparison.groups):
        runs = [metrics[member.path] for member in group.members]
        draw_band(axes, runs, comparison.metric, *look_of(place), names[place])
    axes.set(title=f"validation {metric_in_words(comparison.metric)}", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if all(len(rows) == 1 for rows in metrics.values()):
        axes.set_xlim(0, 2)
    if comparison.metric != "loss":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if axes.has_data():
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16))
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)


def draw_ends(axes: Axes, comparison: "Comparison") -> None:
    """Every seed's end as a dot, the mean with its 95 % interval over them."""
    groups = comparison.groups
    for place, group in enumerate(groups):
        colour, style = look_of(place)
        axes.scatter(group.values, [place] * group.n, color=colour, alpha=0.45, s=22, zorder=2)
        interval = group.interval95 or (group.mean, group.mean)
        axes.plot(interval, [place, place], color=colour, lw=2, ls=style)
        axes.plot(group.mean, place, "D", color=colour, ms=6, zorder=3)
    short = told_apart([group.name for group in groups])
    names = [f"{name}  (n = {group.n})" for name, group in zip(short, groups, strict=True)]
    axes.set_yticks(range(len(groups)), names, parse_math=False)
    axes.yaxis.tick_right()
    axes.set_ylim(len(groups) - 0.5, -0.5)
    # Long names leave the axes narrow: a title in the middle would begin outside.
    axes.set_title(f"{comparison.split} {metric_in_words(comparison.metric)} at the end", loc="left")
    if comparison.metric != "loss":
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def look_of(place: int) -> tuple[str, str]:
    """Colour and line of the group at a place."""
    return PALETTE[place % len(PALETTE)], STYLES[place // len(PALETTE) % len(STYLES)]


def draw_band(
    axes: Axes, runs: Sequence[Sequence[dict[str, Any]]], metric: str, colour: str, style: str, name: str
) -> None:
    """The mean over runs by epoch as a line, their range as a band; nothing where no validation was measured."""
    key = f"validation_{metric}"
    epochs = min(len(rows) for rows in runs)
    if epochs == 0 or any(row[key] is None for rows in runs for row in rows):
        return
    values = np.array([[row[key] for row in rows[:epochs]] for rows in runs])  # runs, epochs
    x = np.arange(1, epochs + 1)
    axes.plot(x, values.mean(0), color=colour, ls=style, marker="." if epochs <= 30 else "", label=name)
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
    all_names = sorted({name for pair in pairs for name in (pair.first, pair.second)})
    short = dict(zip(all_names, told_apart(all_names), strict=True))
    names = [f"{short[pair.second]}  against  {short[pair.first]}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), names, parse_math=False)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlabel("difference in nats" if metric == "loss" else "difference in points")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def sweep_figure(
    values: "Mapping[str, tuple[Sequence[Any], Sequence[float]]]",
    best: int,
    metric: str,
    ranges: Mapping[str, tuple[float, float, bool]],
) -> Figure:
    """What every trial reached by the value of each field, a panel per field; the trial at place `best` marked.

    `ranges` holds lowest and highest value of the fields that have a range, and whether their axis is logarithmic.
    """
    columns = len(values) if len(values) < 4 else 2 if len(values) == 4 else 3
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(4 * columns, 0.5 + 3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes in panels[len(values) :]:
        axes.set_visible(False)
    for axes, (name, (x, y)) in zip(panels, values.items(), strict=False):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in x)
        shown = x if numbers else [as_typed(value) for value in x]
        axes.scatter(shown, y, color=TRAINING, alpha=0.6, s=24)
        axes.scatter([shown[best]], [y[best]], color=VALIDATION, s=60, marker="D", zorder=3, label="the best")
        low, high, by_factors = ranges.get(name, (0, 0, False))
        if by_factors:
            axes.set_xscale("log")
            axes.set_xlim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        elif numbers and all(isinstance(value, int) for value in x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if high > low and not by_factors:
            axes.set_xlim(low - (high - low) / 20, high + (high - low) / 20)
        elif not numbers:
            axes.margins(x=0.3)
        axes.set_xlabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if metric != "loss":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside upper right")
    figure.supylabel(f"validation {metric_in_words(metric)}", fontsize=10)
    return figure
