"""Show what there is: recipes, models, data sets, augmentations, with measured results."""

import textwrap
from dataclasses import asdict
from dataclasses import fields as fields_of
from typing import Any, Literal

from thumbnet.cli.options import Json, described, print_json, show

WIDTH = 110  # columns
Kind = Literal["recipes", "models", "datasets", "augmentations"]


@described
def list_(what: Kind, /, *, json: Json = False) -> None:
    """List recipes, models, datasets or augmentations.

    Parameters
    ----------
    what
        what to list
    """
    rows = {"recipes": recipes, "models": models, "datasets": datasets, "augmentations": augmentations}[what]()
    if json:
        print_json({what: rows})
        return
    width = max(len(row["name"]) for row in rows) + 2
    for row in rows:
        texts = [row["about"], *(f"measured: {result}" for result in row.get("results", []))]
        lines = [line for text in texts for line in textwrap.wrap(text, WIDTH - width)]
        show(
            "\n".join(
                f"{name:{width}}{line}" for name, line in zip([row["name"], *[""] * len(lines)], lines, strict=False)
            )
        )


def recipes() -> list[dict[str, Any]]:
    """Every recipe in a line, with the results recorded for it."""
    from thumbnet.measuring.results import recorded_for
    from thumbnet.recipes import RECIPES
    from thumbnet.words import counted

    rows = []
    for name, make in RECIPES.items():
        recipe = make()
        about = (
            f"{recipe.network}, {counted(recipe.epochs, 'epoch')}, batch {recipe.batch_size}, {recipe.optimizer}, "
            f"{recipe.schedule} learning rate from {recipe.learning_rate:g}"
        )
        found = recorded_for(name)
        rows.append({"name": name, "about": f"{summary_of(make)} {about}", "fields": asdict(recipe), "results": found})
    return rows


def summary_of(function: Any) -> str:
    """The first sentence of a docstring."""
    return (function.__doc__ or "").strip().split("`")[0].split("\n")[0].strip()


def models() -> list[dict[str, Any]]:
    """Every architecture with its size for ten classes."""
    from thumbnet.models.initial_weights import without_weights
    from thumbnet.models.registry import create_model, describe_model, list_models

    rows = []
    for name in list_models():
        with without_weights("meta"):  # sizes alone are asked for
            network = create_model(name, classes=10)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        about = f"{describe_model(name)} {parameters:,} parameters for RGB images of 10 classes."
        rows.append({"name": name, "about": about, "parameters": parameters})
    return rows


def datasets() -> list[dict[str, Any]]:
    """Every published set that is known by name."""
    from thumbnet.data.names import SPECS

    return [
        {
            **asdict(spec),
            "about": (
                f"{spec.title}: {spec.train:,} training and {spec.test:,} test images of {spec.classes} classes, "
                f"{spec.shape[1]} x {spec.shape[2]} {'RGB' if spec.shape[0] == 3 else 'grey'}; licence: {spec.licence}"
            ),
        }
        for spec in SPECS.values()
    ]


def augmentations() -> list[dict[str, Any]]:
    """The recipe fields that change training images."""
    from thumbnet.recipes.recipe import Recipe

    names = ("flip", "alternate_flip", "zoom", "shift", "crop", "jitter", "cutout", "cutmix", "mixup")
    fields = {field.name: field for field in fields_of(Recipe)}
    return [{"name": name, "about": f"{fields[name].metadata['help']} (--{name.replace('_', '-')})"} for name in names]
