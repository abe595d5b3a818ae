"""A look before paying: the images as stored and as augmented, the network's size, one timed step, the estimated total."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from thumbnet.augment import augment, changed_by_own, mirrored_in_epoch
from thumbnet.backend import prepare
from thumbnet.data.batches import epoch_order
from thumbnet.errors import UserError
from thumbnet.machine import Machine
from thumbnet.plots.images import image_grid
from thumbnet.plots.style import save
from thumbnet.randomness import generator
from thumbnet.recipes.recipe import Recipe
from thumbnet.recipes.schedule import steps_per_epoch, total_steps
from thumbnet.training.preparation import check_fits
from thumbnet.training.timing import initial_model, step_seconds, training_seconds

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset


@dataclass(frozen=True)
class Preview:
    """What a preview found. Seconds are estimates on this machine, now."""

    stored: Path
    augmented: Path
    parameters: int
    steps: int  # in the whole run
    step_seconds: float
    total_seconds: float
    backend: str


def preview(
    recipe: Recipe, data: "Dataset", folder: Path, *, rows: int = 5, columns: int = 5, machine: Machine | None = None
) -> Preview:
    """Write stored.png and augmented.png into `folder` and time a few steps of the recipe. Trains nothing.

    The images are the first of the recipe's first epoch. Raises `UserError` where the set has fewer images than a batch.
    """
    if not (1 <= rows <= 50 and 1 <= columns <= 50):
        raise UserError(f"a grid of {rows} x {columns}; give 1 to 50 rows and columns")
    data = data.with_validation(**recipe.cut)
    check_fits(recipe, data)
    backend = prepare(machine or Machine())
    order = epoch_order(len(data.train), seed=recipe.seed, epoch=0)
    images, labels = data.train.take(order[: rows * columns])
    names = [data.classes[label] for label in labels]
    mirrored = mirrored_in_epoch(len(data.train), seed=recipe.seed, epoch=0)[order[: rows * columns]]
    changed = augment(images, recipe, generator("cpu", recipe.seed, "augment", 0, 0), mirrored)
    if recipe.augment:
        changed = changed_by_own(changed, recipe, 0, 0)
    pages = {
        folder / "stored.png": (images, f"{data.name}: as stored"),
        folder / "augmented.png": (
            (changed * 255).round().clamp(0, 255).byte(),
            f"{data.name}: as {recipe.name} augments",
        ),
    }
    for path, (pictures, title) in pages.items():
        save(image_grid(pictures.numpy(), names, rows=rows, columns=columns, title=title), path)
    parameters = sum(parameter.numel() for parameter in initial_model(recipe, data, backend).parameters())
    seconds = step_seconds(recipe, data, backend)
    steps = total_steps(recipe, steps_per_epoch(recipe, len(data.train)))
    mean = fmean(seconds[part] for part in recipe.resolution)
    total = training_seconds(recipe, data, seconds)
    stored, augmented = pages
    return Preview(stored, augmented, parameters, steps, mean, total, backend.describe())
