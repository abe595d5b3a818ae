"""The published numbers: one JSON per result, written by the program, read by `list`, `bench` and the README's tables.

Those of the machine that the recipes were made on lie in the folder itself, those of others in folders below it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thumbnet.own_code import is_own
from thumbnet.own_code import shown as shown_code

INSTALLED, IN_THE_SOURCES = Path(__file__).parents[1] / "published", Path(__file__).parents[3] / "results"
FEW_SECONDS = 5  # hundredths of which are more than a thousandth of the whole


def folder() -> Path:
    """Where the results lie: in the installed package, or at the root of the source tree."""
    return INSTALLED if INSTALLED.is_dir() else IN_THE_SOURCES


def recorded() -> list[dict[str, Any]]:
    """Every recorded result, by file name, those of the first machine first."""
    paths = sorted(folder().rglob("*.json"), key=lambda path: (len(path.parts), path))
    return [as_of_the_present_recipe(json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def as_of_the_present_recipe(record: dict[str, Any]) -> dict[str, Any]:
    """A campaign whose `changes` are what differs from the named recipe as it is now, which may have been another then.

    Older records tell of the recipe's own fields only the epochs.
    """
    from thumbnet.recipes import RECIPES
    from thumbnet.recipes.recipe import NEWER_FIELDS

    if record["kind"] != "campaign" or record["recipe"] not in RECIPES:
        return record
    own = json.loads(json.dumps(vars(RECIPES[record["recipe"]]())))
    then = json.loads(json.dumps(NEWER_FIELDS)) | record.get("fields", {"epochs": record["epochs"]}) | record["changes"]
    return record | {"changes": {name: value for name, value in then.items() if own.get(name) != value}}


def recorded_for(recipe: str) -> list[str]:
    """One line for every result of a named recipe, first those of the recipe as it is."""
    found = [result for result in recorded() if result.get("recipe") == recipe]
    return [in_words(result) for result in sorted(found, key=lambda result: bool(result["changes"]))]


def in_words(result: dict[str, Any]) -> str:
    """`83.40 % test accuracy (n = 1) with epochs 16, 12:30 on a processor, bf16`."""
    from thumbnet.words import duration

    changes = ", ".join(f"{name} {shown(value)}" for name, value in result["changes"].items())
    changed = f" with {changes}" if changes else ""
    where = f"{result['processor']}, {result['precision']}"
    if result["kind"] == "campaign":
        views = views_in_words(result["views"], result["uncertain"])
        named_after = result["recipe"].startswith(f"{result['dataset']}-")
        images = f"{result['split']} accuracy" + ("" if named_after else f" on {result['dataset']}")
        return (
            f"{result['accuracy']:.2%} {images}{sd_in_words(result)}, {result['top5']:.2%} top-5, in "
            f"{seconds_in_words(result['train_clock'])}{changed} ({views}), {where}"
        )
    took = f"{duration(result['train_seconds'])} on " if result["train_seconds"] else ""
    return (
        f"{result['test_accuracy']:.2%} test accuracy, {result['test_top5']:.2%} top-5 (n = {result['n']})"
        f"{changed}, {took}{where}"
    )


def shown(value: Any) -> str:
    """A field's value without needless digits: `24` for 24.0; of the user's own code, the file's name."""
    if is_own(value):
        return shown_code(value)
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def seconds_in_words(seconds: float) -> str:
    """`226.2 s`; of few seconds, as on a GPU, hundredths too."""
    return f"{seconds:.1f} s" if seconds >= FEW_SECONDS else f"{seconds:.2f} s"


def sd_in_words(record: dict[str, Any]) -> str:
    """` (sd 0.13, n = 5)`, in points; only n for a single run."""
    sd = f"sd {100 * record['accuracy_sd']:.2f}, " if record["accuracy_sd"] is not None else ""
    return f" ({sd}n = {record['n']})"


def views_in_words(views: int, uncertain: float) -> str:
    """`1 view`, `2 views` or `6 views of the 25% least certain`."""
    from thumbnet.words import counted

    text = counted(views, "view")
    return text if uncertain == 1 else f"{text} of the {uncertain:.0%} least certain"


def campaign_table(records: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: one row per campaign; accuracies are means, seconds medians."""
    rows = [
        "| recipe | accuracy (sd) | 95 % interval of the mean | with one view | top-5 | n | train clock | cold wall "
        "| memory | of the ceiling |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        cold = "-" if record["cold_wall"] is None else f"{record['cold_wall']:.1f} s"
        name = f"`{record['recipe']}`" + "".join(f" {key}={shown(value)}" for key, value in record["changes"].items())
        sd = "" if record["accuracy_sd"] is None else f" ({100 * record['accuracy_sd']:.2f})"
        interval = record["accuracy_interval95"]
        between = f"{interval[0]:.2%} to {interval[1]:.2%}" if interval else ""
        on_gpu = record.get("peak_gpu_memory_mb")
        memory = f"{record['peak_memory_mb'] / 1000:.1f} GB" + (f", {on_gpu / 1000:.1f} on the GPU" if on_gpu else "")
        rows.append(
            f"| {name} | {record['accuracy']:.2%}{sd} | {between} | {record['accuracy_1_view']:.2%} | {record['top5']:.2%} "
            f"| {record['n']} | {seconds_in_words(record['train_clock'])} | {cold} "
            f"| {memory} | {record['part_of_ceiling']:.0%} |"
        )
    return rows


def compared_with_published(record: dict[str, Any], published: list[dict[str, Any]]) -> list[str]:
    """A new record beside those of the same recipe `recorded` before: difference in points, ratio of the train clocks."""
    lines = []
    for old in published:
        same = all(old.get(key) == record[key] for key in ("kind", "recipe", "dataset", "split", "changes"))
        if same:
            lines.append(
                f"{record['recipe']}: {100 * (record['accuracy'] - old['accuracy']):+.2f} points and "
                f"{record['train_clock'] / old['train_clock']:.2f} x the train clock of the published record "
                f"({old['accuracy']:.2%} in {seconds_in_words(old['train_clock'])} on {old['processor']})"
            )
    return lines
