"""A look before paying: the images as stored and as augmented, the network's size, one timed step, the estimated total."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from thumbnet.augment import augment
from thumbnet.backend import Backend, place, prepare
from thumbnet.data.batches import epoch_order
from thumbnet.errors import UserError
from thumbnet.machine import Machine
from thumbnet.optimize import build_optimizer
from thumbnet.plots import image_grid, save
from thumbnet.randomness import generator, global_draws
from thumbnet.recipes.recipe import Recipe
from thumbnet.runs import build_model
from thumbnet.training import check_fits, normalization

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

TIMED_STEPS = 5  # after two that warm up; the median is told
VALIDATION_COST = 1 / 3  # of an image's training step: the forward pass alone


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
    data = data.with_validation(recipe.validation, seed=recipe.seed)
    check_fits(recipe, data)
    backend = prepare(machine or Machine())
    order = epoch_order(len(data.train), seed=recipe.seed, epoch=0)
    images, labels = data.train.take(order[: rows * columns])
    names = [data.classes[label] for label in labels]
    changed = augment(images, recipe, generator("cpu", recipe.seed, "augment", 0, 0))
    pages = {
        folder / "stored.png": (images, f"{data.name}: as stored"),
        folder / "augmented.png": (
            (changed * 255).round().clamp(0, 255).byte(),
            f"{data.name}: as {recipe.name} augments",
        ),
    }
    for path, (pictures, title) in pages.items():
        save(image_grid(pictures.numpy(), names, rows=rows, columns=columns, title=title), path)
    parameters, step_seconds = time_step(recipe, data, backend)
    steps = len(data.train) // recipe.batch_size * recipe.epochs
    checks = recipe.epochs * len(data.validation or ()) / recipe.batch_size * VALIDATION_COST
    stored, augmented = pages
    return Preview(
        stored, augmented, parameters, steps, step_seconds, step_seconds * (steps + checks), backend.describe()
    )


def time_step(recipe: Recipe, data: "Dataset", backend: Backend) -> tuple[int, float]:
    """Parameters of the recipe's network, and the median seconds of a training step on this machine."""
    model = build_model(recipe, channels=data.channels, classes=len(data.classes), **normalization(recipe, data.train))
    model = place(model, backend.device).train()
    optimizer = build_optimizer(model, recipe)
    images, labels = (tensor.to(backend.device) for tensor in data.train.take(torch.arange(recipe.batch_size)))
    seconds = []
    for step in range(2 + TIMED_STEPS):
        start = time.perf_counter()
        x = augment(images, recipe, generator(backend.device, recipe.seed, "augment", 0, step))
        with global_draws(backend.device, recipe.seed, "dropout", 0, step), backend.autocast():
            logits = model(x.contiguous(memory_format=torch.channels_last)).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return sum(parameter.numel() for parameter in model.parameters()), sorted(seconds[2:])[TIMED_STEPS // 2]
