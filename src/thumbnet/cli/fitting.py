"""The recipe where none was named, and made to fit the data; shared by the commands that take one."""

from typing import Any

from thumbnet.data.datasets import Dataset
from thumbnet.errors import UserError
from thumbnet.models.registry import OPEN_MODELS
from thumbnet.own_code import as_own, is_own, values_for, values_of
from thumbnet.progress import Reporter
from thumbnet.recipes import default_for, is_whole, without_mirrors
from thumbnet.recipes.fitting import suited
from thumbnet.recipes.recipe import NETWORK, Recipe


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
        if is_own(earlier.model) and typed["model"] == earlier.model:
            own = values_for(earlier.model, "network", earlier.own) | values_of(as_own(typed.get("own", ())))
            typed |= {"own": as_own(own)} if own else {}
    of_ladder = budget and typed.get("model", OPEN_MODELS[0]) in OPEN_MODELS  # whose widths and rates a budget chooses
    start = name or ("general" if of_ladder else default_for(dataset, typed.get("model")))
    return start, typed if name else without_mirrors(dataset, typed)


def check_validation(data: Dataset, typed: dict[str, Any]) -> None:
    """Raise `UserError` for a part to hold out that was `typed` where the data bring a split of their own; a whole recipe may."""
    if "validation" in typed and data.own_validation is not None and not is_whole(typed):
        raise UserError(
            f"validation {typed['validation']:g} has no effect: {data.name} brings its own validation images; leave it out"
        )


def recipe_for(recipe: Recipe, data: Dataset, typed: dict[str, Any], reporter: Reporter) -> Recipe:
    """`recipe` for data, cut as it says, with the fields that were `typed`; what was changed besides is told."""
    return suited(recipe, data, typed, tell=lambda line: reporter.say(f"note: {line}"))
