"""A recipe that nobody chose for these data, made to fit them: few images, many classes, tiny pictures."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from thumbnet.models.registry import OPEN_MODELS
from thumbnet.recipes.recipe import Recipe, differences, vary
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset


def suited(
    recipe: Recipe, data: "Dataset", typed: Mapping[str, Any], *, tell: Callable[[str], None] = lambda line: None
) -> Recipe:
    """`recipe` for data, cut as it says, with the fields that were `typed`, which stay so; `tell` hears what else was changed."""
    asked, images = vary(recipe, **typed), len(data.train)
    classes, side = len(data.classes), min(data.image_size)
    if asked.folds:  # the same recipe for all, though groups make folds of different sizes
        images = len(data.development) * (asked.folds - 1) // asked.folds
    fewer = vary(fitted_to(recipe, images, batch_size=typed.get("batch_size")), **typed)
    many = fewer if "head_rate" in typed else for_classes(fewer, classes)
    small = many if "resolution" in typed else for_side(many, side)
    for reason, before, after in (
        (f"{counted(images, 'training image')}, few", asked, fewer),
        (f"{counted(classes, 'class', 'classes')}, many", fewer, many),
        (f"images of {side} pixels, small", many, small),
    ):
        if changed := differences(after, before):
            told = ", ".join(f"{name} {shown(now)} (not {shown(then)})" for name, (now, then) in changed.items())
            tell(f"{reason} for {recipe.name}: {told}")
    return small


def shown(value: Any) -> str:
    """A number, or several, with few digits."""
    return " ".join(f"{part:g}" for part in (value if isinstance(value, tuple) else (value,)))


# For few images; docs/findings.md has what was tried.
FEWEST_STEPS = 10  # in an epoch
LEAST_STEPS = 300  # in a run
SMALLEST_BATCH = 8  # below, normalisation within a batch costs more than its steps bring


def fitted_to(recipe: Recipe, images: int, *, batch_size: int | None = None) -> Recipe:
    """The recipe for so many training images: where they are few, smaller batches, or those of `batch_size`, and more epochs.

    Where batches are made smaller here, the rate of other optimisers than Muon goes with them (for SGD: Goyal et al. 2017,
    https://arxiv.org/abs/1706.02677); Muon's is an angle, and stays.
    """
    if images >= FEWEST_STEPS * recipe.batch_size:
        return recipe
    smaller = min(recipe.batch_size, max(SMALLEST_BATCH, images // FEWEST_STEPS), max(2, images))
    size = batch_size or smaller
    epochs = max(recipe.epochs, math.ceil(LEAST_STEPS / max(1, images // size)))
    part = 1.0 if recipe.optimizer == "muon" or batch_size else size / recipe.batch_size
    whole = recipe.micro_batch == 0 or size % recipe.micro_batch != 0
    return vary(
        recipe,
        batch_size=size,
        micro_batch=0 if whole else recipe.micro_batch,
        epochs=epochs,
        learning_rate=recipe.learning_rate * part,
    )


FEW_CLASSES = 10  # whose rates the recipes have that are for any data
HEAD_POWER = 1.5  # chosen for 20 to 100 classes (docs/findings.md), beyond which it is a guess


def for_classes(recipe: Recipe, classes: int) -> Recipe:
    """`general` for so many classes: of many, each is right less often, and its row of the dense layer has to learn faster.

    Recipes that are for one data set have a rate of their own, and other optimisers one for all layers.
    """
    if recipe.name != "general" or recipe.optimizer != "muon" or classes <= FEW_CLASSES:
        return recipe
    rate = recipe.head_rate * (classes / FEW_CLASSES) ** HEAD_POWER
    return vary(recipe, head_rate=float(f"{rate:.2g}"))


SMALLEST_SIDE = 16  # pixels; a whitening layer and three poolings make a map of one pixel of them


def for_side(recipe: Recipe, side: int) -> Recipe:
    """The recipe for images of so many pixels a side: no resolution that leaves a speednet nothing of them.

    Where the whole image is too small, the network works on an enlarged one.
    """
    if recipe.model not in OPEN_MODELS:
        return recipe
    kept = tuple(part for part in recipe.resolution if round(part * side) >= SMALLEST_SIDE)
    return vary(recipe, resolution=kept or (max(1.0, SMALLEST_SIDE / side),))
