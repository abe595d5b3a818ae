"""Campaigns: a recipe trained over seeds in fresh processes and measured inside one clock, as results/ records it."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thumbnet.errors import UserError
from thumbnet.files import read_json, write_json
from thumbnet.judging.statistics import accuracy_interval
from thumbnet.machine import Machine
from thumbnet.measuring.measured_run import InThisProcess, in_fresh_process, known, measured_before
from thumbnet.measuring.results import as_of_the_present_recipe, seconds_in_words
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import Recipe, vary
from thumbnet.runs.paths import is_free
from thumbnet.runs.run import Run
from thumbnet.words import counted

VERSIONS = ("thumbnet", "commit", "python", "torch", "numpy")
OF_A_CAMPAIGN = ("name", "seed", "validation")  # fields of a recipe that the record has elsewhere, or for each run
HOLDING_OUT = ("validation", "folds", "fold")  # fields that keep images from training


def run_campaign(
    name: str,
    dataset: str,
    seeds: Sequence[int],
    *,
    split: str = "test",
    folder: Path,
    data_dir: Path | None = None,
    machine: Machine | None = None,
    changes: dict[str, Any] | None = None,
    resume: bool = False,
    one_process: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train the named recipe once per seed, each in a process of its own, and give what results/ records.

    With `one_process` all are trained in this one, after a short one that warms up and is thrown away: on a GPU it records
    what the others replay. There is no cold wall then.

    On `split` "test" each run trains on every training image and opens the test set once, which its run folder in `folder`
    counts; on "validation" it holds out what the recipe says (0.1 if it says nothing). With `resume`, runs of an interrupted
    campaign in `folder` are kept or continued. Raises `UserError` for bad arguments, `TrainingFailed` where a run fails,
    `Interrupted` after a signal to stop.
    """
    changes, machine = changes or {}, machine or Machine()
    recipe, places = planned(name, seeds, split, folder, changes)
    rows: list[dict[str, Any]] = []
    if not resume:
        refuse_taken(places, recipe)
    measure = InThisProcess() if one_process else in_fresh_process
    for seed in seeds:
        order = {
            "recipe": name,
            "changes": {**changes, "validation": recipe.validation, "seed": seed},
            "dataset": dataset,
            "data_dir": str(data_dir) if data_dir else None,
            "split": split,
            "out": str(places[seed]),
            "machine": vars(machine),
            "resume": resume,
        }
        before = measured_before(order) if resume else None
        row = before or measure(order)
        rows.append(row)
        single = f", {row['accuracy_1_view']:.2%} with one" if row["views"] > 1 else ""
        cold = "" if row["cold_wall"] is None else f", cold wall {row['cold_wall']:.1f} s"
        reached = f"{split} accuracy {row['accuracy']:.2%} with {counted(row['views'], 'view')}{single}"
        kept = ", as measured before" if before else ""
        tell(f"seed {seed}: {reached}; train clock {seconds_in_words(row['train_clock'])}{cold}{kept}")
    command = command_of(recipe, dataset, split, seeds, changes, machine, one_process=one_process)
    return {"command": command, **summary_of_campaign(recipe, dataset, split, rows, changes)}


def planned(
    name: str, seeds: Sequence[int], split: str, folder: Path, changes: dict[str, Any]
) -> tuple[Recipe, dict[int, Path]]:
    """The recipe of a campaign but for the seed, and the run folder of each seed.

    Raises `UserError` where the changes hold images out that are to be trained on.
    """
    if split == "test" and (held := [field for field in HOLDING_OUT if changes.get(field)]):
        raise UserError(f"{held[0]} holds images out, and on the test split all are trained on; use --split validation")
    recipe = vary(named_recipe(name), **changes)
    recipe = vary(recipe, validation=0.0 if split == "test" else recipe.validation or 0.1)
    return recipe, {seed: folder / f"{name}-s{seed}" for seed in seeds}


def refuse_taken(places: Mapping[int, Path], recipe: Recipe) -> None:
    """Raise `UserError` where something is in a seed's place; `--resume` is named where it is a run of this very recipe."""
    for seed, path in places.items():
        if is_free(path):
            continue
        same = False
        with suppress(UserError):  # not a run, or one that cannot be read
            same = Run.open(path).recipe == vary(recipe, seed=seed)
        if same:
            raise UserError(
                f"{path} is there already; if its campaign was this one, go on by --resume, else give another --runs"
            )
        raise UserError(f"{path} is there already, and no run of this recipe with these changes; give another --runs")


def measured_campaign(
    name: str,
    dataset: str,
    seeds: Sequence[int],
    *,
    out: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> dict[str, Any]:
    """`run_campaign`, with what the machine can do at best beside it; written to `out`/<recipe>.json where `out` is given.

    Raises `UserError` before anything is trained where the record of another campaign is there.
    """
    from thumbnet.data.datasets import load_dataset
    from thumbnet.measuring.operations import convolution_ceiling, training_flops

    before = None if out is None else record_before(out / f"{name}.json", dataset, seeds, options)
    record = run_campaign(name, dataset, seeds, tell=tell, **options)
    recipe = vary(named_recipe(name), **{**record["changes"], "validation": record["validation"]})
    data = load_dataset(dataset, data_dir=options.get("data_dir"), validation=recipe.validation, seed=recipe.seed)
    flops = training_flops(recipe, data)
    ceiling = convolution_ceiling(options.get("machine") or Machine())
    training = statistics.median(row["train_clock"] - row["evaluation_seconds"] for row in record["runs"])
    record |= {
        "training_flops": flops,
        "flops_per_second": round(flops / training),
        "ceiling_flops_per_second": round(ceiling),
        "part_of_ceiling": round(flops / training / ceiling, 3),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / f"{name}.json", record)
        if before:
            tell(f"{out / f'{name}.json'} is replaced; it had {counted(before['n'], 'seed')}")
    return record


def record_before(path: Path, dataset: str, seeds: Sequence[int], options: dict[str, Any]) -> dict[str, Any] | None:
    """The record that a campaign will replace, or None. Raises `UserError` where another one, or a seed of it, would be lost."""
    if not path.is_file():
        return None
    kinds = {"kind": str, "recipe": str, "dataset": str, "split": str, "changes": dict, "seeds": list, "n": int}
    before = read_json(path, kinds | {"epochs": (int, float)})
    changes = json.loads(json.dumps(options.get("changes") or {}))
    had = {"dataset": before["dataset"], "split": before["split"], **before["changes"]}
    asked = {"dataset": dataset, "split": options.get("split", "test"), **changes}
    if differing := [name for name in {**had, **asked} if had.get(name) != asked.get(name)]:
        raise UserError(f"{path} holds a campaign with other {differing[0]}, which would be lost; give another --out")
    same_recipe = as_of_the_present_recipe(before)["changes"] == changes
    if same_recipe and (lost := [seed for seed in before["seeds"] if seed not in seeds]):
        raise UserError(f"{path} has seed {lost[0]}, which would be lost; give another --out, or measure that seed too")
    return before


def summary_of_campaign(
    recipe: Recipe, dataset: str, split: str, rows: Sequence[dict[str, Any]], changes: dict[str, Any]
) -> dict[str, Any]:
    """The record: every seed, means with spread and interval, clocks, what it ran on and what it computed."""
    about = rows[0]["environment"]
    versions = [{key: row["environment"][key] for key in VERSIONS} for row in rows]
    accuracies = [row["accuracy"] for row in rows]
    return {
        "kind": "campaign",
        "recipe": recipe.name,
        "dataset": dataset,
        "split": split,
        "changes": changes,
        "fields": {name: value for name, value in vars(recipe).items() if name not in OF_A_CAMPAIGN},
        "validation": recipe.validation,
        "n": len(rows),
        "seeds": [row["seed"] for row in rows],
        "epochs": recipe.epochs,
        "views": recipe.test_views,
        "uncertain": recipe.uncertain if recipe.test_views > 1 else 1.0,
        "accuracy": statistics.fmean(accuracies),
        "accuracy_sd": statistics.stdev(accuracies) if len(rows) > 1 else None,
        "accuracy_interval95": accuracy_interval(accuracies),
        "accuracy_1_view": statistics.fmean(row["accuracy_1_view"] for row in rows),
        "top5": statistics.fmean(row["top5"] for row in rows),
        "train_clock": statistics.median(row["train_clock"] for row in rows),
        "train_clock_range": [min(row["train_clock"] for row in rows), max(row["train_clock"] for row in rows)],
        "cold_wall": statistics.median(cold) if (cold := known(row["cold_wall"] for row in rows)) else None,
        "images_per_second": statistics.median(row["images_per_second"] for row in rows),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
        "peak_gpu_memory_mb": max(known(row.get("peak_gpu_memory_mb") for row in rows), default=None),
        "processor": about["gpu"] or about["processor"],
        "threads": about["threads"],
        "precision": about["precision"],
        "versions": versions[0],
        "other_versions": [one for i, one in enumerate(versions) if one not in versions[:i]][
            1:
        ],  # of seeds added later
        "runs": [{key: value for key, value in row.items() if key != "environment"} for row in rows],
    }


def command_of(
    recipe: Recipe,
    dataset: str,
    split: str,
    seeds: Sequence[int],
    changes: dict[str, Any],
    machine: Machine,
    *,
    one_process: bool,
) -> list[str]:
    """The command that repeats a campaign, without where its files lay."""
    words = [
        "thumbnet",
        "bench",
        recipe.name,
        "--seeds",
        str(len(seeds)),
        "--first-seed",
        str(seeds[0]),
        "--split",
        split,
    ]
    if dataset != dataset_of(recipe.name):
        words += ["--dataset", dataset]
    if one_process:
        words.append("--one-process")
    asked = {name: value for name, value in vars(machine).items() if value != getattr(Machine(), name)}
    for name, value in {**changes, **asked}.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def dataset_of(name: str) -> str:
    """The data set a recipe is named after: `cifar10` for cifar10-94; fashion-mini where it is named after none."""
    from thumbnet.data.datasets import SPECS

    return next((dataset for dataset in SPECS if name.startswith(f"{dataset}-")), "fashion-mini")
