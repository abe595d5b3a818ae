"""Figures and thumbnails as data URIs, so that a page is one file."""
# Shapes: C channels, H and W height and width.

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from thumbnet.plots.images import overlaid
from thumbnet.plots.style import letters_of_all_fonts

SVG: Any = {"svg.hashsalt": "thumbnet", "font.size": 10}  # the salt makes equal figures equal files


@dataclass(frozen=True)
class Picture:
    """Something to look at, and what it shows for those who cannot. Pixels are for thumbnails; None: its own size."""

    source: str  # a data URI
    alt: str


def as_svg(figure: Figure, alt: str) -> Picture:
    """A figure as SVG, with its text drawn as paths, so that it looks the same everywhere."""
    buffer = io.BytesIO()
    with rc_context(SVG), letters_of_all_fonts(figure):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(data_uri("image/svg+xml", buffer.getvalue()), alt)


def as_thumbnail(image: NDArray[np.uint8], alt: str) -> Picture:
    """uint8 C H W as a PNG of its own size; the page enlarges it without smoothing."""
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    return Picture(png_uri(Image.fromarray(np.ascontiguousarray(pixels))), alt)


def as_overlay(image: NDArray[np.uint8], values: Any, alt: str) -> Picture:
    """uint8 C H W in grey under a map H W in [0, 1], whose colours go from black over red to yellow."""
    return Picture(png_uri(Image.fromarray(overlaid(image, values))), alt)


def png_uri(image: Image.Image) -> str:
    """An image as a PNG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri("image/png", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Content inside an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
