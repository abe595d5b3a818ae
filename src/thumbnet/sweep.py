"""Searches: values of recipe fields tried one after the other (Optuna), and the best of them trained again on fresh seeds.

The best of many trials owes part of its lead to luck, since it was chosen by it. So what a sweep claims comes from a study of two
variants, the recipe as it is and the best found, on seeds and held-out images that no trial saw. A sweep folder holds
plan.json       what is searched; a later call may ask for more trials or seeds, and for nothing else
trials.journal  what was tried and reached, for Optuna
cells/          one run folder per trial, its recipe (CELL.toml) and what its process said (CELL.log)
trials.png      every trial, by the value of each field
best.toml       the recipe found
confirmed/      the study of the two, in trial-NUMBER
sweep.json      all trials, what mattered, and the comparison
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from thumbnet.comparison import Metric
from thumbnet.data.datasets import SPECS, check_dataset_name
from thumbnet.errors import Interrupted, TrainingFailed, UserError, unknown_name
from thumbnet.files import make_folder, read_json, read_toml, write_json, write_text
from thumbnet.locks import alone_in
from thumbnet.machine import Machine
from thumbnet.recipes import as_typed, default_for, vary
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import Recipe, differences
from thumbnet.runs import Run, as_toml, recipe_table
from thumbnet.signals import StopSignals
from thumbnet.study import Cell, Running, Study, Variant, ended, leaving_no_process, refuse_taken, share_of_cores, start
from thumbnet.words import counted

KEYS = ("name", "dataset", "recipe", "trials", "seeds", "metric", "fields", "search")
OWN = (
    "name",
    "seed",
    "folds",
    "fold",
    "validation",
)  # fields that the sweep itself sets, or that change what is measured
LARGEST = 10_000  # trials; more is a slip of the pen
SEED = 0  # of every trial: they differ in what is searched alone. Fresh seeds count from 1.
NEEDED = "pip install 'thumbnet[tune]'"
DIGITS = 4  # of a number that is tried, so that a recipe can be read aloud


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both tried; evenly in their logarithm where `log`."""

    low: float
    high: float
    log: bool = False


Space: TypeAlias = Mapping[str, "Range | tuple[Any, ...]"]  # by field; a tuple lists the values


@dataclass(frozen=True)
class Sweep:
    """What is to be searched, and how much."""

    name: str
    dataset: str
    recipe: Recipe
    space: Space
    trials: int
    seeds: int  # fresh ones, for the recipe as it is and for the best
    metric: Metric = "accuracy"

    def plan(self) -> dict[str, Any]:
        """What may not change between calls."""
        space = {
            name: vars(it) if isinstance(it, Range) else list(map(as_typed, it)) for name, it in self.space.items()
        }
        return {"sweep": self.name, "dataset": self.dataset, "metric": self.metric, "search": space,
                "recipe": {name: as_typed(value) for name, value in recipe_table(self.recipe).items()}}  # fmt: skip

    def confirming(self, best: Recipe) -> Study:
        """The study that tells whether the best is better."""
        variants = (Variant("as it is", self.dataset, self.recipe), Variant("best found", self.dataset, best))
        seeds = tuple(range(SEED + 1, SEED + 1 + self.seeds))
        return Study(f"{self.name}, confirmed", variants, seeds, metrics={self.dataset: self.metric})


@dataclass(frozen=True)
class Trial:
    """One trial that has ended: what was changed, and what came of it, None where the run failed."""

    number: int
    changes: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True)
class Found:
    """All trials, the best of them, and which part of the differences each field explains (fANOVA; Hutter et al. 2014)."""

    trials: tuple[Trial, ...]
    best: Trial
    recipe: Recipe
    importance: Mapping[str, float] = field(default_factory=dict)


# ---------------------------------------------------------------- reading a sweep file


def read_sweep(path: Path) -> Sweep:
    """The sweep in a TOML file. Raises `UserError` naming what is unknown, empty or of the wrong type in it."""
    table = read_toml(path, "the sweep file")
    try:
        return sweep_of(table, default_name=path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def sweep_of(table: dict[str, Any], *, default_name: str) -> Sweep:
    """The sweep that a table of TOML describes."""
    for key in table:
        if key not in KEYS:
            raise unknown_name("key", key, KEYS)
    dataset = str(table.get("dataset", "fashion-mini"))
    check_dataset_name(dataset)
    shared = table.get("fields", {})
    if not isinstance(shared, dict):
        raise UserError("fields is not a table; begin it with [fields]")
    for name in {"seed", "folds", "fold"} & set(shared):
        raise UserError(f"{name} is set by the sweep itself; leave it out of [fields]")
    recipe = named_recipe(str(table.get("recipe", default_for(dataset))), **(shared | {"seed": SEED}))
    if dataset in SPECS and not recipe.validation:
        raise UserError("the recipe trains on all images (validation 0), so that nothing is left to judge trials by")
    metric = table.get("metric", "accuracy")
    if metric not in ("accuracy", "top5", "loss"):
        raise UserError(f"metric is {metric!r}; choose accuracy, top5 or loss")
    name = str(table.get("name", default_name))
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise UserError(f"name is {name!r}; give one that a folder can have")
    trials, seeds = (count_of(table, key, default) for key, default in (("trials", 20), ("seeds", 5)))
    return Sweep(name, dataset, recipe, space_of(table.get("search"), recipe), trials, seeds, metric)


def count_of(table: dict[str, Any], key: str, default: int) -> int:
    """A number of trials or seeds."""
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise UserError(f"{key} is {value!r}; give a whole number from 1 to {LARGEST:,}")
    return value


def space_of(table: Any, recipe: Recipe) -> Space:
    """What each field is tried with. Every value is checked as a recipe's is."""
    if not isinstance(table, dict) or not table:
        raise UserError("nothing to search: give a table [search] with at least one field")
    types = {row.name: row.type for row in fields(Recipe)}
    space: dict[str, Range | tuple[Any, ...]] = {}
    for name, given in table.items():
        if name in OWN:
            raise UserError(f"search: {name} cannot be searched; it says what is measured, or is set by the sweep")
        if name not in types:
            raise unknown_name("recipe field", name, [known for known in types if known not in OWN])
        space[name] = (
            range_of(name, given, types[name], recipe) if isinstance(given, dict) else values_of(name, given, recipe)
        )
    return space


def range_of(name: str, given: dict[str, Any], kind: Any, recipe: Recipe) -> Range:
    """`{ low = 0.05, high = 0.5, log = true }`, of a field that is one number."""
    if kind not in (int, float):
        raise UserError(f"search: {name} is no single number; give a list of values to try")
    if not {"low", "high"} <= set(given) <= {"low", "high", "log"} or not isinstance(given.get("log", False), bool):
        raise UserError(f"search: {name} is {given}; give low and high, and log = true for steps by factors")
    for end in ("low", "high"):
        vary(recipe, **{name: given[end]})
    found = Range(given["low"], given["high"], given.get("log", False))
    if not found.low < found.high or (found.log and found.low <= 0):
        above = " above 0" if found.log else ""
        raise UserError(
            f"search: {name} goes from {found.low:g} to {found.high:g}; give a low{above} that is below high"
        )
    return found


def values_of(name: str, given: Any, recipe: Recipe) -> tuple[Any, ...]:
    """A list of values, each as the field has it."""
    if not isinstance(given, list) or len(given) < 2:
        raise UserError(f"search: {name} is {given!r}; give a list of two values or more, or low and high")
    values = tuple(getattr(vary(recipe, **{name: value}), name) for value in given)
    if len(set(values)) < len(values):
        raise UserError(f"search: {name} has a value twice")
    return values


# ---------------------------------------------------------------- searching


class Trials:
    """What was tried, in Optuna's journal: it proposes, and remembers what came of it."""

    def __init__(self, sweep: Sweep, folder: Path):
        try:
            import optuna
            from optuna.storages import journal
        except ImportError as error:
            raise UserError(f"a sweep needs optuna; install it with: {NEEDED}") from error
        self.sweep, self.optuna = sweep, optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file = journal.JournalFileBackend(str(folder / "trials.journal"))
        self.study = optuna.create_study(
            storage=optuna.storages.JournalStorage(file),
            study_name=sweep.name,
            direction="minimize" if sweep.metric == "loss" else "maximize",
            load_if_exists=True,
        )
        if not self.study.trials and (as_it_is := self.within(sweep.recipe)):
            self.study.enqueue_trial(as_it_is)  # so that the best is no worse than what there was

    def within(self, recipe: Recipe) -> dict[str, Any] | None:
        """The recipe's own values, if all of them are among those searched."""
        own = {name: getattr(recipe, name) for name in self.sweep.space}
        for name, tried in self.sweep.space.items():
            if not (tried.low <= own[name] <= tried.high if isinstance(tried, Range) else own[name] in tried):
                return None
        return {name: as_typed(v) if isinstance(self.sweep.space[name], tuple) else v for name, v in own.items()}

    def propose(self, tell: Callable[[str], None]) -> Cell | None:
        """The next trial; None where what was proposed does not go together, which is recorded as a failure.

        What is proposed depends on its number and on the trials that have ended, so that it is the same again.
        """
        number = len(self.study.trials)
        self.study.sampler = self.optuna.samplers.TPESampler(seed=number, constant_liar=True)
        trial = self.study.ask({name: self.distribution(name) for name in self.sweep.space})
        try:
            return self.cell(trial.number, trial.params)
        except UserError as error:
            self.study.tell(number, state=self.optuna.trial.TrialState.FAIL)
            tell(f"trial {number}  not made: {error}")
            return None

    def distribution(self, name: str) -> Any:
        """How Optuna calls what a field is tried with."""
        tried, kinds = self.sweep.space[name], self.optuna.distributions
        if isinstance(tried, tuple):
            return kinds.CategoricalDistribution([as_typed(value) for value in tried])
        if next(row.type for row in fields(Recipe) if row.name == name) is int:
            return kinds.IntDistribution(int(tried.low), int(tried.high), log=tried.log)
        return kinds.FloatDistribution(tried.low, tried.high, log=tried.log)

    def changes(self, proposed: Mapping[str, Any]) -> dict[str, Any]:
        """What Optuna proposed as the recipe's fields have it."""
        found = {}
        for name, value in proposed.items():
            tried = self.sweep.space[name]
            if isinstance(tried, tuple):
                found[name] = next(one for one in tried if as_typed(one) == value)
            else:
                found[name] = float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        return found

    def cell(self, number: int, proposed: Mapping[str, Any]) -> Cell:
        """The run of a trial. Raises `UserError` where the values do not go together."""
        variant = Variant(f"trial {number}", self.sweep.dataset, vary(self.sweep.recipe, **self.changes(proposed)))
        return Cell(variant, variant.recipe)

    def begun(self) -> list[Cell]:
        """Those that an earlier call left unfinished."""
        running = self.optuna.trial.TrialState.RUNNING
        return [self.cell(trial.number, trial.params) for trial in self.study.trials if trial.state == running]

    def record(self, cell: Cell, value: float | None) -> None:
        """What came of a trial; None where its run failed."""
        number = int(cell.variant.name.split()[1])
        state = None if value is not None else self.optuna.trial.TrialState.FAIL
        self.study.tell(number, value, state=state)

    def ended(self) -> tuple[Trial, ...]:
        """All that have ended, in the order they began."""
        rows = [trial for trial in self.study.trials if trial.state.is_finished()]
        return tuple(Trial(row.number, self.changes(row.params), row.value) for row in rows)

    def count(self) -> int:
        """How many were begun; the one that waits to be asked for is not among them."""
        waiting = self.optuna.trial.TrialState.WAITING
        return sum(trial.state != waiting for trial in self.study.trials)

    def importance(self) -> dict[str, float]:
        """Which part of the differences each field explains; nothing where too little is known."""
        with suppress(ValueError, RuntimeError, UserWarning), warnings.catch_warnings():
            warnings.filterwarnings("error", message="The number of trials is too small")
            found = self.optuna.importance.get_param_importances(self.study)
            return {name: float(part) for name, part in found.items()}
        return {}


def run_sweep(
    sweep: Sweep,
    folder: Path,
    *,
    jobs: int = 1,
    machine: Machine | None = None,
    data_dir: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Found:
    """Make the trials that are missing, `jobs` at a time, each in a process of its own.

    Never opens the test split. Raises `UserError` where `folder` holds something else, `TrainingFailed` where every trial failed,
    `Interrupted` after a signal to stop: the same call goes on, also inside a trial.
    """
    refuse_taken(folder)
    make_folder(folder)
    machine, running = machine or Machine(), Running()
    with alone_in(folder, "at the sweep"), StopSignals() as stop, leaving_no_process(running):
        write_plan(sweep, folder)
        trials = Trials(sweep, folder)
        waiting = trials.begun()
        tell(f"{sweep.name}: {counted(sweep.trials, 'trial')}, {len(trials.ended())} made already, into {folder}")
        while waiting or running.processes or trials.count() < sweep.trials:
            if stop.received:
                raise Interrupted(f"stopped by {stop.received}; the same command goes on with the sweep")
            while len(running.processes) < jobs and (waiting or trials.count() < sweep.trials):
                cell = waiting.pop(0) if waiting else trials.propose(tell)
                if cell is None:
                    continue
                if not (folder / "cells" / cell.name / "summary.json").is_file():
                    write_text(
                        folder / "cells" / f"{cell.name}.toml",
                        as_toml(recipe_table(cell.recipe), "one trial of a sweep"),
                    )
                    start(cell, folder, running, machine, share_of_cores(machine, jobs), data_dir)
                else:  # it ended when nobody was there to hear of it
                    settle(cell, folder, running, trials, tell)
            for cell in ended(running):
                settle(cell, folder, running, trials, tell)
            time.sleep(0.1)
    return found_in(trials, folder)


def settle(cell: Cell, folder: Path, running: Running, trials: Trials, tell: Callable[[str], None]) -> None:
    """Record what a trial reached, and tell it."""
    failed = cell.name in running.failed
    metric = {"accuracy": "validation_accuracy", "top5": "validation_top5", "loss": "validation_loss"}[
        trials.sweep.metric
    ]
    value = None if failed else Run.open(folder / "cells" / cell.name).summary[metric]
    trials.record(cell, value)
    changed = in_words({name: getattr(cell.recipe, name) for name in trials.sweep.space})
    reached = f"failed; see {folder / 'cells' / cell.name}.log" if value is None else shown(value, trials.sweep.metric)
    tell(f"{len(trials.ended())}/{trials.sweep.trials}  {cell.variant.name}  {reached}  {changed}")


def found_in(trials: Trials, folder: Path) -> Found:
    """The outcome of trials that have ended."""
    rows = trials.ended()
    known = [row for row in rows if row.value is not None]
    if not known:
        raise TrainingFailed(f"every trial failed; see {folder / 'cells'}/*.log, and search other values")
    pick = min if trials.sweep.metric == "loss" else max
    best = pick(known, key=lambda row: row.value)  # type: ignore[arg-type, return-value]  # the earliest of equals
    return Found(rows, best, vary(trials.sweep.recipe, **best.changes), trials.importance())


def write_plan(sweep: Sweep, folder: Path) -> None:
    """Write plan.json, or raise `UserError` where there is another plan."""
    path = folder / "plan.json"
    if path.is_file():
        before = read_json(path, {})
        for key, value in sweep.plan().items():
            if before.get(key) != value:
                raise UserError(
                    f"{folder} holds another plan: its {key} differs; give another --out, or the plan of then"
                )
    write_json(path, sweep.plan())


def write_sweep(sweep: Sweep, folder: Path, found: Found, comparison: Any) -> None:
    """best.toml and sweep.json; `comparison` is that of the fresh seeds, None where the best is the recipe as it is."""
    write_text(folder / "best.toml", as_toml(recipe_table(found.recipe), "thumbnet train --config takes this file"))
    trials = [{"trial": row.number, sweep.metric: row.value, "changes": dict(row.changes)} for row in found.trials]
    outcome = {"best": found.best.number, "importance": dict(found.importance), "trials": trials}
    write_json(folder / "sweep.json", sweep.plan() | outcome | {"confirmed": comparison and comparison.to_json()})


def changed_fields(sweep: Sweep, found: Found) -> dict[str, Any]:
    """In what the best differs from the recipe as it is."""
    return {name: new for name, (new, _) in differences(found.recipe, sweep.recipe).items()}


def in_words(changes: Mapping[str, Any]) -> str:
    """`learning_rate 0.24, crop 2`."""
    return ", ".join(f"{name} {as_typed(value)}" for name, value in changes.items())


def shown(value: float, metric: Metric) -> str:
    """A loss as a number, others as percent."""
    return f"{value:.4f}" if metric == "loss" else f"{value:.2%}"


def values_by_field(found: Found) -> dict[str, tuple[Sequence[Any], Sequence[float]]]:
    """For each field the values of the trials that did not fail, and what they reached."""
    known = [row for row in found.trials if row.value is not None]
    names = found.best.changes
    return {name: ([row.changes[name] for row in known], [row.value or 0.0 for row in known]) for name in names}
