"""Reading a study from a TOML file: variants or a grid, seeds, folds, and what runs are judged by."""

import itertools
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

from thumbnet.data.names import DECODING, SPECS, check_dataset_name, decoding_for, decoding_of
from thumbnet.errors import UserError, unknown_name
from thumbnet.judging.groups import Metric
from thumbnet.own_code import as_own, values_of
from thumbnet.reading import read_toml
from thumbnet.recipes import as_typed, default_for, vary
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import check_effects
from thumbnet.studies.cells import Variant
from thumbnet.studies.fitted import fitted_fields
from thumbnet.studies.study import Study

KEYS = (
    "name", "about", "dataset", *DECODING, "recipe", "seeds", "first_seed", "folds", "metric", "fields",
    "grid", "variant",
)  # fmt: skip
LARGEST = 10_000  # cells; beyond it a grid is a slip of the pen


def read_study(
    path: Path, *, seeds: int | None = None, tell: Callable[[str], None] = lambda line: None, **decoding: Any
) -> Study:
    """The study in a TOML file, with another number of `seeds` or another of `DECODING` where they are given.

    Where it names no recipe for a folder or file, `general` is made to fit the images; `tell` hears how.
    Raises `UserError` naming what is unknown, empty or of the wrong type in it.
    """
    table = read_toml(path, "the study file")
    if seeds is not None and isinstance(table.get("seeds"), list):
        raise UserError(
            f"{path} names its seeds one by one; leave out --seeds {seeds}, or give their number in the file"
        )
    if seeds is not None:
        table["seeds"] = seeds
    table |= decoding
    if "search" in table:
        raise UserError(f"{path} is a sweep file, with a table [search]; type thumbnet sweep {path}")
    for key in table:
        if key not in KEYS:
            raise UserError(f"{path}: {unknown_name('key', key, KEYS)}")
    try:
        return study_of(table, default_name=path.stem, tell=tell)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def study_of(table: dict[str, Any], *, default_name: str, tell: Callable[[str], None] = lambda line: None) -> Study:
    """The study that a table of TOML describes."""
    if "grid" in table and "variant" in table:
        raise UserError("give either a grid or variants, not both")
    rows = grid_rows(table["grid"]) if "grid" in table else table.get("variant", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError("variant is not a list of tables; begin each with [[variant]]")
    if not rows:
        raise UserError("nothing to study: give a [grid], or a [[variant]] for each row")
    shared = table.get("fields", {})
    if not isinstance(shared, dict):
        raise UserError("fields is not a table; begin it with [fields]")
    folds = whole(table, "folds", 0, least=0)
    decoding = decoding_of(table, [dataset_of(row, table) for row in rows])
    fitted = cache(partial(fitted_fields, shared=shared, decoding=decoding, folds=folds, tell=tell))
    variants = tuple(variant_of(row, table, shared, decoding, fitted) for row in rows)
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two variants are named {twice!r}")
    metric = metric_of(table)
    study = Study(
        name=str(table.get("name", default_name)),
        variants=variants,
        seeds=seeds_of(table),
        folds=folds,
        metrics={variant.dataset: metric for variant in variants},
        about=str(table.get("about", "")),
    )
    check_study(study)
    return study


def check_study(study: Study) -> None:
    """Raise `UserError` for names that cannot be folders, that collide, or for a grid beyond reason."""
    check_folder_name(study.name)
    check_count(len(study.variants) * len(study.seeds) * max(1, study.folds))
    for variant in study.variants:
        if variant.dataset in SPECS and not study.folds and not variant.recipe.validation:
            raise UserError(
                f"variant {variant.name!r} trains on all images (validation 0), so that nothing is left to judge it by; "
                "give validation, as in 0.1, or folds"
            )
    cells = study.cells()
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise UserError("two variants differ in signs only that folder names cannot hold; name them apart")


def metric_of(table: dict[str, Any]) -> Metric:
    """What a file wants runs judged by."""
    metric: Metric = table.get("metric", "accuracy")
    if metric not in get_args(Metric):
        *most, last = get_args(Metric)
        raise UserError(f"metric is {metric!r}; choose {', '.join(most)} or {last}")
    return metric


def check_folder_name(name: str) -> None:
    """Raise `UserError` for a name that cannot be a folder's."""
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise UserError(f"name is {name!r}; give one that a folder can have")


def check_count(count: int) -> None:
    """Raise `UserError` for more runs than a person means, before memory is taken for them."""
    if count > LARGEST:
        raise UserError(f"{count:,} runs are more than {LARGEST:,}; take fewer values, seeds or folds")


def seeds_of(table: dict[str, Any]) -> tuple[int, ...]:
    """`seeds = 5` counts from first_seed; `seeds = [1, 2]` names them."""
    seeds = table.get("seeds", 3)
    if isinstance(seeds, list):
        if not seeds or len(set(map(str, seeds))) < len(seeds) or not all(is_whole(seed) for seed in seeds):
            raise UserError(f"seeds is {seeds!r}; give different whole numbers")
        return tuple(seeds)
    first, count = whole(table, "first_seed", 0, least=0), whole(table, "seeds", 3, least=1)
    check_count(count)
    return tuple(range(first, first + count))


def whole(table: dict[str, Any], key: str, default: int, *, least: int) -> int:
    """A whole number of the table."""
    value = table.get(key, default)
    if not is_whole(value) or value < least:
        raise UserError(f"{key} is {value!r}; give a whole number, {least} or more")
    return value


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def grid_rows(grid: Any) -> list[dict[str, Any]]:
    """Every combination of the listed values, named after them."""
    if not isinstance(grid, dict) or not grid:
        raise UserError("the grid is empty; give at least one field with a list of values")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"grid: {name} is {values!r}; give a list of values that is not empty")
    check_count(math.prod(len(values) for values in grid.values()))
    rows = []
    for values in itertools.product(*grid.values()):
        row = dict(zip(grid, values, strict=True))
        rows.append({"name": ", ".join(f"{name} {as_typed(value)}" for name, value in row.items()), **row})
    return rows


def dataset_of(row: dict[str, Any], table: dict[str, Any]) -> str:
    """What a row is trained on."""
    dataset = str(row.get("dataset", table.get("dataset", "fashion-mini")))
    check_dataset_name(dataset)
    return dataset


def variant_of(
    row: dict[str, Any],
    table: dict[str, Any],
    shared: dict[str, Any],
    decoding: Mapping[str, Any],
    fitted: Callable[[str], dict[str, Any]],
) -> Variant:
    """One row: its own recipe, data set and fields before the study's; without a recipe the data set's, `fitted` to it."""
    fields_ = {key: value for key, value in row.items() if key not in ("name", "note", "dataset", "recipe")}
    name, note, dataset = str(row.get("name", "")), str(row.get("note", "")), dataset_of(row, table)
    named = row.get("recipe", table.get("recipe"))
    model = fields_.get("model", shared.get("model"))
    recipe = default_for(dataset, model) if named is None else str(named)
    if taken := {"seed", "folds", "fold"} & {*fields_, *shared}:
        raise UserError(f"{sorted(taken)[0]} is set by the study itself; use seeds and folds at its top")
    try:
        changes = fitted(dataset) if named is None and recipe == default_for(dataset) else {}
        own = (
            {"own": values_of(as_own(shared.get("own", ()))) | values_of(as_own(fields_["own"]))}
            if "own" in fields_
            else {}
        )
        made = vary(named_recipe(recipe), **(changes | shared | fields_ | own))
        if "grid" not in table:  # whose columns are crossed, whatever comes of it
            check_effects(made, fields_)
    except UserError as error:
        raise UserError(f"variant {name!r}: {error}") from error
    changed = ", ".join(f"{key} {as_typed(value)}" for key, value in fields_.items())
    return Variant(name or changed or recipe, dataset, made, note, decoding=decoding_for(dataset, decoding))
