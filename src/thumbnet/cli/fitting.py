"""A recipe that was taken since none was named, made to fit the data; shared by the commands that take one."""

from typing import Any

from thumbnet.progress import Reporter
from thumbnet.recipes import fitted_to, for_classes, vary
from thumbnet.recipes.recipe import Recipe, differences
from thumbnet.words import counted


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
