"""The network that a recipe names, behind its preprocessing."""

from typing import TYPE_CHECKING

from thumbnet.models.registry import create_model
from thumbnet.recipes.recipe import Recipe

if TYPE_CHECKING:
    from thumbnet.models.preprocessed import Preprocessed


def build_model(
    recipe: Recipe, *, channels: int, classes: int, mean: list[float] | None = None, std: list[float] | None = None
) -> "Preprocessed":
    """The recipe's network behind its preprocessing, freshly initialised from the recipe's seed."""
    from thumbnet.models.preprocessed import Preprocessed

    network = create_model(
        recipe.model,
        classes=classes,
        channels=channels,
        widths=recipe.widths,
        depth=recipe.depth,
        dropout=recipe.dropout,
        seed=recipe.seed,
    )
    return Preprocessed(network, mean or [0.0] * channels, std or [1.0] * channels, recipe.resolution[-1])
