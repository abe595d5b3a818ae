"""Searches: values of recipe fields tried one after the other (Optuna), and the best of them trained again on fresh seeds.

The best of many trials owes part of its lead to luck, since it was chosen by it. So what a sweep claims comes from a study of two
variants, the recipe as it is and the best found, on seeds that no trial had. A sweep folder holds
plan.json     what is searched; a later call may ask for more trials or seeds, and for nothing else
trials.jsonl  what was proposed, and what came of it
cells/        one run folder per trial, its recipe (CELL.toml) and what its process said (CELL.log)
trials.png    every trial, by the value of each field
best.toml     the recipe found
fresh/        the study of the two, in trial-NUMBER
sweep.json    all trials, what mattered, and the comparison
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from thumbnet.errors import Interrupted, TrainingFailed, UserError
from thumbnet.files import append_line, make_folder, write_json, write_text
from thumbnet.judging.groups import Metric, value_of
from thumbnet.locks import alone_in
from thumbnet.machine import Machine
from thumbnet.own_code import check_trusted, is_own
from thumbnet.reading import read_json, read_json_lines
from thumbnet.recipes import as_typed
from thumbnet.recipes.recipe import NEWER_FIELDS, Recipe, differences, value_in, with_values, without_idle
from thumbnet.recipes.recipe_file import as_toml, recipe_table
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
    ended,
    leaving_no_process,
    share_of_cores,
    start,
)
from thumbnet.studies.study import Study, refuse_taken
from thumbnet.words import counted

SEED = 0  # of every trial: they differ in what is searched alone. Fresh seeds count from 1.
NEEDED = "pip install 'thumbnet[tune]' (in a clone: pip install -e '.[tune]')"
DIGITS = 4  # of a number that is tried, so that a recipe can be read aloud
FEWEST_TO_WEIGH = 10  # trials, before it is told what mattered
JUDGED = 1  # exit code of a run that failed by its values; others are of the surroundings


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both tried; evenly in their logarithm where `log`."""

    low: float
    high: float
    log: bool = False


FIELDS = {row.name: row for row in fields(Recipe)}
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
    decoding: Mapping[str, Any] = field(default_factory=dict)  # of pictures: those of `DECODING` that were given

    def variant(self, name: str, recipe: Recipe) -> Variant:
        """A recipe on the sweep's data."""
        return Variant(name, self.dataset, recipe, decoding=self.decoding)

    def plan(self) -> dict[str, Any]:
        """What may not change between calls."""
        space = {
            name: vars(it) if isinstance(it, Range) else list(map(as_typed, it)) for name, it in self.space.items()
        }
        return {"sweep": self.name, "dataset": self.dataset, **self.decoding, "metric": self.metric, "search": space,
                "recipe": {name: as_typed(value) for name, value in recipe_table(self.recipe).items()}}  # fmt: skip

    def on_fresh_seeds(self, best: "Trial", recipe: Recipe, trials: int, earlier: Sequence[str] = ()) -> Study:
        """The study that tells whether the best is better. `earlier`: bests that were looked at before, by name."""
        variants = (self.variant("baseline", self.recipe), self.variant("best trial", recipe))
        seeds = tuple(range(SEED + 1, SEED + 1 + self.seeds))
        about = (
            f'"best trial" is trial {best.number} of {trials}, chosen by the images that seed {SEED} holds out. Here both are '
            "trained on fresh seeds. These hold out another cut of the same images, and the same ones where the set "
            "brings its own validation images: what the choice owes to the images themselves may remain."
        )
        if earlier:
            about += f" Looked at in this way before: {', '.join(earlier)}; each look is one more chance to be wrong."
        return Study(f"{self.name}, fresh seeds", variants, seeds, metrics={self.dataset: self.metric}, about=about)


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


class Trials:
    """What was tried. Optuna proposes; what it knows is told it anew each time, from trials.jsonl."""

    def __init__(self, sweep: Sweep, folder: Path):
        try:
            import optuna
        except ImportError as error:
            raise UserError(f"a sweep needs optuna; install it with: {NEEDED}") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep, self.optuna, self.path = sweep, optuna, folder / "trials.jsonl"
        self.recall()

    def recall(self) -> None:
        """Begin anew, and tell Optuna what was tried, with the digits that it was tried with."""
        self.study = self.optuna.create_study(direction="minimize" if self.sweep.metric == "loss" else "maximize")
        begun: list[dict[str, Any]] = []
        values: dict[int, float | None] = {}
        for row in read_json_lines(self.path, {"trial": int}):
            if "proposed" in row:
                begun.append(row["proposed"])
            else:
                values[row["trial"]] = row["value"]
        states = self.optuna.trial.TrialState
        for number, proposed in enumerate(begun):
            value = values.get(number)
            state = states.RUNNING if number not in values else states.FAIL if value is None else states.COMPLETE
            row = self.optuna.trial.create_trial(
                params=proposed, distributions=self.distributions(), value=value, state=state
            )
            self.study.add_trial(row)

    def distributions(self) -> dict[str, Any]:
        """How Optuna calls what each field is tried with. Values of a list are called by their place in it."""
        kinds, found = self.optuna.distributions, {}
        for name, tried in self.sweep.space.items():
            if isinstance(tried, tuple):
                found[name] = kinds.CategoricalDistribution(tuple(range(len(tried))))
            elif isinstance(tried.low, int) and isinstance(tried.high, int):  # as fields of whole numbers have them
                found[name] = kinds.IntDistribution(int(tried.low), int(tried.high), log=tried.log)
            else:
                found[name] = kinds.FloatDistribution(tried.low, tried.high, log=tried.log)
        return found

    def as_it_is(self) -> dict[str, Any] | None:
        """The recipe's own values as Optuna calls them, if all of them are among those searched."""
        found = {}
        for name, tried in self.sweep.space.items():
            own = value_in(self.sweep.recipe, name)
            if own is None or not (tried.low <= own <= tried.high if isinstance(tried, Range) else own in tried):
                return None
            found[name] = own if isinstance(tried, Range) else tried.index(own)
        return found

    def propose(self) -> int:
        """Begin the next trial; gives its number.

        What is proposed depends on the number and on the trials that have ended, so that it is the same again.
        """
        number = len(self.study.trials)
        if number == 0 and (own := self.as_it_is()):
            self.study.enqueue_trial(own)  # so that the best is no worse than what there was
        self.study.sampler = self.optuna.samplers.TPESampler(seed=number, constant_liar=True)
        proposed = self.study.ask(self.distributions()).params
        if number > 0:
            proposed = {name: self.rounded(name, value) for name, value in proposed.items()}
        append_line(self.path, json.dumps({"trial": number, "proposed": proposed}))
        self.recall()
        return number

    def rounded(self, name: str, value: Any) -> Any:
        """A number with few digits that is still in its range; others as they are."""
        tried = self.sweep.space[name]
        if isinstance(tried, tuple) or not isinstance(value, float):
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), float(tried.low)), float(tried.high))

    def proposed(self) -> list[dict[str, Any]]:
        """What was proposed for each trial, by its number, as the recipe's fields have it."""
        rows = [row["proposed"] for row in read_json_lines(self.path, {"trial": int}) if "proposed" in row]
        spaces = self.sweep.space
        return [
            {name: tried[row[name]] if isinstance(tried := spaces[name], tuple) else row[name] for name in spaces}
            for row in rows
        ]

    def cell(self, number: int) -> Cell:
        """The run of a trial. Raises `UserError` where the values do not go together."""
        variant = self.sweep.variant(f"trial {number}", self.recipe_with(self.proposed()[number]))
        return Cell(variant, variant.recipe)

    def recipe_with(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial; what has no effect beside the other values stays as it is."""
        return without_idle(with_values(self.sweep.recipe, changes), self.sweep.recipe)

    def record(self, number: int, value: float | None) -> None:
        """What came of a trial; None where its run failed."""
        append_line(self.path, json.dumps({"trial": number, "value": value}))
        self.recall()

    def begun(self) -> list[int]:
        """Those that an earlier call left unfinished."""
        return [trial.number for trial in self.study.trials if not trial.state.is_finished()]

    def ended(self) -> tuple[Trial, ...]:
        """All that have ended, in the order they began."""
        changes = self.proposed()
        return tuple(
            Trial(row.number, changes[row.number], row.value) for row in self.study.trials if row.state.is_finished()
        )

    def count(self) -> int:
        """How many were begun."""
        return len(self.study.trials)

    def same_as(self, cell: Cell) -> Trial | None:
        """An earlier trial of the same recipe that has ended well: with one seed for all it would only be repeated."""
        for trial in self.ended():
            if trial.value is not None and self.recipe_with(trial.changes) == cell.recipe:
                return trial
        return None

    def importance(self) -> dict[str, float]:
        """Which part of the differences each field explains; nothing where too little is known."""
        if len(self.sweep.space) < 2 or sum(trial.value is not None for trial in self.ended()) < FEWEST_TO_WEIGH:
            return {}
        with suppress(ValueError, RuntimeError):
            found = self.optuna.importance.get_param_importances(self.study)
            return {name: float(part) for name, part in found.items()}
        return {}


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder, made where it is missing. Raises `UserError` where something else is there, or another process."""
    refuse_taken(folder)
    make_folder(folder)
    with alone_in(folder, "at the sweep"):
        yield


def run_sweep(
    sweep: Sweep,
    folder: Path,
    *,
    jobs: int = 1,
    machine: Machine | None = None,
    data_dir: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Found:
    """Make the trials that are missing, `jobs` at a time, each in a process of its own; the folder is held `at_work`.

    Never opens the test split. Raises `UserError` where `folder` has another plan, `TrainingFailed` where a trial could not be
    trained for reasons that are not its values', or every one failed, `Interrupted` after a signal to stop. The same call
    goes on, also inside a trial.
    """
    check_data_dir([sweep.dataset], data_dir)
    baseline = sweep.variant("baseline", sweep.recipe)
    check_is_judged(baseline, data_dir)
    check_start([Cell(baseline, baseline.recipe)], data_dir)
    check_trusted(
        value for tried in sweep.space.values() if isinstance(tried, tuple) for value in tried if is_own(value)
    )
    check_lists(folder)
    machine, running = machine or Machine(), Running()
    with StopSignals() as stop, leaving_no_process(running):
        write_plan(sweep, folder)
        trials = Trials(sweep, folder)
        waiting = trials.begun()
        tell(f"{sweep.name}: {counted(sweep.trials, 'trial')}, {len(trials.ended())} made already, into {folder}")
        while waiting or running.processes or trials.count() < sweep.trials:
            if stop.received:
                raise Interrupted(f"stopped by {stop.received}; the same command goes on with the sweep")
            while len(running.processes) < jobs and (waiting or trials.count() < sweep.trials):
                number = waiting.pop(0) if waiting else trials.propose()
                if cell := needs_a_run(number, trials, folder, tell):
                    cell.write_recipe(folder)
                    start(cell, folder, running, machine, share_of_cores(machine, jobs), data_dir)
            for cell in ended(running):
                settle(cell, folder, running, trials, tell)
            time.sleep(0.1)
    return found_in(trials, folder)


def needs_a_run(number: int, trials: Trials, folder: Path, tell: Callable[[str], None]) -> Cell | None:
    """The run of a trial; None where its outcome is known without one, which is recorded."""
    try:
        cell = trials.cell(number)
    except UserError as error:
        trials.record(number, None)
        tell(f"trial {number}  not made: {error}")
        return None
    if earlier := trials.same_as(cell):
        trials.record(number, earlier.value)
        tell(f"trial {number}  the same as trial {earlier.number}")
        return None
    out = cell.run_folder(folder)
    if (out / "recipe.toml").is_file() and Run.open(out).recipe != cell.recipe:
        raise UserError(f"{out} is the run of another recipe; remove it, or give another --out")
    if (out / "summary.json").is_file():  # it ended when nobody was there to hear of it
        settle(cell, folder, Running(), trials, tell)
        return None
    return cell


def settle(cell: Cell, folder: Path, running: Running, trials: Trials, tell: Callable[[str], None]) -> None:
    """Record what a trial reached, and tell it. Raises `TrainingFailed` where it could not be trained at all."""
    number, log = int(cell.variant.name.removeprefix("trial ")), cell.log(folder)
    code = running.codes.get(cell.name, 0)
    if code not in (0, JUDGED):
        said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        why = said[-1].removeprefix("thumbnet: ") if said and code > 0 else "its process was ended"
        raise TrainingFailed(
            f"{cell.variant.name} could not be trained: {why} (see {log}); then the same command goes on"
        )
    value = None if code else value_of(Run.open(cell.run_folder(folder)), "validation", trials.sweep.metric)
    trials.record(number, value)
    changed = in_words({name: value_in(cell.recipe, name) for name in trials.sweep.space})
    reached = f"failed; see {log}" if value is None else shown(value, trials.sweep.metric)
    tell(f"{len(trials.ended())}/{trials.sweep.trials}  {cell.variant.name}  {reached}  {changed}")


def found_in(trials: Trials, folder: Path) -> Found:
    """The outcome of trials that have ended."""
    rows = trials.ended()
    known = [row for row in rows if row.value is not None]
    if not known:
        raise TrainingFailed(f"every trial failed; see {folder / 'cells'}/*.log, and search other values")
    pick = min if trials.sweep.metric == "loss" else max
    best = pick(known, key=lambda row: row.value)  # type: ignore[arg-type, return-value]  # the earliest of equals
    return Found(rows, best, trials.recipe_with(best.changes), trials.importance())


def write_plan(sweep: Sweep, folder: Path) -> None:
    """Write plan.json, or raise `UserError` where there is another plan."""
    path = folder / "plan.json"
    if path.is_file():
        before, now = read_json(path, {"recipe": dict}), sweep.plan()
        before["recipe"] = {name: as_typed(value) for name, value in NEWER_FIELDS.items()} | before["recipe"]
        for key in {**now, **before}:
            if before.get(key) != now.get(key):
                raise UserError(
                    f"{folder} holds another plan: {key} was {before.get(key)}, now {now.get(key)}; give another --out"
                )
    write_json(path, sweep.plan())


def write_sweep(sweep: Sweep, folder: Path, found: Found, comparison: Any) -> None:
    """best.toml and sweep.json; `comparison` is that of the fresh seeds, None where the best is the recipe as it is."""
    write_text(folder / "best.toml", as_toml(recipe_table(found.recipe), "thumbnet train --config takes this file"))
    trials = [{"trial": row.number, sweep.metric: row.value, "changes": dict(row.changes)} for row in found.trials]
    outcome = {"best": found.best.number, "importance": dict(found.importance), "trials": trials}
    write_json(folder / "sweep.json", sweep.plan() | outcome | {"fresh_seeds": comparison and comparison.to_dict()})


def place_of(folder: Path, found: Found) -> Path:
    """Where the best is tried on fresh seeds."""
    return folder / "fresh" / f"trial-{found.best.number}"


def looked_at_before(folder: Path, found: Found) -> list[str]:
    """Earlier bests that were judged on fresh seeds."""
    judged = sorted(path.parent for path in (folder / "fresh").glob("trial-*/study.json"))
    return [path.name for path in judged if path != place_of(folder, found)]


def changed_fields(sweep: Sweep, found: Found) -> dict[str, Any]:
    """In what the best differs from the recipe as it is."""
    return {name: new for name, (new, _) in differences(found.recipe, sweep.recipe).items()}


def in_words(changes: Mapping[str, Any]) -> str:
    """`learning_rate 0.24, crop 2`."""
    return ", ".join(f"{name} {as_typed(value) or 'none'}" for name, value in changes.items())


def shown(value: float, metric: Metric) -> str:
    """A loss as a number, others as percent."""
    return f"{value:.4f}" if metric == "loss" else f"{value:.2%}"


def values_by_field(found: Found) -> dict[str, tuple[Sequence[Any], Sequence[float]]]:
    """For each field the values of the trials that did not fail, and what they reached."""
    known = [row for row in found.trials if row.value is not None]
    names = found.best.changes
    return {name: ([row.changes[name] for row in known], [row.value or 0.0 for row in known]) for name in names}
