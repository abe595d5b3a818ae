"""Measure a finished run on images it was not trained on."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thumbnet.cli.answers import judge_file
from thumbnet.cli.evaluate_on import check_on, judge_on
from thumbnet.cli.evaluate_several import evaluate_several, refuse_for_several, several_runs
from thumbnet.cli.options import (
    FIGURES,
    Json,
    Measuring,
    MeasuringFlags,
    Whole,
    check_ending,
    check_positive,
    check_writable,
    described,
    given,
    note,
    print_json,
    show,
)
from thumbnet.cli.scores import (
    calibration_lines,
    class_lines,
    confused_lines,
    measure_lines,
    write_confusion,
    write_predictions,
)
from thumbnet.data.groups import of_groups
from thumbnet.errors import UserError
from thumbnet.recipes import title_of
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.judging.evaluation import Scores
    from thumbnet.judging.robustness import Robustness
    from thumbnet.machine import Machine
    from thumbnet.runs.predictions import Predictions
    from thumbnet.runs.run import Run


@described
def evaluate(
    *runs: Path,
    split: Literal["validation", "test"] | None = None,
    on: Path | None = None,
    skip_broken: bool = False,
    views: Literal[1, 2, 6] | None = None,
    uncertain: float = 1.0,
    predictions: Path | None = None,
    confusion: Path | None = None,
    robustness: bool = False,
    images: Whole | None = None,
    data_dir: Path | None = None,
    machine: Measuring = MeasuringFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Measure a finished run: accuracy with its interval, top-5, loss, calibration, and each class.

    Parameters
    ----------
    runs
        folders written by `thumbnet train`, or one that holds several, as of --seeds; with --on also a FILE.onnx or a folder
        written by `thumbnet export`; or an .npz or .csv file of another program's answers
    split
        the images held out from training (validation, the default), or the test set
    on
        images of your own instead: a folder with one folder of images per class, or a .csv or .npz file
    skip_broken
        for --on: count and list unreadable images instead of stopping at the first
    views
        test-time augmentation: the image (1, the default), its mirror image too (2), and both shifted by one pixel too (6);
        an export has its own inside
    uncertain
        fraction of the images, the least certain in one view, that get all the views
    predictions
        write class, prediction and probability of every image to this .csv or .npz file
    confusion
        write the confusion matrix to this file: .csv, or a picture, .png, .svg or .pdf
    robustness
        measure on corrupted images instead: 15 kinds, 5 levels each
    images
        for --robustness: this many images, evenly spread over the split; 1,000 if not given
    data_dir
        where the data are now, if they have moved since training
    """
    from thumbnet.machine import Machine
    from thumbnet.runs.paths import is_answers

    if not runs:
        raise UserError("name what to measure, as in: thumbnet evaluate runs/latest")
    check_ending("predictions", predictions, ".csv", ".npz")
    check_ending("confusion", confusion, ".csv", *FIGURES)
    check_writable(predictions, confusion)
    if any(map(is_answers, runs)):
        asked: dict[str, Any] = {"--split": split, "--on": on, "--robustness": robustness, "--views": views}
        asked |= {
            "--uncertain": uncertain != 1,
            "--images": images,
            "--skip-broken": skip_broken,
            "--data-dir": data_dir,
        }
        asked |= {f"--{name}": True for name in given(machine)}
        measured = judge_file(runs, asked, with_probabilities=predictions is not None)
        return print_measured(runs[0], *measured, predictions=predictions, confusion=confusion, json=json)
    check_uncertain(uncertain, views or 1)
    check_robustness(robustness, images, others=(views or 1) > 1 or uncertain != 1 or bool(predictions or confusion))
    check_on(on, split=split, uncertain=uncertain, robustness=robustness, skip_broken=skip_broken)
    options: dict[str, Any] = {"machine": Machine(**given(machine)), "data_dir": data_dir}
    if several := several_runs(runs):
        asked = {"--on": on, "--robustness": robustness, "--predictions": predictions, "--confusion": confusion}
        refuse_for_several(several, asked)
        options |= {"split": split or "validation", "views": views or 1, "uncertain": uncertain}
        return evaluate_several(several, json=json, **options)
    if robustness:
        return print_robustness(runs[0], split or "validation", images or 1_000, json=json, **options)
    if on is not None:
        measured = judge_on(on, run=runs[0], views=views, skip_broken=skip_broken, **options)
    else:
        measured = judge_run(runs[0], split=split or "validation", views=views or 1, uncertain=uncertain, **options)
    print_measured(runs[0], *measured, predictions=predictions, confusion=confusion, json=json)


def print_measured(
    run: Path,
    scores: "Scores",
    said: "Predictions",
    facts: dict[str, Any],
    text: list[str],
    *,
    predictions: Path | None,
    confusion: Path | None,
    json: bool,
) -> None:
    """Write the files that were asked for, and print the scores: with further `facts` as JSON, or the `text` for people."""
    if predictions:
        write_predictions(said, predictions, scores.calibration.temperature)
    if confusion:
        write_confusion(scores, confusion)
    if json:
        return print_json({"run": str(run), **scores.to_dict(), **facts})
    files = (("predictions", predictions), ("confusion", confusion))
    show("\n".join([*text, *(f"{what:11}  {path}" for what, path in files if path)]))


def check_uncertain(uncertain: float, views: int) -> None:
    """Raise `UserError` where a part of the images is to get more views, and there is one."""
    if uncertain != 1 and views == 1:
        raise UserError(
            f"--uncertain {uncertain:g} says which images get more views than one; give --views 2 or 6 with it"
        )


def check_robustness(robustness: bool, images: int | None, *, others: bool) -> None:
    """Raise `UserError` for a number of images that is none, or is not used, and for what else was asked beside --robustness."""
    check_positive(images=images)
    if images is not None and not robustness:
        raise UserError(f"--images {images} is for --robustness; all images of the split are measured without it")
    if robustness and others:
        raise UserError("--robustness measures one view and keeps a table of its own; leave out the other options")


def judge_run(
    path: Path, *, split: str, views: int, uncertain: float, machine: "Machine", data_dir: Path | None
) -> "tuple[Scores, Predictions, dict[str, Any], list[str]]":
    """The scores of a run on a split, its answers, what JSON tells of them besides, and all of it in words."""
    from thumbnet.judging.evaluation import measure
    from thumbnet.runs.run import Run

    run = Run.open(path)
    options: dict[str, Any] = {"machine": machine, "data_dir": data_dir, "say": note}
    scores, said = measure(run, split=split, views=views, uncertain=uncertain, **options)
    facts = {"uncertain": uncertain} | ({"test_openings": run.test_openings} if split == "test" else {})
    return scores, said, facts, lines(run, scores, uncertain)


def print_robustness(
    path: Path, split: str, images: int, *, machine: "Machine", data_dir: Path | None, json: bool
) -> None:
    """Measured on corrupted images, with its progress shown where somebody watches."""
    from thumbnet.judging.evaluation import say_of_earlier_looks
    from thumbnet.judging.robustness import evaluate_robustness
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.runs.run import Run

    run = Run.open(path)
    if split == "test":
        say_of_earlier_looks(run, note)
    options: dict[str, Any] = {"split": split, "images": images, "machine": machine, "data_dir": data_dir}
    with reporter_for_terminal() as reporter:
        found = evaluate_robustness(run, progress=reporter.loading, **options)
    if json:
        print_json({"run": str(path), **found.to_dict()})
    else:
        hint = f"next       thumbnet report {shlex.quote(str(path))}   puts it into the report page"
        show("\n".join([*robustness_lines(run, found), "", hint]))


def lines(run: "Run", scores: "Scores", uncertain: float = 1.0) -> list[str]:
    """The scores for people."""
    from thumbnet.measuring.results import views_in_words

    images = f"{counted(scores.images, f'{scores.split} image')}{of_groups(scores.groups)} of {run.data['name']}"
    text = [
        f"{title_of(run.recipe)} on {images}{openings_of(run, scores.split)}",
        f"run          {run.path.resolve()}",
        *measure_lines(scores, views_in_words(scores.views, uncertain)),
    ]
    if scores.views == 1 < run.recipe.test_views and scores.split == "validation":  # of test images a second look costs
        part = f" --uncertain {run.recipe.uncertain:g}" if run.recipe.uncertain < 1 else ""
        text.insert(3, f"             (the recipe's own views: --views {run.recipe.test_views}{part})")
    if scores.views > 1 and scores.split == "test":
        rows = [row for row in run.evaluations if row["split"] == "test" and row["views"] == 1]
        if rows:  # none in a folder that cannot be written to
            text.insert(3, f"             {rows[-1]['accuracy']:.2%} with one view, which `compare` takes")
    if penalty := run.summary["l2_penalty"]:
        text.append(f"             {scores.loss + penalty:.4f} with the L2 penalty (Keras reports such losses)")
    return [
        *text,
        *calibration_lines(scores, fitted_here(run, scores)),
        *class_lines(scores),
        *confused_lines(scores),
    ]


def openings_of(run: "Run", split: str) -> str:
    """How often the test set was opened, where it was."""
    return f" (test set opened {counted(run.test_openings, 'time')} for this run)" if split == "test" else ""


def fitted_here(run: "Run", scores: "Scores") -> str:
    """Where the temperature was fitted to the images that are measured, so much in words."""
    return " and which was fitted on these images" if run.calibrated and scores.split == "validation" else ""


def robustness_lines(run: "Run", found: "Robustness") -> list[str]:
    """Accuracy by kind and level for people."""
    from thumbnet.judging.statistics import widest_half

    width = max(len(row.kind) for row in found.rows)
    images = f"{counted(found.images, f'{found.split} image')}{of_groups(found.groups)}"
    text = [
        f"{title_of(run.recipe)} on {images} of {run.data['name']}, corrupted, in one view{openings_of(run, found.split)}",
        f"run        {run.path.resolve()}",
        f"clean      {found.clean:.2%}",
        f"corrupted  {found.corrupted:.2%}, the mean of {len(found.rows)} kinds and 5 levels; {found.relative:.1%} of clean",
        f"{'accuracy at level':{width}}       1       2       3       4       5",
    ]
    for row in found.rows:
        text.append(f"  {row.kind:{width}}  " + "  ".join(f"{value:6.2%}" for value in row.accuracies))
    known = f"{100 * widest_half(found.images, found.groups):.1f} points"
    of = f"{counted(found.images, 'image')}{of_groups(found.groups)}"
    widest = f"each accuracy is known to within {known} (95 % interval, {of})"
    return [*text, f"note: {widest}", *(f"note: {warning}" for warning in found.warnings)]
