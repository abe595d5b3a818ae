"""A recipe that was taken since none was named, made to fit a small set of images; shared by the commands that take one."""

from typing import Any

from thumbnet.progress import Reporter
from thumbnet.recipes import fitted_to, vary
from thumbnet.recipes.recipe import Recipe, differences
from thumbnet.words import counted


def recipe_for_few(recipe: Recipe, images: int, typed: dict[str, Any], reporter: Reporter) -> Recipe:
    """`recipe` for so many training images, with the fields that were `typed`; what was changed besides is told."""
    asked = vary(recipe, **typed)
    fitted = vary(fitted_to(recipe, images, batch_size=typed.get("batch_size")), **typed)
    if changed := differences(fitted, asked):
        told = ", ".join(f"{name} {now:g} (not {before:g})" for name, (now, before) in changed.items())
        reporter.say(f"note: {counted(images, 'training image')}, few for {recipe.name}: {told}")
    return fitted
