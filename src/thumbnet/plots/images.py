"""Images in a grid, and what explains an answer laid over one. Arrays are uint8 C H W."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thumbnet.words import shortened

if TYPE_CHECKING:
    from torch import Tensor

    from thumbnet.judging.explanation import Explanation

NAME = 18  # letters of a class that have room below a thumbnail
OVERLAY = 0.6  # opacity of a map over its image; less hides the map, more the image


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
