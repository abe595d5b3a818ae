"""The record of a campaign, as results/ holds it: made, replaced only where nothing is lost, added to in a later sitting."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thumbnet.data.names import DECODING
from thumbnet.errors import UserError
from thumbnet.judging.statistics import accuracy_interval
from thumbnet.machine import Machine
from thumbnet.measuring.measured_run import known
from thumbnet.measuring.results import as_of_the_present_recipe
from thumbnet.reading import NUMBER, Fields, read_json, with_fields
from thumbnet.recipes.recipe import Recipe

VERSIONS = ("thumbnet", "commit", "python", "torch", "numpy")
OF_A_CAMPAIGN = ("name", "seed", "validation")  # fields of a recipe that the record has elsewhere, or for each run
# What is relied on of a record that is there, and of each run in it.
TO_COMPARE: Fields = {
    "kind": str, "recipe": str, "dataset": str, "split": str, "changes": dict, "seeds": list, "n": int, "epochs": NUMBER,
}  # fmt: skip
TO_ADD_TO: Fields = {
    **TO_COMPARE, "fields": dict, "command": list, "processor": str, "threads": int, "precision": str, "versions": dict,
    "runs": list,
}  # fmt: skip
OF_A_RUN: Fields = {
    "seed": int, "accuracy": NUMBER, "accuracy_1_view": NUMBER, "top5": NUMBER, "train_clock": NUMBER,
    "evaluation_seconds": NUMBER, "cold_wall": (int, float, type(None)), "images_per_second": NUMBER, "peak_memory_mb": NUMBER,
}  # fmt: skip


def summary_of_campaign(
    recipe: Recipe, dataset: str, split: str, rows: Sequence[dict[str, Any]], changes: dict[str, Any]
) -> dict[str, Any]:
    """The record: every seed, means with spread and interval, clocks, what it ran on and what it computed."""
    about = rows[0]["environment"]
    runs = [{key: value for key, value in row.items() if key != "environment"} for row in rows]
    return {
        "kind": "campaign",
        "recipe": recipe.name,
        "dataset": dataset,
        "split": split,
        "changes": changes,
        "fields": {name: value for name, value in vars(recipe).items() if name not in OF_A_CAMPAIGN},
        "validation": recipe.validation,
        "epochs": recipe.epochs,
        "views": recipe.test_views,
        "uncertain": recipe.uncertain if recipe.test_views > 1 else 1.0,
        **accuracies_of(runs),
        **costs_of(runs),
        "processor": about["gpu"] or about["processor"],
        "threads": about["threads"],
        "precision": about["precision"],
        "kernels": about.get("kernels"),
        **in_order([{key: row["environment"][key] for key in VERSIONS} for row in rows]),
        "runs": runs,
    }


def accuracies_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What runs reach together: means, spread and interval."""
    accuracies = [run["accuracy"] for run in runs]
    return {
        "n": len(runs),
        "seeds": [run["seed"] for run in runs],
        "accuracy": statistics.fmean(accuracies),
        "accuracy_sd": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "accuracy_interval95": accuracy_interval(accuracies),
        "accuracy_1_view": statistics.fmean(run["accuracy_1_view"] for run in runs),
        "top5": statistics.fmean(run["top5"] for run in runs),
    }


def costs_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What runs cost: medians of clocks, the most memory."""
    return {
        "train_clock": statistics.median(run["train_clock"] for run in runs),
        "train_clock_range": [min(run["train_clock"] for run in runs), max(run["train_clock"] for run in runs)],
        "cold_wall": statistics.median(cold) if (cold := known(run["cold_wall"] for run in runs)) else None,
        "images_per_second": statistics.median(run["images_per_second"] for run in runs),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "peak_gpu_memory_mb": max(known(run.get("peak_gpu_memory_mb") for run in runs), default=None),
    }


def in_order(versions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the first run was made with, and what seeds that were added later were, each once."""
    return {
        "versions": versions[0],
        "other_versions": [one for i, one in enumerate(versions) if one not in versions[:i]][1:],
    }


# ------------------------------------------------------------------------------------ a record that is there already


def record_to_replace(
    path: Path, dataset: str, split: str, seeds: Sequence[int], changes: dict[str, Any], decoding: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The record at `path` that a campaign will replace, or None where there is none.

    Raises `UserError` where another campaign's, or a seed of this one's, would be lost.
    """
    if not path.is_file():
        return None
    before = read_json(path, TO_COMPARE)
    if differing := different(before, dataset, split, changes, decoding):
        raise UserError(f"{path} holds a campaign with other {differing}, which would be lost; give another --out")
    same_recipe = not different(as_of_the_present_recipe(before), dataset, split, changes, decoding)
    if same_recipe and (lost := [seed for seed in before["seeds"] if seed not in seeds]):
        raise UserError(
            f"{path} has seed {lost[0]}, which would be lost; keep it by --add, give another --out, or measure that seed too"
        )
    return before


def record_to_add_to(
    path: Path,
    dataset: str,
    split: str,
    seeds: Sequence[int],
    changes: dict[str, Any],
    machine: Machine,
    decoding: Mapping[str, Any] | None = None,
    *,
    one_process: bool = False,
) -> dict[str, Any] | None:
    """The record at `path` that a campaign of other seeds can be added to, or None where there is none.

    Raises `UserError` where it is of something else, was measured on another machine or in another way, or has one of the seeds.
    """
    from thumbnet.backend import environment, prepare

    if not path.is_file():
        return None
    before = read_json(path, TO_ADD_TO)
    try:
        for run in before["runs"]:
            with_fields(run, OF_A_RUN)
        with_fields({"added": [], "other_versions": []} | before, {"added": list, "other_versions": list})
    except ValueError as error:
        raise UserError(f"{path} is damaged in its runs: {error}") from error
    if differing := different(as_of_the_present_recipe(before), dataset, split, changes, decoding or {}):
        raise UserError(
            f"{path} holds a campaign with other {differing}, to which nothing can be added; give another --out"
        )
    here = environment(prepare(machine))
    here["processor"] = here["gpu"] or here["processor"]
    for key in ("processor", "threads", "precision", "kernels"):
        if before.get(key) != here[key] and before.get(key) is not None:  # older records lack the kernels
            raise UserError(
                f"{path} was measured with {key} {before[key]}, and this would be with {here[key]}; give another --out"
            )
    if one_process != ("--one-process" in before["command"]):
        ways = ("without", "with") if one_process else ("with", "without")
        raise UserError(f"{path} was measured {ways[0]} --one-process, and this would be {ways[1]}; measure both alike")
    had = [run["seed"] for run in before["runs"]]
    if twice := [seed for seed in seeds if seed in had]:
        raise UserError(f"{path} has seed {twice[0]} already; add others by --first-seed {max(had) + 1}")
    return before


def different(
    before: dict[str, Any], dataset: str, split: str, changes: dict[str, Any], decoding: Mapping[str, Any]
) -> str | None:
    """The first thing in which a recorded campaign differs from the one asked for, by name."""
    decoded = {key: before[key] for key in DECODING if key in before}
    had = {"dataset": before["dataset"], "split": before["split"], **decoded, **before["changes"]}
    asked = {"dataset": dataset, "split": split, **decoding, **json.loads(json.dumps(changes))}
    return next((name for name in {**had, **asked} if had.get(name) != asked.get(name)), None)


def joined(before: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The record of the runs of both, in their order, with the command of the first and a list of those that added to it.

    Accuracies are of all runs; costs, like the ceiling, of the last sitting, whose code and whose hour they belong to.
    """
    runs = [*before["runs"], *record["runs"]]
    versions = [both for one in (before, record) for both in (one["versions"], *one.get("other_versions", []))]
    added = [*before.get("added", []), record["command"]]
    return {
        **record,
        **accuracies_of(runs),
        **in_order(versions),
        "command": before["command"],
        "added": added,
        "runs": runs,
    }
