"""The recipe where none was named, and made to fit the data; shared by the commands that take one."""

from typing import Any

from thumbnet.data.datasets import Dataset
from thumbnet.errors import UserError
from thumbnet.progress import Reporter
from thumbnet.recipes import default_for, fitted_to, for_classes, is_whole, vary, without_mirrors
from thumbnet.recipes.recipe import NETWORK, Recipe, differences
from thumbnet.words import counted


def first_choice(
    dataset: str, name: str | None, typed: dict[str, Any], *, budget: bool = False
) -> tuple[str, dict[str, Any]]:
    """The named recipe to take before the data are looked at, and the fields that were `typed` or follow from what was.

    `name` is the one that was asked for. Where none was it is the data set's own, or with a `budget`, which chooses the rest,
    `general`. With `start_from` the network is that run's.
    """
    if typed.get("start_from"):
        from thumbnet.runs.run import Run

        earlier = Run.open(typed["start_from"]).recipe
        typed = {field: getattr(earlier, field) for field in NETWORK} | typed
    start = name or ("general" if budget else default_for(dataset, typed.get("model")))
    return start, typed if name else without_mirrors(dataset, typed)


def check_validation(data: Dataset, typed: dict[str, Any]) -> None:
    """Raise `UserError` for a part to hold out that was `typed` where the data bring a split of their own; a whole recipe may."""
    if "validation" in typed and data.own_validation is not None and not is_whole(typed):
        raise UserError(
            f"validation {typed['validation']:g} has no effect: {data.name} brings its own validation images; leave it out"
        )


def recipe_for(recipe: Recipe, images: int, classes: int, typed: dict[str, Any], reporter: Reporter) -> Recipe:
    """`recipe` for so many training images and classes, with the fields that were `typed`; what was changed besides is told."""
    asked = vary(recipe, **typed)
    fewer = vary(fitted_to(recipe, images, batch_size=typed.get("batch_size")), **typed)
    tell_changes(f"{counted(images, 'training image')}, few for {recipe.name}", asked, fewer, reporter)
    fitted = fewer if "head_rate" in typed else for_classes(fewer, classes)
    tell_changes(f"{counted(classes, 'class', 'classes')}, many for {recipe.name}", fewer, fitted, reporter)
    return fitted


def tell_changes(reason: str, before: Recipe, after: Recipe, reporter: Reporter) -> None:
    """A line on the fields in which the second recipe differs from the first, if there are any."""
    if changed := differences(after, before):
        told = ", ".join(f"{name} {now:g} (not {then:g})" for name, (now, then) in changed.items())
        reporter.say(f"note: {reason}: {told}")
