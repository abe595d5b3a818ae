"""What all figures share: colours, how they are written, a frame in percent."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from thumbnet.files import replacing

TRAINING, VALIDATION, RATE = "#0072b2", "#d55e00", "#5b5b5b"  # Okabe & Ito's palette, safe for colour-blind readers
DPI = 120


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
