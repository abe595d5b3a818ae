"""Reading a sweep from a TOML file: which recipe fields are searched, where, and how many trials are made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from thumbnet.data.names import DECODING, SPECS, check_dataset_name, decoding_of
from thumbnet.errors import UserError, unknown_name
from thumbnet.reading import read_toml
from thumbnet.recipes import default_for, vary
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import NEEDS, OF_OWN, check_effects, checked
from thumbnet.studies.fitted import fitted_fields
from thumbnet.studies.study_file import check_folder_name, metric_of
from thumbnet.studies.sweep import FIELDS, SEED, Range, Space, Sweep

KEYS = ("name", "dataset", *DECODING, "recipe", "trials", "seeds", "metric", "fields", "search")
# Fields that the sweep itself sets, that change what is measured, or that trials do not use.
OWN = ("name", "seed", "folds", "fold", "validation", "views", "uncertain")
LARGEST = 10_000  # trials; more is a slip of the pen
LARGEST_NUMBER = 1e9  # that is searched


def read_sweep(path: Path, *, tell: Callable[[str], None] = lambda line: None, **instead: Any) -> Sweep:
    """The sweep in a TOML file; `instead` of what it says numbers of `trials` and `seeds` and what is in `DECODING`, if not None.

    Where it names no recipe for a folder or file, `general` is made to fit the images; `tell` hears how.
    Raises `UserError` naming what is unknown, empty or of the wrong type in it.
    """
    table = read_toml(path, "the sweep file")
    if "search" not in table and ("variant" in table or "grid" in table):
        raise UserError(f"{path} is a study file; type thumbnet study {path}")
    table |= {name: value for name, value in instead.items() if value is not None}
    try:
        return sweep_of(table, default_name=path.stem, tell=tell)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def sweep_of(table: dict[str, Any], *, default_name: str, tell: Callable[[str], None] = lambda line: None) -> Sweep:
    """The sweep that a table of TOML describes."""
    for key in table:
        if key not in KEYS:
            raise unknown_name("key", key, KEYS)
    dataset = str(table.get("dataset", "fashion-mini"))
    check_dataset_name(dataset)
    shared = table.get("fields", {})
    if not isinstance(shared, dict):
        raise UserError("fields is not a table; begin it with [fields]")
    for name in ("name", "seed", "folds", "fold"):
        if name in shared:
            raise UserError(f"{name} is set by the sweep itself; leave it out of [fields]")
    decoding, typed = decoding_of(table, [dataset]), shared | {"seed": SEED}
    named = str(table.get("recipe", default_for(dataset, shared.get("model"))))
    is_fitted = "recipe" not in table and named == default_for(dataset)
    changes = fitted_fields(dataset, typed, decoding=decoding, tell=tell) if is_fitted else {}
    recipe = vary(named_recipe(named), **(changes | typed))
    if dataset in SPECS and not recipe.validation:
        raise UserError("the recipe trains on all images (validation 0), so that nothing is left to judge trials by")
    name = str(table.get("name", default_name))
    check_folder_name(name)
    trials, seeds = (count_of(table, key, default) for key, default in (("trials", 20), ("seeds", 5)))
    space = space_of(table.get("search"))
    for field_ in space:
        field_ = "own" if field_.startswith(OF_OWN) else field_
        if not set(NEEDS.get(field_, [()])[0]) & set(space):  # what it needs is not searched
            check_effects(recipe, [field_])
    return Sweep(name, dataset, recipe, space, trials, seeds, metric_of(table), decoding)


def count_of(table: dict[str, Any], key: str, default: int) -> int:
    """A number of trials or seeds."""
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise UserError(f"{key} is {value!r}; give a whole number from 1 to {LARGEST:,}")
    return value


def space_of(table: Any) -> Space:
    """What each field is tried with. Every value is checked by itself; whether some go together, their trial shows."""
    if not isinstance(table, dict) or not table:
        raise UserError("nothing to search: give a table [search] with at least one field")
    space: dict[str, Range | tuple[Any, ...]] = {}
    for name, given in with_own_apart(table).items():
        if name in OWN:
            raise UserError(
                f"search: {name} cannot be searched; it says what is measured, or trials have no use for it"
            )
        if name not in FIELDS and not name.startswith(OF_OWN):
            raise unknown_name("recipe field", name, [known for known in FIELDS if known not in OWN])
        space[name] = range_of(name, given) if isinstance(given, dict) else values_of(name, given)
    return space


def with_own_apart(table: dict[str, Any]) -> dict[str, Any]:
    """`own.gamma` for each value for the user's own functions, which TOML puts into a table `own`."""
    own = table.get("own")
    if not isinstance(own, dict):
        return table
    return {name: given for name, given in table.items() if name != "own"} | {
        f"{OF_OWN}{name}": own[name] for name in own
    }


def range_of(name: str, given: dict[str, Any]) -> Range:
    """`{ low = 0.05, high = 0.5, log = true }`, of a field that is one number, or a value for the user's own functions."""
    if name in FIELDS and FIELDS[name].type not in (int, float):
        raise UserError(f"search: {name} is no single number; give a list of values to try")
    if not {"low", "high"} <= set(given) <= {"low", "high", "log"} or not isinstance(given.get("log", False), bool):
        raise UserError(f"search: {name} is {given}; give low and high, and log = true for steps by factors")
    low, high = (value_of(name, given[end]) for end in ("low", "high"))
    found = Range(low, high, given.get("log", False))
    if not found.low < found.high < LARGEST_NUMBER or (found.log and found.low <= 0):
        above = " above 0" if found.log else ""
        raise UserError(
            f"search: {name} goes from {found.low:g} to {found.high:g}; give a low{above} that is below high"
        )
    return found


def value_of(name: str, given: Any) -> Any:
    """A value as the field has it; of the user's own any number or text."""
    if name in FIELDS:
        return checked(FIELDS[name], given)
    if isinstance(given, bool) or not isinstance(given, int | float | str) or (given != given):
        raise UserError(f"search: {name} is {given!r}; give a number or a text")
    return given


def values_of(name: str, given: Any) -> tuple[Any, ...]:
    """A list of values, each as the field has it."""
    if not isinstance(given, list) or len(given) < 2:
        raise UserError(f"search: {name} is {given!r}; give a list of two values or more, or low and high")
    values = tuple(value_of(name, value) for value in given)
    if len(set(values)) < len(values):
        raise UserError(f"search: {name} has a value twice")
    return values
