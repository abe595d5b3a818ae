"""The network that a recipe names, behind its preprocessing."""

from typing import TYPE_CHECKING

from thumbnet.models.registry import create_model
from thumbnet.recipes.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from thumbnet.models.preprocessed import Preprocessed


def build_model(
    recipe: Recipe, *, channels: int, classes: int, mean: list[float] | None = None, std: list[float] | None = None
) -> "Preprocessed":
    """The recipe's network or ensemble behind its preprocessing, freshly initialised from the recipe's seed."""
    from thumbnet.models.ensemble import Ensemble
    from thumbnet.models.preprocessed import Preprocessed

    members = [build_member(recipe, member, channels=channels, classes=classes) for member in range(recipe.members)]
    network = Ensemble(members) if len(members) > 1 else members[0]
    return Preprocessed(network, mean or [0.0] * channels, std or [1.0] * channels, recipe.resolution[-1])


def build_member(recipe: Recipe, member: int, *, channels: int, classes: int) -> "nn.Module":
    """One network of the recipe, its weights drawn from the seed and its number; the first as if it were alone."""
    from thumbnet.randomness import seed_of

    return create_model(
        recipe.model,
        classes=classes,
        channels=channels,
        widths=recipe.widths,
        depth=recipe.depth,
        dropout=recipe.dropout,
        own=recipe.own,
        seed=seed_of(recipe.seed, "member", member) if member else recipe.seed,
    )
