"""How long a recipe would take on this machine: a few of its steps, timed and thrown away."""

import time
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from thumbnet.augment import augment, mix
from thumbnet.backend import Backend, place
from thumbnet.optimize import build_optimizer
from thumbnet.randomness import generator, global_draws
from thumbnet.recipes.recipe import Recipe
from thumbnet.runs import build_model
from thumbnet.training import gradients, normalization

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset
    from thumbnet.models.preprocessed import Preprocessed

WARM_UP = 2  # steps before those that count: memory is laid out, kernels are made
VALIDATION_COST = 1 / 3  # of an image's training step: the forward pass alone


def initial_model(recipe: Recipe, data: "Dataset", backend: Backend) -> "Preprocessed":
    """The recipe's network on the backend's device, ready to be trained."""
    model = build_model(recipe, channels=data.channels, classes=len(data.classes), **normalization(recipe, data.train))
    return place(model, backend.device).train()


def step_seconds(recipe: Recipe, data: "Dataset", backend: Backend, *, steps: int = 5) -> float:
    """Seconds of a training step: the median of `steps` at each of the recipe's resolutions, averaged over them."""
    model = initial_model(recipe, data, backend)
    optimizer = build_optimizer(model, recipe, backend.dtype)
    medians = {}
    for part in sorted(set(recipe.resolution)):
        model.resize.part = part
        seconds = [timed_step(model, optimizer, recipe, data, backend, step) for step in range(WARM_UP + steps)]
        medians[part] = sorted(seconds[WARM_UP:])[steps // 2]
    return fmean(medians[part] for part in recipe.resolution)


def timed_step(
    model: "Preprocessed",
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    data: "Dataset",
    backend: Backend,
    step: int,
) -> float:
    """Seconds of one step of the loop in training.py, from bytes to the update."""
    start = time.perf_counter()
    positions = torch.arange(recipe.batch_size) + step % (len(data.train) // recipe.batch_size) * recipe.batch_size
    images, labels = (tensor.to(backend.device) for tensor in data.train.take(positions))
    random = generator(backend.device, recipe.seed, "augment", 0, step)
    x = augment(images, recipe, random, labels % 2 == 0)  # which ones are mirrored does not matter to the time
    x, targets = mix(x, labels, len(data.classes), recipe, generator("cpu", recipe.seed, "mix", 0, step), at=0.0)
    optimizer.zero_grad(set_to_none=True)
    with global_draws(backend.device, recipe.seed, "dropout", 0, step):
        loss, _ = gradients(model, x.contiguous(memory_format=torch.channels_last), targets, recipe, backend)
    optimizer.step()
    loss.item()  # waits for the device
    return time.perf_counter() - start


def training_seconds(recipe: Recipe, data: "Dataset", seconds: float) -> float:
    """What a whole run takes, validation after every epoch included, where a step takes `seconds`."""
    steps = len(data.train) // recipe.batch_size * recipe.epochs
    checks = recipe.epochs * len(data.validation or ()) / recipe.batch_size * VALIDATION_COST
    return seconds * (steps + checks)
