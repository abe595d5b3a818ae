"""Studies: variants of a recipe times seeds, planned first, run in fresh processes, resumable, judged by their statistics.

A study folder holds
plan.json    every cell and what it trains; a later call with another plan is refused
cells/       one run folder per cell, its recipe (CELL.toml) and what its process said (CELL.log)
study.json   the comparison
study.html   the page
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from thumbnet.errors import Interrupted, TrainingFailed, UserError
from thumbnet.files import make_folder, write_json
from thumbnet.judging.comparison import Comparison, compare_groups
from thumbnet.judging.groups import Metric
from thumbnet.locks import alone_in
from thumbnet.machine import Machine
from thumbnet.reading import read_json
from thumbnet.recipes import vary
from thumbnet.recipes.recipe import NEWER_FIELDS
from thumbnet.recipes.recipe_file import recipe_table
from thumbnet.runs.run import Run
from thumbnet.signals import StopSignals
from thumbnet.studies.cells import (
    Cell,
    Running,
    Variant,
    check_data_dir,
    check_is_judged,
    check_lists,
    check_start,
    data_at_hand,
    ended,
    leaving_no_process,
    seconds_of_run,
    share_of_cores,
    start,
    start_up_seconds,
)
from thumbnet.studies.reported import beside_table
from thumbnet.words import counted, duration


@dataclass(frozen=True)
class Study:
    """What is to be trained. The first variant of each data set is what the others are compared with."""

    name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    folds: int = 0
    metrics: Mapping[str, Metric] = field(default_factory=dict)  # by data set; accuracy where none is named
    about: str = ""

    def cells(self) -> list[Cell]:
        """Every run: seeds outermost, so that a stopped study has compared all variants on its first seeds."""
        return [
            Cell(variant, vary(variant.recipe, seed=seed, folds=self.folds, fold=fold))
            for seed in self.seeds
            for fold in range(max(1, self.folds))
            for variant in self.variants
        ]

    def unfinished(self, folder: Path) -> list[Cell]:
        """The runs that are not done yet in the study's folder."""
        return [cell for cell in self.cells() if not (cell.run_folder(folder) / "summary.json").is_file()]

    def plan(self) -> dict[str, Any]:
        """Everything that decides the result, as plan.json holds it."""
        return {
            "study": self.name,
            "metrics": dict(self.metrics),
            "cells": {
                cell.name: {"dataset": cell.variant.dataset, **cell.variant.decoding, **recipe_table(cell.recipe)}
                for cell in self.cells()
            },
            "order": [variant.name for variant in self.variants],
        }


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
    check_data_dir((variant.dataset for variant in study.variants), data_dir)
    cells = study.cells()
    for variant in study.variants:
        check_is_judged(replace(variant, recipe=vary(variant.recipe, folds=study.folds)), data_dir)
    check_start(study.unfinished(folder), data_dir)
    check_lists(folder)
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
        logs = ", ".join(str(cell.log(folder)) for cell in running.failed[:3])
        raise TrainingFailed(
            f"{len(running.failed)} of {counted(len(cells), 'run')} failed; see {logs}, then run the study again"
        )
    return [(cell, Run.open(cell.run_folder(folder))) for cell in cells]


def estimated_seconds(
    study: Study, *, machine: Machine | None = None, data_dir: Path | None = None
) -> dict[str, float | str]:
    """Seconds of one run of each variant on this machine, in a process of its own; the reason where they cannot be told.

    Estimated from a few timed steps and the start of a process.
    """
    from thumbnet.backend import prepare

    check_data_dir((variant.dataset for variant in study.variants), data_dir)
    backend, loaded, before = prepare(machine or Machine()), dict[str, Any](), start_up_seconds()
    seconds: dict[str, float | str] = {}
    for variant in study.variants:
        try:
            if variant.dataset not in loaded:
                loaded[variant.dataset] = data_at_hand(variant, data_dir)
            recipe = vary(variant.recipe, folds=study.folds)
            seconds[variant.name] = before + seconds_of_run(recipe, loaded[variant.dataset], backend)
        except UserError as error:
            seconds[variant.name] = str(error)
    return seconds


def refuse_taken(folder: Path) -> None:
    """Raise `UserError` where something other than a study is in the folder's place, before anything is written there."""
    if not folder.exists() or (folder / "plan.json").is_file():
        return
    if not folder.is_dir() or any(not path.name.startswith(".lock") for path in folder.iterdir()):
        raise UserError(f"{folder} is taken and holds no plan of ours; give another --out")


def write_plan(study: Study, folder: Path) -> None:
    """Write plan.json and the cells' recipes, or raise `UserError` where there is another plan, saying what differs."""
    if differs := other_plan(study, folder):
        raise UserError(f"{folder} holds another plan: {differs}; give another --out")
    plan, before = study.plan(), plan_there(folder)
    looks = before.get("looks", [])
    if before and len(before["cells"]) < len(plan["cells"]) and (folder / "study.json").is_file():
        looks = [*looks, len(before["cells"]) // len(before["order"]) // max(1, study.folds)]  # judged with those seeds
    write_json(folder / "plan.json", plan | ({"looks": looks} if looks else {}))
    for cell in study.cells():
        if not (folder / "cells" / f"{cell.name}.toml").is_file():
            cell.write_recipe(folder)


def plan_there(folder: Path) -> dict[str, Any]:
    """What the study in a folder planned to train, and its `looks`; nothing where there is none."""
    path = folder / "plan.json"
    return read_json(path, {"study": str, "metrics": dict, "cells": dict, "order": list}) if path.is_file() else {}


def other_plan(study: Study, folder: Path) -> str | None:
    """What differs in the plan that the folder holds, in words; None of the same, of one with fewer seeds, and of no plan."""
    before, now = plan_there(folder), json.loads(json.dumps(study.plan()))
    if not before:
        return None
    before["cells"] = {name: json.loads(json.dumps(NEWER_FIELDS)) | cell for name, cell in before["cells"].items()}
    return None if has_more_seeds(before, now) else plan_difference(before, now)


def has_more_seeds(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a plan is an earlier one, perhaps with further seeds: the same variants, and every run of then."""
    same = all(before.get(key) == now[key] for key in ("study", "metrics", "order"))
    return same and before["cells"].items() <= now["cells"].items()


def looks_before(folder: Path) -> list[int]:
    """With how many seeds of a variant the study was judged before more were added."""
    return list(plan_there(folder).get("looks", []))


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
        for field_ in {**new[name], **old[name]}:
            if old[name].get(field_) != new[name].get(field_):
                return f"{field_} of {name} was {old[name].get(field_)!r}, now {new[name].get(field_)!r}"
    return f"its variants came in the order {', '.join(before['order'])}, now {', '.join(now['order'])}"


def line_of(cell: Cell, folder: Path, running: Running, done: int, total: int, left: int, jobs: int) -> str:
    """One line when a cell has ended: what it reached, how many are done, how long the rest will take."""
    if cell in running.failed:
        return f"{done}/{total}  {cell.name}  failed; see {cell.log(folder)}"
    summary = Run.open(cell.run_folder(folder)).summary
    reached = summary["validation_accuracy"]
    said = "" if reached is None else f"  validation accuracy {reached:.2%}"
    mean = sum(running.seconds) / len(running.seconds)
    rest = f"  about {duration(mean * left / jobs)} left" if left else ""
    return f"{done}/{total}  {cell.name}{said}  {duration(running.seconds[-1])}{rest}"


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
