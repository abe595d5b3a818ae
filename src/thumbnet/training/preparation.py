"""What is settled before the first step: whether recipe and data fit, and what the network is told of the images."""
# Shapes: B batch, C channels, H and W height and width, K classes.

from contextlib import nullcontext

import torch
from torch import Tensor

from thumbnet.augment import to_float
from thumbnet.data.batches import Split
from thumbnet.data.datasets import Dataset
from thumbnet.errors import UserError
from thumbnet.models.initial_weights import without_weights
from thumbnet.own_code import check_own_values, is_own, told_of
from thumbnet.own_code import shown as shown_code
from thumbnet.recipes.fitting import fitted_to, for_side, shown
from thumbnet.recipes.network import build_model
from thumbnet.recipes.recipe import Recipe
from thumbnet.training.selection import stretch_length
from thumbnet.training.start import begin_with, earlier_run
from thumbnet.words import counted


def check_fits(recipe: Recipe, data: Dataset) -> None:
    """Raise `UserError` where the recipe cannot be trained on the data, cut as it says, before anything is written."""
    if recipe.batch_size > len(data.train):
        raise UserError(
            f"batch_size {recipe.batch_size} is larger than the {counted(len(data.train), 'training image')} of {data.name}; "
            f"give less, as in --batch-size {fitted_to(recipe, len(data.train)).batch_size}, or more images"
        )
    if recipe.hardest < 1 and stretch_length(recipe, len(data.train)) == recipe.batch_size:
        raise UserError(
            f"hardest {recipe.hardest:g} leaves nothing to choose from: a batch of {recipe.batch_size} is all that a step sees "
            f"of {counted(len(data.train), 'training image')}; give --hardest 1, or another --batch-size"
        )
    height, width = data.image_size
    if recipe.crop >= min(height, width):
        raise UserError(f"crop {recipe.crop} is not smaller than the images of {height} x {width} pixels")
    check_own_values(recipe.own, recipe.own_code)
    check_network_takes(recipe, data)


def check_network_takes(recipe: Recipe, data: Dataset) -> None:
    """Raise `UserError` where the network cannot be given the images, or gives something else than a logit for each class."""
    (height, width), classes = data.image_size, len(data.classes)
    with nullcontext() if is_own(recipe.model) else without_weights():
        model = build_model(recipe, channels=data.channels, classes=classes).eval()
    if recipe.start_from:
        begin_with(model, earlier_run(recipe, data), data.classes)
    model.resize.part = min(recipe.resolution)
    images = torch.zeros(1, data.channels, height, width)
    try:
        with torch.no_grad():
            logits = model(images)
    except Exception as error:
        if is_own(recipe.model):
            raise UserError(fault_of_own(recipe, model.preprocess(images), error)) from error
        if not isinstance(
            error, RuntimeError | IndexError
        ):  # where nothing is left of a map, of convolutions and of maxima
            raise
        least = f" at resolution {model.resize.part:g}" if model.resize.part < 1 else ""
        fitting = for_side(recipe, min(height, width)).resolution
        hint = f", or --resolution {shown(fitting)}" if fitting != recipe.resolution else ""
        raise UserError(
            f"{recipe.network} cannot take images of {height} x {width} pixels{least}; use larger ones{hint}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, classes):
        given = " x ".join(map(str, logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{recipe.network} gives {given} for one image; wanted are logits 1 x {classes}")


def fault_of_own(recipe: Recipe, given: Tensor, error: Exception) -> str:
    """What went wrong in a network of the user's own, with the image that it was `given` 1 C H W."""
    channels, height, width = given.shape[1:]
    shrunk = (
        f", at resolution {min(recipe.resolution):g}; --resolution 1 leaves them whole"
        if recipe.resolution != (1,)
        else ""
    )
    return f"{told_of(error, shown_code(recipe.model))} (of an image {channels} x {height} x {width}{shrunk})"


def normalization(recipe: Recipe, split: Split) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel over the training images, or 0 and 1 where the recipe wants none."""
    channels = split.images.shape[1]
    if recipe.normalize == "none":
        return {"mean": [0.0] * channels, "std": [1.0] * channels}
    counts = torch.zeros(channels, 256, dtype=torch.int64, device=split.images.device)
    for rows in split.rows.split(5_000):  # by histogram: exact, and without a float copy of the whole set
        images = split.images[rows]
        for channel in range(channels):
            counts[channel] += torch.bincount(images[:, channel].flatten().int(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    weights = counts.cpu().double()
    weights /= weights.sum(1, keepdim=True)
    mean = weights @ values
    variance = weights @ values.square() - mean.square()
    return {"mean": mean.tolist(), "std": variance.clamp(min=1e-6).sqrt().tolist()}  # 1e-6: a constant channel


def class_weights(recipe: Recipe, split: Split, classes: int) -> Tensor | None:
    """float32 K: what the loss of an image of each class counts, on average 1 over the training images; None where all are alike.

    By the inverse of the number of images, or a power of it; after King & Zeng 2001, Logistic Regression in Rare Events Data.
    """
    if recipe.balance == 0:
        return None
    counts = torch.bincount(split.labels[split.rows].cpu(), minlength=classes).double()
    weights = (counts.max() / counts.clamp(min=1)) ** recipe.balance
    return (weights * counts.sum() / (weights * counts).sum()).float().to(split.labels.device)


def sample(split: Split, images: int = 1_000) -> Tensor:
    """Float images B C H W in [0, 1], evenly spread over the split: 1,000 of CIFAR hold a million patches to whiten by."""
    return to_float(split.evenly_spaced(images)[0])
