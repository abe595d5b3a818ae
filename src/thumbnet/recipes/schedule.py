"""The learning rate as a pure function of the position in training. No state, so nothing to restore."""

import math

from thumbnet.recipes.recipe import Recipe


def steps_per_epoch(recipe: Recipe, images: int) -> int:
    """Full batches in `images` training images; the ragged last one is left out."""
    return images // recipe.batch_size


def total_steps(recipe: Recipe, steps: int) -> int:
    """Steps of the whole run where an epoch has `steps`, one at the least."""
    return max(1, round(recipe.epochs * steps))


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The rate for `step` (from 0) of `epoch` (from 0) where an epoch has `steps` steps."""
    return recipe.learning_rate * rate_factor(recipe, epoch, step, steps)


def rate_factor(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """What every peak rate is multiplied by at that step, in [0, 1]."""
    progress = (epoch + step / steps) / recipe.epochs
    match recipe.schedule:
        case "steps":
            return step_factor(recipe, epoch)
        case "cosine":
            return cosine_factor(progress, recipe.warmup)
        case "linear":
            return linear_factor(progress, recipe.warmup)
    return 1.0


def resolution(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The part of the images' side to train at: the recipe's, one after the other, in equal parts of the run."""
    return resolution_at(recipe, (epoch + step / steps) / recipe.epochs)


def resolution_at(recipe: Recipe, progress: float) -> float:
    """The same where the part `progress` of the run, below 1, lies behind."""
    return recipe.resolution[int(progress * len(recipe.resolution))]


def step_factor(recipe: Recipe, epoch: int) -> float:
    """The last of `drop_factors` whose place in `drop_after` (a fraction of the run) lies before this epoch's index."""
    factor = 1.0
    for place, value in zip(recipe.drop_after, recipe.drop_factors, strict=True):
        if epoch > place * recipe.epochs:
            factor = value
    return factor


def cosine_factor(progress: float, warmup: float) -> float:
    """Linear from 0 over the first `warmup` of the run, then half a cosine to 0. https://arxiv.org/abs/1608.03983"""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def linear_factor(progress: float, warmup: float) -> float:
    """Linear from 0 over the first `warmup` of the run, then linear to 0."""
    if progress < warmup:
        return progress / warmup
    return (1 - progress) / (1 - warmup)
