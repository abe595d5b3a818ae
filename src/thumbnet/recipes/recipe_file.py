"""A recipe as TOML, as the command line spells it: `--config` takes such a file."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from thumbnet.errors import UserError
from thumbnet.files import write_text
from thumbnet.reading import read_toml
from thumbnet.recipes import base_of
from thumbnet.recipes.recipe import OWN, Recipe, differences


def read_recipe(folder: Path) -> Recipe:
    """The recipe that `write_recipe` left in a folder. Raises `UserError` where it is damaged."""
    path = folder / "recipe.toml"
    table = read_toml(path, "the recipe")
    name = table.pop("recipe", None)
    known = {field.name for field in fields(Recipe)}
    if unknown := set(table) - known:
        raise UserError(f"{path} has unknown fields: {', '.join(sorted(unknown))}")
    for field in OWN:
        if str(table.get(field, "")).endswith(".py"):  # a run names files of the user's by their text
            raise UserError(f"{path} is damaged: {field} is {table[field]!r}, a path")
    return Recipe(name=str(name), **table)


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """The two files of a recipe: how it differs from the one it is named after, and the whole."""
    changed = {name: new for name, (new, _) in differences(recipe, base_of(recipe)).items()}
    write_text(folder / "changes.toml", as_toml(changed, f"what differs from the recipe {recipe.name}"))
    write_text(folder / "recipe.toml", as_toml(recipe_table(recipe), "thumbnet train --config takes this file"))


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the command line spells it: its name under `recipe`, then every field."""
    values = asdict(recipe)
    return {"recipe": values.pop("name"), **values}


def as_toml(values: dict[str, Any], comment: str) -> str:
    """TOML with a comment on top."""
    import tomli_w

    return f"# {comment}\n" + tomli_w.dumps(
        {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    )
