"""What is changed of a recipe that the file of a study or sweep does not name, to fit a folder or file."""

from collections.abc import Callable, Mapping
from typing import Any

from thumbnet.data.datasets import load_dataset
from thumbnet.data.names import SPECS, decoding_for
from thumbnet.recipes import default_for, vary
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.fitting import suited
from thumbnet.recipes.recipe import differences


def fitted_fields(
    dataset: str,
    shared: Mapping[str, Any],
    *,
    decoding: Mapping[str, Any],
    folds: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The fields in which a data set's own recipe changes to fit its images, beside those that all runs `shared`.

    Published sets have recipes that fit. Asked once for all runs of a data set, so that they differ in what the file says and in
    nothing else. `tell` hears what was changed, and what `train` would say of the data.
    """
    if dataset in SPECS:
        return {}
    recipe = named_recipe(default_for(dataset))
    data = load_dataset(dataset, validation=0, **decoding_for(dataset, decoding))
    for note in data.notes:
        tell(note)
    cut = {"fraction": shared.get("validation", recipe.validation), "seed": recipe.seed, "folds": folds}
    fitted = suited(recipe, data.with_validation(**cut), shared, tell=tell)
    return {name: now for name, (now, _) in differences(fitted, vary(recipe, **shared)).items()}
