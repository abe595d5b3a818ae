"""Studies: variants of a recipe times seeds, planned first, run in fresh processes, resumable, judged by their statistics.

A study folder holds
plan.json    every cell and what it trains; a later call with another plan is refused
cells/       one run folder per cell, its recipe (CELL.toml) and what its process said (CELL.log)
study.json   the comparison
study.html   the page
"""

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.comparison import Comparison, Metric, beside_table, compare_groups
from thumbnet.data.datasets import SPECS, check_dataset_name
from thumbnet.errors import Interrupted, TrainingFailed, UserError, unknown_name
from thumbnet.files import make_folder, read_json, read_toml, write_json, write_text
from thumbnet.locks import alone_in
from thumbnet.machine import Machine
from thumbnet.recipes import as_typed, default_for, vary
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import Recipe
from thumbnet.runs import Run, as_toml, recipe_table
from thumbnet.signals import StopSignals
from thumbnet.words import counted, duration

if TYPE_CHECKING:
    from thumbnet.backend import Backend
    from thumbnet.data.datasets import Dataset

KEYS = ("name", "about", "dataset", "recipe", "seeds", "first_seed", "folds", "metric", "fields", "grid", "variant")
LARGEST = 10_000  # cells; beyond it a grid is a slip of the pen


@dataclass(frozen=True)
class Variant:
    """One row of a study: a name, a data set, and the recipe without its seed. `note` stands beside it in the report."""

    name: str
    dataset: str
    recipe: Recipe
    note: str = ""
    stated: Mapping[str, str] = field(default_factory=dict)  # what another report says of it, by column


@dataclass(frozen=True)
class Study:
    """What is to be trained. The first variant of each data set is what the others are compared with."""

    name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    folds: int = 0
    metrics: Mapping[str, Metric] = field(default_factory=dict)  # by data set; accuracy where none is named
    about: str = ""

    def cells(self) -> "list[Cell]":
        """Every run: seeds outermost, so that a stopped study has compared all variants on its first seeds."""
        return [
            Cell(variant, vary(variant.recipe, seed=seed, folds=self.folds, fold=fold))
            for seed in self.seeds
            for fold in range(max(1, self.folds))
            for variant in self.variants
        ]

    def unfinished(self, folder: Path) -> "list[Cell]":
        """The runs that are not done yet in the study's folder."""
        return [cell for cell in self.cells() if not (folder / "cells" / cell.name / "summary.json").is_file()]

    def plan(self) -> dict[str, Any]:
        """Everything that decides the result, as plan.json holds it."""
        return {
            "study": self.name,
            "metrics": dict(self.metrics),
            "cells": {
                cell.name: {"dataset": cell.variant.dataset, **recipe_table(cell.recipe)} for cell in self.cells()
            },
            "order": [variant.name for variant in self.variants],
        }


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    variant: Variant
    recipe: Recipe

    @property
    def name(self) -> str:
        """A folder name: the variant's in letters, digits and dashes, then seed and fold."""
        letters = "".join(letter if letter.isalnum() else "-" for letter in self.variant.name)
        fold = f"-f{self.recipe.fold}" if self.recipe.folds else ""
        return f"{'-'.join(filter(None, letters.split('-')))}-s{self.recipe.seed}{fold}"


# ---------------------------------------------------------------- reading a study file


def read_study(path: Path) -> Study:
    """The study in a TOML file. Raises `UserError` naming what is unknown, empty or of the wrong type in it."""
    table = read_toml(path, "the study file")
    for key in table:
        if key not in KEYS:
            raise UserError(f"{path}: {unknown_name('key', key, KEYS)}")
    try:
        return study_of(table, default_name=path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def study_of(table: dict[str, Any], *, default_name: str) -> Study:
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
    variants = tuple(variant_of(row, table, shared) for row in rows)
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two variants are named {twice!r}")
    metric = metric_of(table)
    study = Study(
        name=str(table.get("name", default_name)),
        variants=variants,
        seeds=seeds_of(table),
        folds=whole(table, "folds", 0, least=0),
        metrics={variant.dataset: metric for variant in variants},
        about=str(table.get("about", "")),
    )
    check_study(study)
    return study


def check_is_judged(recipe: Recipe, dataset: str, data_dir: Path | None = None) -> None:
    """Raise `UserError` for a recipe that holds no images out, on a folder that brings no validation images either."""
    if recipe.validation or recipe.folds or dataset in SPECS:  # of these it was asked when the file was read
        return
    if data_at_hand(dataset, data_dir).own_validation is None:
        raise UserError(
            f"the recipe trains on all images of {dataset} (validation 0), so that nothing is left to judge it by; "
            "give validation, as in 0.1"
        )


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
    if metric not in ("accuracy", "top5", "loss"):
        raise UserError(f"metric is {metric!r}; choose accuracy, top5 or loss")
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


def variant_of(row: dict[str, Any], table: dict[str, Any], shared: dict[str, Any]) -> Variant:
    """One row: its own recipe, data set and fields before the study's."""
    fields_ = dict(row)
    name = str(fields_.pop("name", ""))
    note = str(fields_.pop("note", ""))
    dataset = str(fields_.pop("dataset", table.get("dataset", "fashion-mini")))
    check_dataset_name(dataset)
    recipe = str(fields_.pop("recipe", table.get("recipe", default_for(dataset))))
    if taken := {"seed", "folds", "fold"} & {*fields_, *shared}:
        raise UserError(f"{sorted(taken)[0]} is set by the study itself; use seeds and folds at its top")
    try:
        made = named_recipe(recipe, **(shared | fields_))
    except UserError as error:
        raise UserError(f"variant {name!r}: {error}") from error
    changed = ", ".join(f"{key} {as_typed(value)}" for key, value in fields_.items())
    return Variant(name or changed or recipe, dataset, made, note)


# ---------------------------------------------------------------- running a study


@dataclass
class Running:
    """The processes of a study that train now, and what has come of the others."""

    processes: dict[str, tuple[subprocess.Popen[bytes], Cell, float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)  # exit codes of the processes that have ended
    seconds: list[float] = field(default_factory=list)  # of the cells that this call finished


def run_study(
    study: Study,
    folder: Path,
    *,
    jobs: int = 1,
    machine: Machine | None = None,
    data_dir: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[tuple[Cell, Run]]:
    """Train every cell that is not finished, `jobs` at a time, each in a process of its own; gives all with their runs.

    Never opens the test split. Raises `UserError` where `folder` holds another plan, `TrainingFailed` when all is done but
    some cells failed, `Interrupted` after a signal to stop: the same call goes on, also inside a cell.
    """
    refuse_taken(folder)
    cells = study.cells()
    for cell in cells:
        check_is_judged(cell.recipe, cell.variant.dataset, data_dir)
    make_folder(folder)
    threads = share_of_cores(machine or Machine(), jobs)
    running = Running()
    with alone_in(folder, "at the study"), StopSignals() as stop, leaving_no_process(running):
        write_plan(study, folder)
        waiting = study.unfinished(folder)
        total = len(waiting)
        tell(f"{study.name}: {counted(len(cells), 'run')}, {len(cells) - total} finished already, into {folder}")
        while waiting or running.processes:
            if stop.received:
                raise Interrupted(f"stopped by {stop.received}; the same command goes on with the study")
            while waiting and len(running.processes) < jobs:
                start(waiting.pop(0), folder, running, machine or Machine(), threads, data_dir)
            for cell in ended(running):
                left = len(waiting) + len(running.processes)
                tell(line_of(cell, folder, running, total - left, total, left, jobs))
            time.sleep(0.1)
    if running.failed:
        logs = ", ".join(str(folder / "cells" / f"{name}.log") for name in running.failed[:3])
        raise TrainingFailed(
            f"{len(running.failed)} of {counted(len(cells), 'run')} failed; see {logs}, then run the study again"
        )
    return [(cell, Run.open(folder / "cells" / cell.name)) for cell in cells]


def estimated_seconds(
    study: Study, *, machine: Machine | None = None, data_dir: Path | None = None
) -> dict[str, float | str]:
    """Seconds of one run of each variant on this machine, by a few timed steps; the reason where they cannot be told."""
    from thumbnet.backend import prepare

    backend, loaded = prepare(machine or Machine()), dict[str, Any]()
    seconds: dict[str, float | str] = {}
    for variant in study.variants:
        try:
            if variant.dataset not in loaded:
                loaded[variant.dataset] = data_at_hand(variant.dataset, data_dir)
            seconds[variant.name] = seconds_of_run(
                vary(variant.recipe, folds=study.folds), loaded[variant.dataset], backend
            )
        except UserError as error:
            seconds[variant.name] = str(error)
    return seconds


def data_at_hand(name: str, data_dir: Path | None) -> "Dataset":
    """The data set, whole; never downloaded."""
    from thumbnet.data.datasets import load_dataset

    if name in SPECS:
        return load_dataset(name, validation=0, data_dir=data_dir, offline=True)
    return load_dataset(name, validation=0)


def seconds_of_run(recipe: Recipe, data: "Dataset", backend: "Backend") -> float:
    """What a run of the recipe takes, by three of its steps."""
    from thumbnet.timing import step_seconds, training_seconds
    from thumbnet.training import check_fits

    cut = data.with_validation(**recipe.cut)
    check_fits(recipe, cut)
    return training_seconds(recipe, cut, step_seconds(recipe, cut, backend, steps=3))


def share_of_cores(machine: Machine, jobs: int) -> int | None:
    """Threads of each of so many processes at a time; None leaves it to the one that is alone."""
    return machine.threads or (max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None)


def refuse_taken(folder: Path) -> None:
    """Raise `UserError` where something other than a study is in the folder's place, before anything is written there."""
    if not folder.exists() or (folder / "plan.json").is_file():
        return
    if not folder.is_dir() or any(not path.name.startswith(".lock") for path in folder.iterdir()):
        raise UserError(f"{folder} is taken and holds no plan of ours; give another --out")


def write_plan(study: Study, folder: Path) -> None:
    """Write plan.json and the cells' recipes, or raise `UserError` where there is another plan, saying what differs."""
    path = folder / "plan.json"
    plan = json.loads(json.dumps(study.plan()))
    looks: list[int] = []
    if path.is_file():
        before = read_json(path, {"study": str, "metrics": dict, "cells": dict, "order": list})
        looks = before.pop("looks", [])
        if before != plan and not has_more_seeds(before, plan):
            raise UserError(f"{folder} holds another plan: {plan_difference(before, plan)}; give another --out")
        if before != plan and (folder / "study.json").is_file():  # it was judged with the seeds of then
            looks = [*looks, len(before["cells"]) // len(before["order"]) // max(1, study.folds)]
    write_json(path, plan | ({"looks": looks} if looks else {}))
    for cell in study.cells():
        recipe = folder / "cells" / f"{cell.name}.toml"
        if not recipe.is_file():
            write_text(recipe, as_toml(recipe_table(cell.recipe), "one run of a study"))


def has_more_seeds(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a plan is an earlier one with further seeds: the same variants, and every run of then."""
    same = all(before.get(key) == now[key] for key in ("study", "metrics", "order"))
    return same and before["cells"].items() <= now["cells"].items()


def looks_before(folder: Path) -> list[int]:
    """With how many seeds of a variant the study was judged before more were added."""
    return list(read_json(folder / "plan.json").get("looks", []))


def plan_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first thing in which two plans differ, in words."""
    for key in ("study", "metrics"):
        if before.get(key) != now[key]:
            return f"{key} was {before.get(key)!r}, now {now[key]!r}"
    old, new = before.get("cells", {}), now["cells"]
    if gone := [name for name in old if name not in new]:
        return f"it has {gone[0]}, which the new one lacks" + (f" (and {len(gone) - 1} more)" if len(gone) > 1 else "")
    if added := [name for name in new if name not in old]:
        return f"it lacks {added[0]}" + (f" (and {len(added) - 1} more)" if len(added) > 1 else "")
    for name in new:
        for field_, value in new[name].items():
            if old[name].get(field_) != value:
                return f"{field_} of {name} was {old[name].get(field_)!r}, now {value!r}"
    return f"its variants came in the order {', '.join(before['order'])}, now {', '.join(now['order'])}"


def start(
    cell: Cell, folder: Path, running: Running, machine: Machine, threads: int | None, data_dir: Path | None
) -> None:
    """Begin, or go on with, one cell in a process of its own; what it says goes to CELL.log."""
    out = folder / "cells" / cell.name
    flags: dict[str, Any] = {
        "device": machine.device,
        "precision": machine.precision,
        "threads": threads,
        "data-dir": data_dir,
    }
    flags |= {"gpu-memory": machine.gpu_memory, "checkpoint-seconds": machine.checkpoint_seconds}
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    begun = ["--resume"] if (out / "recipe.toml").is_file() else []
    command = ["--config", str(out.with_suffix(".toml")), "train", cell.variant.dataset, "--out", str(out), *begun]
    with open(out.with_suffix(".log"), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "thumbnet.cli.main", *command, "--no-report", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on once
        )
    running.processes[cell.name] = (process, cell, time.monotonic())


def ended(running: Running) -> Iterator[Cell]:
    """The cells whose processes have ended since the last look."""
    for name, (process, cell, began) in list(running.processes.items()):
        if process.poll() is None:
            continue
        del running.processes[name]
        running.codes[name] = process.returncode
        if process.returncode == 0:
            running.seconds.append(time.monotonic() - began)
        else:
            running.failed.append(name)
        yield cell


def line_of(cell: Cell, folder: Path, running: Running, done: int, total: int, left: int, jobs: int) -> str:
    """One line when a cell has ended: what it reached, how many are done, how long the rest will take."""
    if cell.name in running.failed:
        return f"{done}/{total}  {cell.name}  failed; see {folder / 'cells' / cell.name}.log"
    summary = Run.open(folder / "cells" / cell.name).summary
    reached = summary["validation_accuracy"]
    said = "" if reached is None else f"  validation {reached:.2%}"
    mean = sum(running.seconds) / len(running.seconds)
    rest = f"  about {duration(mean * left / jobs)} left" if left else ""
    return f"{done}/{total}  {cell.name}{said}  {duration(running.seconds[-1])}{rest}"


@contextmanager
def leaving_no_process(running: Running) -> Iterator[None]:
    """Whatever ends the study, its children are told to stop, and waited for: they write checkpoints."""
    try:
        yield
    finally:
        for process, _, _ in running.processes.values():
            if process.poll() is None:
                process.terminate()
        for process, _, _ in running.processes.values():
            process.wait()


# ---------------------------------------------------------------- judging a study


def judge_study(study: Study, done: Sequence[tuple[Cell, Run]], looks: Sequence[int] = ()) -> list[Comparison]:
    """One comparison per data set, each variant with the data set's first one.

    `looks`: with how many seeds it was judged before seeds were added, which is told beside the p values.
    """
    by_data: dict[str, list[tuple[str, Run]]] = {}
    for cell, run in done:
        by_data.setdefault(cell.variant.dataset, []).append((cell.variant.name, run))
    return [
        compare_groups(named, metric=study.metrics.get(dataset, "accuracy"), baseline=True, looks=looks)
        for dataset, named in by_data.items()
    ]


def write_study(
    study: Study, folder: Path, comparisons: Sequence[Comparison], done: Sequence[tuple[Cell, Run]]
) -> None:
    """study.json: the plan's outline, every comparison, and what else the variants ended with and are said to."""
    about = {"study": study.name, "about": study.about, "seeds": list(study.seeds), "folds": study.folds}
    notes = {variant.name: variant.note for variant in study.variants if variant.note}
    beside = {found.dataset: beside_table(found, study.variants, done) for found in comparisons}
    rows = [found.to_dict() for found in comparisons]
    write_json(folder / "study.json", {**about, "notes": notes, "beside": beside, "comparisons": rows})
