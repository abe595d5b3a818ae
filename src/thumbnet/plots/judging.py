"""What was measured of a network: confusion, calibration, risk, corrupted images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from thumbnet.plots.images import NAME
from thumbnet.plots.style import RATE, TRAINING, VALIDATION, percented
from thumbnet.words import shortened

if TYPE_CHECKING:
    from thumbnet.judging.calibration import Bin
    from thumbnet.judging.evaluation import Scores


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
