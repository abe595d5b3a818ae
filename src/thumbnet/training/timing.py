"""How long a recipe would take on this machine: a few of its steps, timed and thrown away."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from thumbnet.backend import Backend, place
from thumbnet.randomness import global_draws
from thumbnet.recipes.network import build_model
from thumbnet.recipes.recipe import Recipe
from thumbnet.recipes.schedule import steps_per_epoch, total_steps
from thumbnet.training import graphs
from thumbnet.training.deadline import seconds_of
from thumbnet.training.graphs import Recordings, Update
from thumbnet.training.optimize import build_optimizer
from thumbnet.training.preparation import normalization
from thumbnet.training.step import augmented, updating

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset
    from thumbnet.models.preprocessed import Preprocessed

WARM_UP = 2  # steps before those that count: memory is laid out, kernels are made; on a GPU, graphs.WARM_UP more
VALIDATION_COST = 1 / 2  # of an image's training: the forward pass, in memory not yet laid out


def initial_model(recipe: Recipe, data: "Dataset", backend: Backend) -> "Preprocessed":
    """The recipe's network on the backend's device, ready to be trained."""
    model = build_model(recipe, channels=data.channels, classes=len(data.classes), **normalization(recipe, data.train))
    return place(model, backend.device).train()


def step_seconds(recipe: Recipe, data: "Dataset", backend: Backend, *, steps: int = 5) -> dict[float, float]:
    """Seconds of a training step at each of the recipe's resolutions, the median of `steps`."""
    model = initial_model(recipe, data, backend)
    optimizer = build_optimizer(model, recipe, backend.dtype)
    update = updating(model, optimizer, recipe, backend, lambda loss: None, Recordings())
    warm_up = WARM_UP + (graphs.WARM_UP if backend.device.type == "cuda" else 0)
    medians = {}
    for part in sorted(set(recipe.resolution)):
        model.resize.part = part
        seconds = [timed_step(model, update, recipe, data, backend, step) for step in range(warm_up + steps)]
        medians[part] = sorted(seconds[warm_up:])[steps // 2]
    return medians


def timed_step(
    model: "Preprocessed",
    update: Update,
    recipe: Recipe,
    data: "Dataset",
    backend: Backend,
    step: int,
) -> float:
    """Seconds of one step of the loop in loop.py, from bytes to the update."""
    start = time.perf_counter()
    positions = torch.arange(recipe.batch_size) + step % (len(data.train) // recipe.batch_size) * recipe.batch_size
    images, labels = (tensor.to(backend.device) for tensor in data.train.take(positions))
    mirrored = labels % 2 == 0  # which ones they are does not matter to the time
    x, targets = augmented(images, labels, mirrored, data, recipe, 0, step, 0.0)
    with global_draws(backend.device, recipe.seed, "dropout", 0, step):
        loss, _ = update(x, targets)
    loss.item()  # waits for the device
    return time.perf_counter() - start


def validation_steps(recipe: Recipe, data: "Dataset") -> float:
    """Training steps that take as long as the validation after an epoch."""
    return len(data.validation or ()) / recipe.batch_size * VALIDATION_COST


def training_seconds(recipe: Recipe, data: "Dataset", seconds: Mapping[float, float]) -> float:
    """What a whole run takes, where a step takes `seconds` at each resolution."""
    steps = steps_per_epoch(recipe, len(data.train))
    return seconds_of(total_steps(recipe, steps), recipe, steps, seconds, validation_steps(recipe, data))
