"""Groups of runs: by epoch, where they ended, how they differ; the trials of a sweep."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from thumbnet.plots.style import RATE, TRAINING, VALIDATION
from thumbnet.recipes import as_typed
from thumbnet.words import metric_in_words, told_apart

if TYPE_CHECKING:
    from thumbnet.judging.comparison import Comparison
    from thumbnet.judging.pairs import Pair

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
        axes.scatter(group.values, [place] * group.n, color=colour, alpha=0.45, s=22, zorder=2, clip_on=False)
        interval = group.interval95 or (group.mean, group.mean)
        axes.plot(interval, [place, place], color=colour, lw=2, ls=style)
        axes.plot(group.mean, place, "D", color=colour, ms=6, zorder=3, clip_on=False)
    short = told_apart([group.name for group in groups])
    names = [f"{name}  (n = {group.n})" for name, group in zip(short, groups, strict=True)]
    axes.set_yticks(range(len(groups)), names, parse_math=False)
    axes.yaxis.tick_right()
    axes.set_ylim(len(groups) - 0.5, -0.5)
    # Long names leave the axes narrow: a title in the middle would begin outside.
    axes.set_title(f"{comparison.split} {metric_in_words(comparison.metric)} at the end", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if comparison.metric != "loss":
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, 0), min(high, 1))  # margins would show what there cannot be
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)


def look_of(place: int) -> tuple[str, str]:
    """Colour and line of the group at a place."""
    return PALETTE[place % len(PALETTE)], STYLES[place // len(PALETTE) % len(STYLES)]


def draw_band(
    axes: Axes, runs: Sequence[Sequence[dict[str, Any]]], metric: str, colour: str, style: str, name: str
) -> None:
    """The mean over runs by epoch as a line, their range as a band; nothing where no validation was measured."""
    key = f"validation_{metric}"
    epochs = min(len(rows) for rows in runs)
    if epochs == 0 or any(row.get(key) is None for rows in runs for row in rows):
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
