"""Named recipes. `recipe("cifar10-classic", epochs=4)` gives a frozen, checked `Recipe`; a variation is another keyword."""

from collections.abc import Callable
from typing import Any

from thumbnet.errors import unknown_name
from thumbnet.models.registry import OPEN_MODELS
from thumbnet.recipes import cifar10, cifar100, general
from thumbnet.recipes.recipe import Recipe as Recipe
from thumbnet.recipes.recipe import vary as vary

RECIPES: dict[str, Callable[[], Recipe]] = {
    "general": general.general,
    "plain": general.plain,
    "fashion-mnist-94": general.fashion_mnist,
    "cifar10-83": cifar10.to_83,
    "cifar10-94": cifar10.to_94,
    "cifar10-96": cifar10.to_96,
    "cifar10-classic": cifar10.classic,
    "cifar10-resnet18": cifar10.resnet18,
    "cifar100-quick": cifar100.quick,
    "cifar100-76": cifar100.to_76,
    "cifar100-80": cifar100.to_80,
    "cifar100-classic": cifar100.classic,
    "cifar100-resnet18": cifar100.resnet18,
}


def list_recipes() -> list[str]:
    """The names that `recipe` knows."""
    return list(RECIPES)


def recipe(name: str, **changes: Any) -> Recipe:
    """The named recipe with some fields changed.

    Raises `UserError` on an unknown name or field, naming the nearest, and on a value of the wrong type or range.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return vary(RECIPES[name](), **changes)


DEFAULTS = {"cifar10": "cifar10-94", "cifar100": "cifar100-76", "fashion-mnist": "fashion-mnist-94"}


def default_for(dataset: str, model: str | None = None) -> str:
    """The recipe that `train` takes for a data set when none is named, and perhaps a model is."""
    if model is not None and model not in OPEN_MODELS:
        return "plain"
    return DEFAULTS.get(dataset, "general")
