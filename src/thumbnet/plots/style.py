"""What all figures share: colours, how they are written, a frame in percent."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import font_manager, rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter

from thumbnet.files import replacing
from thumbnet.words import printable, visible_lines

TRAINING, VALIDATION, RATE = "#0072b2", "#d55e00", "#5b5b5b"  # Okabe & Ito's palette, safe for colour-blind readers
DPI = 120
UNDATED: dict[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}  # without the time of day


# Families with the letters that matplotlib's own font lacks, Chinese, Japanese and Korean ones above all: what Linux and macOS
# bring or offer.
WIDER = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "IPAGothic", "NanumGothic", "Hiragino Sans", "PingFang HK", "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Emoji",
    "Symbola", "Unifont",
)  # fmt: skip


@contextmanager
def letters_of_all_fonts(figure: Figure) -> Iterator[None]:
    """Letters that the first font lacks come from another one installed here; where none has them they are boxes, untold."""
    known = set(font_manager.get_font_names())
    families = [*rcParams["font.family"], *(name for name in WIDER if name in known)]
    for text in figure.findobj(Text):
        text.set_text(visible_lines(printable(text.get_text())))  # an SVG may hold nothing else
        if not text.get_text().isascii():
            text.set_fontfamily(families)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure in one step: as SVG or PDF where the name ends so, else as PNG. The same bytes each time."""
    kind = path.suffix.lower().removeprefix(".")
    kind = kind if kind in UNDATED else "png"
    with replacing(path) as temporary, letters_of_all_fonts(figure), rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(temporary, format=kind, dpi=DPI, metadata=UNDATED[kind])


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
