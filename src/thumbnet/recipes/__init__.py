"""Named recipes. `recipe("cifar10-classic", epochs=4)` gives a frozen, checked `Recipe`; a variation is another keyword."""

from collections.abc import Callable
from typing import Any

from thumbnet.errors import unknown_name
from thumbnet.recipes import cifar10, cifar100, general
from thumbnet.recipes.recipe import Recipe as Recipe
from thumbnet.recipes.recipe import vary as vary

RECIPES: dict[str, Callable[[], Recipe]] = {
    "general": general.general,
    "cifar10-classic": cifar10.classic,
    "cifar10-resnet18": cifar10.resnet18,
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


DEFAULT = "general"  # what `train` takes when no recipe is named
