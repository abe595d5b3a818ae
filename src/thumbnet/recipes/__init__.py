"""Named recipes. `recipe("cifar10-classic", epochs=4)` gives a frozen, checked `Recipe`; a variation is another keyword."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thumbnet.errors import unknown_name
from thumbnet.models.registry import OPEN_MODELS
from thumbnet.own_code import is_own
from thumbnet.own_code import shown as shown_code
from thumbnet.recipes import cifar10, cifar100, general
from thumbnet.recipes.recipe import NEWER_FIELDS, OWN, PATHS, check_effects, differences
from thumbnet.recipes.recipe import Recipe as Recipe
from thumbnet.recipes.recipe import vary as vary

RECIPES: dict[str, Callable[[], Recipe]] = {
    "general": general.general,
    "plain": general.plain,
    "plain-adamw": general.plain_adamw,
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
    told = [
        change for change in changed if change.split()[0] in PATHS or is_own(getattr(recipe, change.split()[0]))
    ]  # of all they say the most
    others = f"{len(changed) - len(told)} {'other ' if told else ''}fields changed"
    return " with ".join([", ".join([recipe.name, *told]), others])


def changes_of(recipe: Recipe, *, exact: bool = False) -> list[str]:
    """`epochs 4` for every field that differs from the named recipe's, but for the seed and the fold.

    `exact`: with every digit and whole paths.
    """
    changed = {name: now for name, (now, _) in differences(recipe, base_of(recipe)).items()}
    digits = EXACT if exact else DIGITS
    shown = {name: as_typed(now, digits) or "none" for name, now in changed.items() if name not in ("seed", "fold")}
    for name, parts in ({} if exact else PATHS).items():  # not where on this machine they lie
        if name in shown:
            shown[name] = "/".join(Path(shown[name]).parts[-parts:])
    for name in OWN:
        if is_own(changed.get(name)):
            shown[name] = shown_code(changed[name], exact=exact)
    return [f"{name} {value}" for name, value in shown.items()]


DIGITS = 6  # of a number that is shown; epochs fitted to a time budget have sixteen
EXACT = 17  # tell every two numbers apart


def as_typed(value: Any, digits: int = DIGITS) -> str:
    """A field's value as it is typed: `0.75 1`, `yes`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(float(f"{value:.{digits}g}"))
    if isinstance(value, Mapping):
        return " ".join(f"{name}={as_typed(item, digits)}" for name, item in value.items())
    return " ".join(as_typed(item, digits) for item in value) if isinstance(value, tuple | list) else f"{value}"


ADAMW_MODELS = ("vision_transformer",)  # as its authors trained it; SGD takes far longer
DEFAULTS = {
    "cifar10": "cifar10-94",
    "cifar100": "cifar100-76",
    "fashion-mnist": "fashion-mnist-94",
    "mnist": "mnist-99",
}


def without_mirrors(dataset: str, changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` to a recipe that nobody named, and no mirroring where the images of the set have no mirror images."""
    from thumbnet.data.names import SPECS

    is_mirrored = dataset not in SPECS or SPECS[dataset].mirrored
    return changes if is_mirrored or "flip" in changes else {**changes, "flip": False}


def default_for(dataset: str, model: str | None = None) -> str:
    """The recipe that `train` takes for a data set when none is named, and perhaps a model is."""
    if model in ADAMW_MODELS:
        return "plain-adamw"
    if model is not None and model not in OPEN_MODELS:
        return "plain"
    return DEFAULTS.get(dataset, "general")
