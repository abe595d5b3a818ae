"""Named recipes. `recipe("cifar10-classic", epochs=4)` gives a frozen, checked `Recipe`; a variation is another keyword."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thumbnet.errors import unknown_name
from thumbnet.models.registry import OPEN_MODELS
from thumbnet.recipes import cifar10, cifar100, general
from thumbnet.recipes.recipe import NEWER_FIELDS, check_effects, differences
from thumbnet.recipes.recipe import Recipe as Recipe
from thumbnet.recipes.recipe import vary as vary

RECIPES: dict[str, Callable[[], Recipe]] = {
    "general": general.general,
    "plain": general.plain,
    "fashion-mnist-94": general.fashion_mnist,
    "mnist-99": general.mnist,
    "cifar10-83": cifar10.to_83,
    "cifar10-94": cifar10.to_94,
    "cifar10-94-gpu": cifar10.to_94_on_gpu,
    "cifar10-96": cifar10.to_96,
    "cifar10-classic": cifar10.classic,
    "cifar10-resnet18": cifar10.resnet18,
    "cifar100-quick": cifar100.quick,
    "cifar100-76": cifar100.to_76,
    "cifar100-80": cifar100.to_80,
    "cifar100-classic": cifar100.classic,
    "cifar100-resnet18": cifar100.resnet18,
}


FIELDS = {field.name for field in dataclasses.fields(Recipe)} - {"name"}


def list_recipes() -> list[str]:
    """The names that `recipe` knows."""
    return list(RECIPES)


def recipe(name: str, **changes: Any) -> Recipe:
    """The named recipe with some fields changed; where every field is given, as in a run's recipe.toml, under any name.

    An older recipe.toml has every field that there was.

    Raises `UserError` on an unknown name or field, naming the nearest, on a value of the wrong type or range, and, unless every
    field is given, on one that has no effect.
    """
    if is_whole(changes):
        return vary(Recipe(name=name), **(NEWER_FIELDS | changes))
    made = vary(named(name), **changes)
    check_effects(made, changes)
    return made


def is_whole(changes: Mapping[str, Any]) -> bool:
    """Whether every field is given, so that nobody chose them one by one."""
    return changes.keys() >= FIELDS - NEWER_FIELDS.keys()


def named(name: str) -> Recipe:
    """The recipe of this name as it is."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]()


def base_of(recipe: Recipe) -> Recipe:
    """The named recipe that this one is or started from; one of default values where the name is not known here."""
    return RECIPES[recipe.name]() if recipe.name in RECIPES else Recipe(name=recipe.name)


MOST_CHANGES = 3  # that a title names


def name_of_group(recipe: Recipe, *, exact: bool = False) -> str:
    """The recipe's name and what was changed in it but the seed: `general, epochs 4`."""
    return ", ".join([recipe.name, *changes_of(recipe, exact=exact)])


def names_of_groups(recipes: Sequence[Recipe]) -> list[str]:
    """The name of each one's group: the same for those that differ in seed and fold alone, different for all others."""
    groups = [vary(recipe, seed=0, fold=0) for recipe in recipes]
    names = {group: name_of_group(group) for group in groups}
    shared = Counter(names.values())
    return [name_of_group(group, exact=shared[names[group]] > 1) for group in groups]


def title_of(recipe: Recipe) -> str:
    """The same for a headline: where much was changed, how much; of a recipe that is not known here, the name alone."""
    if recipe.name not in RECIPES:
        return recipe.name
    changed = changes_of(recipe)
    if len(changed) <= MOST_CHANGES:
        return name_of_group(recipe)
    begun = [change for change in changed if change.startswith("start_from ")]  # of all it says the most
    others = f"{len(changed) - len(begun)} {'other ' if begun else ''}fields changed"
    return " with ".join([", ".join([recipe.name, *begun]), others])


def changes_of(recipe: Recipe, *, exact: bool = False) -> list[str]:
    """`epochs 4` for every field that differs from the named recipe's, but for the seed and the fold.

    `exact`: with every digit and whole paths.
    """
    changed = {name: now for name, (now, _) in differences(recipe, base_of(recipe)).items()}
    digits = EXACT if exact else DIGITS
    shown = {name: as_typed(now, digits) or "none" for name, now in changed.items() if name not in ("seed", "fold")}
    if "start_from" in shown and not exact:
        shown["start_from"] = "/".join(Path(recipe.start_from).parts[-2:])  # not where on this machine it lies
    return [f"{name} {value}" for name, value in shown.items()]


DIGITS = 6  # of a number that is shown; epochs fitted to a time budget have sixteen
EXACT = 17  # tell every two numbers apart


def as_typed(value: Any, digits: int = DIGITS) -> str:
    """A field's value as it is typed: `0.75 1`, `yes`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(float(f"{value:.{digits}g}"))
    return " ".join(as_typed(item, digits) for item in value) if isinstance(value, tuple | list) else f"{value}"


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


DEFAULTS = {
    "cifar10": "cifar10-94",
    "cifar100": "cifar100-76",
    "fashion-mnist": "fashion-mnist-94",
    "mnist": "mnist-99",
}


def without_mirrors(dataset: str, changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` to a recipe that nobody named, and no mirroring where the images of the set have no mirror images."""
    from thumbnet.data.datasets import SPECS

    is_mirrored = dataset not in SPECS or SPECS[dataset].mirrored
    return changes if is_mirrored or "flip" in changes else {**changes, "flip": False}


def default_for(dataset: str, model: str | None = None) -> str:
    """The recipe that `train` takes for a data set when none is named, and perhaps a model is."""
    if model is not None and model not in OPEN_MODELS:
        return "plain"
    return DEFAULTS.get(dataset, "general")
