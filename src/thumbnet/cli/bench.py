"""Train recipes over seeds and record accuracy and time."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from thumbnet.cli.options import (
    Decoding,
    DecodingFlags,
    Json,
    MachineFlags,
    Machines,
    RecipeFlags,
    Recipes,
    Whole,
    check_positive,
    described,
    given,
    print_json,
    show,
)
from thumbnet.errors import UserError
from thumbnet.recipes import RECIPES
from thumbnet.recipes import recipe as named_recipe


@described
def bench(
    *recipes: str,
    seeds: Whole = 5,
    first_seed: Whole = 0,
    dataset: str | None = None,
    split: Literal["test", "validation"] = "test",
    out: Path | None = None,
    add: bool = False,
    runs: Path = Path("runs/bench"),
    data_dir: Path | None = None,
    resume: bool = False,
    one_process: bool = False,
    time_limit: str | None = None,
    fields: Recipes = RecipeFlags(),  # noqa: B008
    decoding: Decoding = DecodingFlags(),  # noqa: B008
    machine: Machines = MachineFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Train each recipe over several seeds in fresh processes, and record accuracy, spread and time.

    Parameters
    ----------
    recipes
        names from `thumbnet list recipes`
    seeds
        runs of each recipe
    first_seed
        the seed of the first run; the others follow it
    dataset
        what to train on, if not the set that the recipe is named after
    split
        test: train on all training images and open the test set once a run; validation: for tuning
    out
        folder that gets RECIPE.json, for a run to be published; without it nothing is recorded
    add
        keep the seeds of the RECIPE.json that is there already, and add these to them
    runs
        folder for the run folders
    data_dir
        folder with the published files; else THUMBNET_DATA, else downloaded
    resume
        go on with a campaign that was stopped: its measured runs are kept, its last run continues
    one_process
        train all seeds in this process, after a run that warms up: for statistics of runs of seconds, and on a GPU
    time_limit
        begin no seed that would end after this time, for example 9m or 2h, by how long the last one took; the record is of
        those that were measured
    """
    changes = given(fields)
    check_recipes(recipes, changes)
    check_positive(seeds=seeds)
    if add and not out:
        raise UserError("--add adds seeds to a record, so it needs the --out that the record is in")

    from thumbnet.data.names import decoding_of
    from thumbnet.machine import Machine
    from thumbnet.measuring.campaign import dataset_of
    from thumbnet.measuring.results import recorded
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.studies.cells import check_data_dir
    from thumbnet.words import seconds_in

    drawn = range(first_seed, first_seed + seeds)
    plans = [(name, dataset or dataset_of(name)) for name in recipes]
    options: dict[str, Any] = {"split": split, "changes": changes, "machine": Machine(**given(machine)), "add": add}
    options |= {"one_process": one_process, "decoding": decoding_of(given(decoding), [images for _, images in plans])}
    check_data_dir([images for _, images in plans], data_dir)
    limit = seconds_in(time_limit, "time-limit") if time_limit else math.inf
    check_places(plans, drawn, None if resume else runs, out, options)
    if time_limit and out and not add:
        check_nothing_is_shortened([out / f"{name}.json" for name, _ in plans])
    published = recorded()  # before --out writes over them
    places: dict[str, Any] = {"folder": runs, "out": out, "data_dir": data_dir, "resume": resume}
    with reporter_for_terminal() as reporter:
        records = measured(plans, drawn, limit, reporter.say, **places, **options)
    if json:
        print_json({"campaigns": records})
    else:
        show("\n".join(lines(records, published)))


def measured(
    plans: list[tuple[str, str]], seeds: range, limit: float, tell: Callable[[str], None], **options: Any
) -> list[dict[str, Any]]:
    """The record of each recipe on its data set; after the first, only of those that are begun within `limit` seconds."""
    from thumbnet.data.names import comes_as_files
    from thumbnet.measuring.campaign import measured_campaign
    from thumbnet.words import counted

    ends, records = time.monotonic() + limit, list[dict[str, Any]]()
    for name, images in plans:
        left = ends - time.monotonic()
        if records and left <= 0:
            tell(f"no time left for {name}")
            continue
        tell(f"{name} on {images}, {counted(len(seeds), 'seed')}")
        place = {"data_dir": options["data_dir"] if comes_as_files(images) else None}
        records.append(measured_campaign(name, images, seeds, time_limit=left, tell=tell, **(options | place)))
    return records


def check_recipes(recipes: tuple[str, ...], changes: dict[str, Any]) -> None:
    """Raise `UserError` before anything is loaded where a recipe is not known, or cannot be changed like this."""
    if not recipes:
        raise UserError(f"name a recipe to measure, for instance cifar10-83; there are {', '.join(RECIPES)}")
    if "seed" in changes:
        raise UserError("bench has --first-seed and --seeds in place of --seed")
    for name in recipes:
        named_recipe(name, **changes)


def check_places(
    plans: list[tuple[str, str]], seeds: range, runs: Path | None, out: Path | None, options: dict[str, Any]
) -> None:
    """Raise `UserError`, before the first recipe is trained, where the place of a run is taken or a record would be lost.

    `plans`: recipes with their data sets; `runs` is None where runs that are there are to go on, `out` where nothing is recorded.
    """
    from thumbnet.measuring.campaign import effective_changes, planned, record_before, refuse_taken

    for name, dataset in plans:
        changes = effective_changes(name, options["changes"])
        if out:
            record_before(out, name, dataset, seeds, **{**options, "changes": changes})
        if runs:
            recipe, places = planned(name, seeds, options["split"], runs, changes)
            refuse_taken(places, recipe)


def check_nothing_is_shortened(records: list[Path]) -> None:
    """Raise `UserError` where a record is in a place whose new one may come to hold fewer seeds."""
    for path in records:
        if path.is_file():
            raise UserError(
                f"{path} is there, and --time-limit may leave seeds out that it has; keep it by --add, or give another --out"
            )


def lines(records: list[dict[str, Any]], published: list[dict[str, Any]]) -> list[str]:
    """The table for people, and each record as a ratio to the published one."""
    from thumbnet.measuring.results import campaign_table, compared_with_published

    compared = (line for record in records for line in compared_with_published(record, published))
    return [*campaign_table(records), *compared]
