"""Train recipes over seeds and record accuracy and time."""

from pathlib import Path
from typing import Any, Literal

from thumbnet.cli.options import (
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
    runs: Path = Path("runs/bench"),
    data_dir: Path | None = None,
    resume: bool = False,
    one_process: bool = False,
    fields: Recipes = RecipeFlags(),  # noqa: B008
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
    runs
        folder for the run folders
    data_dir
        folder with the published files; else THUMBNET_DATA, else downloaded
    resume
        go on with a campaign that was stopped: its measured runs are kept, its last run continues
    one_process
        train all seeds in this process, after a run that warms up: for statistics of runs of seconds, and on a GPU
    """
    changes = given(fields)
    check_recipes(recipes, changes)
    check_positive(seeds=seeds)

    from thumbnet.machine import Machine
    from thumbnet.measuring.campaign import dataset_of, measured_campaign, planned, refuse_taken
    from thumbnet.measuring.results import recorded
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.words import counted

    drawn = range(first_seed, first_seed + seeds)
    if out:
        refuse_other_records(out, recipes, dataset, drawn, {"split": split, "changes": changes})
    for name in () if resume else recipes:  # all of them, before the first is trained
        recipe, places = planned(name, drawn, split, runs, changes)
        refuse_taken(places, recipe)
    published = recorded()  # before --out writes over them
    records: list[dict[str, Any]] = []
    with reporter_for_terminal() as reporter:
        for name in recipes:
            reporter.say(f"{name} on {dataset or dataset_of(name)}, {counted(seeds, 'seed')}")
            record = measured_campaign(
                name,
                dataset or dataset_of(name),
                drawn,
                split=split,
                folder=runs,
                out=out,
                data_dir=data_dir,
                machine=Machine(**given(machine)),
                changes=changes,
                resume=resume,
                one_process=one_process,
                tell=reporter.say,
            )
            records.append(record)
    if json:
        print_json({"campaigns": records})
    else:
        print("\n".join(lines(records, published)))


def check_recipes(recipes: tuple[str, ...], changes: dict[str, Any]) -> None:
    """Raise `UserError` before anything is loaded where a recipe is not known, or cannot be changed like this."""
    if not recipes:
        raise UserError(f"name a recipe to measure, for instance cifar10-83; there are {', '.join(RECIPES)}")
    if "seed" in changes:
        raise UserError("bench has --first-seed and --seeds in place of --seed")
    for name in recipes:
        named_recipe(name, **changes)


def refuse_other_records(
    out: Path, recipes: tuple[str, ...], dataset: str | None, seeds: range, options: dict[str, Any]
) -> None:
    """Raise `UserError`, before the first recipe is trained, where the record of one of them would be lost."""
    from thumbnet.measuring.campaign import dataset_of, record_before

    for name in recipes:
        record_before(out / f"{name}.json", dataset or dataset_of(name), seeds, options)


def lines(records: list[dict[str, Any]], published: list[dict[str, Any]]) -> list[str]:
    """The table for people, and each record as a ratio to the published one."""
    from thumbnet.measuring.results import campaign_table, compared_with_published

    compared = (line for record in records for line in compared_with_published(record, published))
    return [*campaign_table(records), *compared]
