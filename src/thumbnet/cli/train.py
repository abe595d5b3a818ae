"""Train a classifier; the main job."""

import os
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cli.fitting import check_validation, first_choice, recipe_for
from thumbnet.cli.main import STARTED
from thumbnet.cli.options import (
    Data,
    DataFlags,
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
from thumbnet.data.datasets import load_dataset
from thumbnet.data.groups import of_groups
from thumbnet.data.names import check_dataset_name
from thumbnet.errors import UserError
from thumbnet.machine import Machine, Moment, moment, others_note
from thumbnet.measuring.budget import expected_accuracy, parse_budget, plan_within
from thumbnet.own_code import is_own
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes import vary
from thumbnet.recipes.fitting import FEW_CLASSES
from thumbnet.words import counted, duration

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset
    from thumbnet.progress import Reporter
    from thumbnet.recipes.recipe import Recipe
    from thumbnet.runs.run import Run
    from thumbnet.training.deadline import Deadline

DRIFT = 0.05  # of the epochs planned, from which on it is told that others were made


@described
def train(
    dataset: str,
    /,
    *,
    recipe: str | None = None,
    out: Path | None = None,
    resume: bool = False,
    seeds: Whole | None = None,
    time_budget: str | None = None,
    report: bool = True,
    fields: Recipes = RecipeFlags(),  # noqa: B008
    machine: Machines = MachineFlags(),  # noqa: B008
    data: Data = DataFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Train a classifier and write a run folder with its weights, metrics and plots.

    Parameters
    ----------
    dataset
        a name from `thumbnet list datasets`, a folder of class folders, a .csv file that names images and their classes
        or has their pixels, an .npz file or a folder of IDX files
    recipe
        a name from `thumbnet list recipes`; the fields below change it
    out
        the run folder; by default runs/DATASET/RECIPE/TIME-sSEED
    resume
        continue the interrupted run in --out, or the newest one of this data set
    seeds
        train this many runs that differ only in their seed, from --seed on; print mean, spread and interval
    time_budget
        stop after this time, for example 90s, 5m or 1h, not counting the report page: measures the machine for a few
        seconds, then chooses network, resolutions, batch size, learning rate and epochs; with --recipe the epochs only
    report
        write report.html into the run folder
    """
    began = moment()
    check_dataset_name(dataset)
    if seeds is not None:
        check_positive(seeds=seeds)
        if time_budget:
            raise UserError("--time-budget plans one run; leave out --seeds")
    seconds = budget_seconds(time_budget, resume, given(fields)) if time_budget else None
    begun = begun_run(dataset, recipe, out) if resume and seeds is None else None
    start, typed = (
        first_choice(dataset, recipe, given(fields), budget=bool(seconds)) if not begun else ("", given(fields))
    )
    chosen = vary(begun.recipe, **typed) if begun else named_recipe(start, **typed)

    from thumbnet.progress import reporter_for_terminal
    from thumbnet.runs.paths import is_free, taken
    from thumbnet.training.loop import train as train_run

    if out is not None and not resume and seeds is None and not is_free(out):
        raise taken(out)  # before the data are loaded and the machine is measured
    asked = Machine(**given(machine))
    with reporter_for_terminal() as reporter:
        load = begun.load_data if begun else partial(load_dataset, dataset, validation=0)
        check_validation(loaded := load(progress=reporter.loading, **given(data)), typed)
        for note in [*loaded.notes, *([] if resume else notes_on(chosen, loaded, typed))]:
            reporter.say(f"note: {note}")
        say_who_computes_too(began, asked, reporter)
        deadline, named = None, recipe or (None if start == "general" else start)
        if seconds:
            chosen, deadline = recipe_in_time(seconds, loaded, named, typed, asked, reporter)
        elif not begun and not recipe:
            chosen = recipe_for(named_recipe(start), loaded.with_validation(**chosen.cut), typed, reporter)
        options: dict[str, Any] = {"machine": asked, "resume": resume, "reporter": reporter}
        if seeds is not None:
            runs = train_seeds(chosen, loaded, seeds, out, report=report, **options)
        else:
            path = begun.path if begun else out
            runs = [train_run(chosen, loaded, path, started=STARTED, deadline=deadline, **options)]
            page_seconds = add_report(runs[0], reporter, wanted=report)
            if seconds:
                reporter.say(on_time(seconds, chosen, runs[0], time.time() - STARTED))
    if json:
        print_json(runs[0].summary if seeds is None else over_seeds(runs))
    else:
        show("\n".join(outcome(runs[0], page_seconds) if seeds is None else seeds_outcome(runs)))


def notes_on(recipe: "Recipe", data: "Dataset", typed: dict[str, Any]) -> list[str]:
    """What there is to say of a new run before it begins, `typed` being the fields that somebody chose."""
    return [*unbalanced(data, recipe), *rate_of_another(recipe, typed)]


def rate_of_another(recipe: "Recipe", typed: dict[str, Any]) -> list[str]:
    """A note where an optimiser of the user's own gets the learning rate that a recipe has for another."""
    if not is_own(recipe.optimizer) or "learning_rate" in typed:
        return []
    meant = named_recipe(recipe.name).optimizer
    return [
        f"recipe.learning_rate is {recipe.learning_rate:g}, chosen for {meant}; --learning-rate gives your optimizer another"
    ]


def unbalanced(data: "Dataset", recipe: "Recipe") -> list[str]:
    """Notes where classes are uneven and the recipe does nothing about it, and where one is held out as a whole."""
    from thumbnet.data.balance import counts_by_class, held_out_whole, uneven

    labels = data.development.labels.cpu().numpy()
    before = counts_by_class(labels, data.classes)
    trained_on = counts_by_class(labels[data.with_validation(**recipe.cut).train.rows.cpu().numpy()], data.classes)
    told = uneven(before, "train")
    notes = [f"{told}; --balance 1 lets every class count alike"] if told and not recipe.balance else []
    lost = held_out_whole(before, trained_on)
    return [*notes, *([f"{lost}; another --seed or --validation may leave some"] if lost else [])]


def say_who_computes_too(began: Moment | None, machine: Machine, reporter: "Reporter") -> None:
    """Where training is to be on the CPU and somebody watches: whether other programs have used it since this command began.

    Not to a pipe: one that nobody reads would stop the command here, where it cannot be ended in good order yet.
    """
    from thumbnet.backend import choose_device

    note = others_note(began, moment(), os.cpu_count() or 1)
    if note and sys.stderr.isatty() and choose_device(machine.device).type == "cpu":
        reporter.say(note)


def train_seeds(
    recipe: "Recipe",
    data: "Dataset",
    seeds: int,
    out: Path | None,
    *,
    resume: bool,
    machine: "Machine",
    reporter: "Reporter",
    report: bool,
) -> "list[Run]":
    """One run per seed, in OUT/sSEED or folders of their own; finished ones are kept where `resume`."""
    from thumbnet.training.loop import train as train_run
    from thumbnet.training.start import check_beginning

    if resume and out is None:
        raise UserError("--resume with --seeds needs the --out of the first call, which holds its runs")
    for seed in range(recipe.seed, recipe.seed + seeds):
        check_beginning(vary(recipe, seed=seed), data)  # one seed may hold out what another must not
    runs = []
    for seed in range(recipe.seed, recipe.seed + seeds):
        path = out and out / f"s{seed}"
        goes_on = resume and path is not None and (path / "recipe.toml").is_file()
        runs.append(train_run(vary(recipe, seed=seed), data, path, machine=machine, resume=goes_on, reporter=reporter))
        add_report(runs[-1], reporter, wanted=report)
    return runs


def add_report(run: "Run", reporter: "Reporter", *, wanted: bool) -> float:
    """The page of the run in its folder, and the seconds it took; one that cannot be written costs a line, not the run."""
    began = time.monotonic()
    if wanted:
        from thumbnet.report import write_run_report

        reporter.say("writing the report")
        try:
            write_run_report(run)
        except UserError as error:
            reporter.say(f"no report: {error}")
    return time.monotonic() - began


def over_seeds(runs: "list[Run]") -> dict[str, Any]:
    """Every run, and mean, standard deviation and interval of their validation accuracies, null where there are none."""
    import statistics

    from thumbnet.judging.statistics import accuracy_interval

    values = [run.summary["validation_accuracy"] for run in runs]
    known = None not in values
    return {
        "runs": [run.summary for run in runs],
        "n": len(runs),
        "validation_accuracy": statistics.fmean(values) if known else None,
        "validation_accuracy_sd": statistics.stdev(values) if known and len(values) > 1 else None,
        "validation_accuracy_interval95": accuracy_interval(values) if known else None,
    }


def seeds_outcome(runs: "list[Run]") -> list[str]:
    """Each seed in a line, then what they say together."""
    found = over_seeds(runs)
    paths = " ".join(shlex.quote(str(run.path)) for run in runs)
    lines = []
    for run in runs:
        accuracy = run.summary["validation_accuracy"]
        lines.append(f"seed {run.recipe.seed}  {'-' if accuracy is None else f'{accuracy:.2%}'}  {run.path}")
    if found["validation_accuracy"] is None:
        return [*lines, f"validation  none was held out; measure with thumbnet evaluate {paths} --split test"]
    interval = found["validation_accuracy_interval95"]
    spread = (
        f" (sd {100 * found['validation_accuracy_sd']:.2f} points, 95 % interval {interval[0]:.2%} to {interval[1]:.2%})"
        if interval
        else ""
    )
    lines.append(f"validation  accuracy {found['validation_accuracy']:.2%}{spread}, n = {counted(found['n'], 'seed')}")
    return [*lines, f"next        thumbnet evaluate {paths}   (with other runs: thumbnet compare)"]


def budget_seconds(budget: str, resume: bool, changes: dict[str, Any]) -> float:
    """The budget in seconds. Raises `UserError` where it cannot be read or contradicts another option."""
    if resume:
        raise UserError("--resume goes on with the epochs that were planned; leave out --time-budget")
    if "epochs" in changes:
        raise UserError(f"--time-budget chooses the epochs; leave out --epochs {changes['epochs']:g}")
    return parse_budget(budget)


def on_time(budget: float, planned: "Recipe", run: "Run", now: float) -> str:
    """How the run kept to its budget, and what came after it. Both times in seconds since the command began."""
    ended, made = run.summary["wall_seconds"], run.recipe.epochs
    moved = abs(made / planned.epochs - 1) > DRIFT
    drift = f" with {made:.2f} epochs instead of {planned.epochs:.2f}" if moved else ""
    page = f"; the page took {now - ended:.0f} s more" if now - ended >= 1 else ""
    return f"budget {budget:g} s: the run ended after {ended:.1f} s{drift}{page}"


def recipe_in_time(
    seconds: float,
    data: "Dataset",
    recipe: str | None,
    changes: dict[str, Any],
    machine: "Machine",
    reporter: "Reporter",
) -> "tuple[Recipe, Deadline]":
    """The recipe that ends on time, what keeps it to that, and a line with the accuracy to expect where that is known."""
    from thumbnet.measuring.operations import training_flops

    reporter.say(f"{seconds:g} s: measuring this machine")
    chosen, deadline = plan_within(data, seconds, started=STARTED, machine=machine, recipe=recipe, changes=changes)
    sides = ", ".join(
        "x".join(f"{part * side:.0f}" for side in dict.fromkeys(data.image_size)) for part in chosen.resolution
    )
    network = " ".join(filter(None, [chosen.network, "/".join(map(str, chosen.widths))]))
    cut = data.with_validation(**chosen.cut)  # as training will cut them
    expected = None if recipe or changes else expected_accuracy(training_flops(chosen, cut), data.name)
    told = f"; runs of this size reached about {expected:.1%} of the test images, with six views" if expected else ""
    classes = len(data.classes)
    many = "" if recipe or classes <= FEW_CLASSES else f", head_rate {chosen.head_rate:g} for {classes} classes"
    steps = f"batch {chosen.batch_size}, rate {chosen.learning_rate:g}"
    reporter.say(f"{network}, {chosen.epochs:.2f} epochs at {sides} pixels, {steps}{many}{told}")
    return chosen, deadline


def begun_run(dataset: str, name: str | None, out: Path | None) -> "Run":
    """The run to continue, if it is one of this data set and, where a recipe is named, of that recipe."""
    from thumbnet.runs.paths import newest_unfinished
    from thumbnet.runs.run import Run

    if out is not None and not out.exists():
        raise UserError(f"there is no run in {out} to go on with; leave out --resume to begin one there")
    run = Run.open(out or newest_unfinished(dataset, name))
    if not run.data.is_of(dataset):
        begun_on = run.data["name" if run.data.on_published_set else "location"]
        raise UserError(f"{run.path} was begun on {begun_on}, not on {dataset}; name the same data, or another --out")
    if name and name != run.recipe.name:
        raise UserError(
            f"{run.path} was begun with recipe {run.recipe.name!r}, not {name!r}; use the same, or another --out"
        )
    return run


def guessing(run: "Run", low: float) -> list[str]:
    """A line where the network is not shown to be better than one answer for all, `low` being the least its accuracy may be."""
    try:
        name, part = run.predictions("validation").commonest()
    except UserError:  # lost, or never written on a full disk
        return []
    if low > part:
        return []
    advice = "see its curves; more epochs, more images or another learning rate may help"
    return [
        f"note        always answering {name!r} would already be right for {part:.2%}; this network may be no better: {advice}"
    ]


def outcome(finished: "Run", page_seconds: float = 0.0) -> list[str]:
    """What a person wants to know at the end: how good, how long, where it lies, what next."""
    summary = finished.summary
    run = Path(summary["run"])
    lines = []
    if summary["validation_accuracy"] is not None:
        low, high = summary["validation_interval95"]
        top5 = f", top-5 {summary['validation_top5']:.2%}" if summary["classes"] > 5 else ""
        lines.append(
            f"validation  accuracy {summary['validation_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, "
            f"{counted(summary['validation_images'], 'image')}{of_groups(summary.get('validation_groups'))}){top5}"
        )
        lines += guessing(finished, low)
    split = "" if summary["validation_images"] else " --split test"
    if split:
        lines.append("validation  none was held out; the test images are left to measure on")
    lines += [
        f"time        {duration(summary['train_seconds'])} training and validation, "
        f"{duration(summary['wall_seconds'] + page_seconds)} in all; {summary['images_per_second']:,.0f} images/s",
        f"run folder  {run}",
        f"plots       {run / 'plots' / 'curves.png'}",
        f"summary     {run / 'summary.json'}",
        *([f"report      {run / 'report.html'}"] if (run / "report.html").is_file() else []),
        f"next        thumbnet evaluate {shlex.quote(str(run))}{split}   (also: thumbnet predict, export, serve)",
    ]
    return lines
