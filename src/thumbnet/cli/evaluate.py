"""Measure a finished run on images it was not trained on."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thumbnet.cli.options import (
    Json,
    Measuring,
    MeasuringFlags,
    Whole,
    check_ending,
    check_positive,
    check_writable,
    described,
    given,
    print_json,
)
from thumbnet.errors import UserError
from thumbnet.recipes import title_of
from thumbnet.words import counted, shortened

if TYPE_CHECKING:
    from thumbnet.judging.evaluation import Scores
    from thumbnet.judging.robustness import Robustness
    from thumbnet.runs.predictions import Predictions
    from thumbnet.runs.run import Run


@described
def evaluate(
    run: Path,
    /,
    *,
    split: Literal["validation", "test"] = "validation",
    views: Literal[1, 2, 6] = 1,
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
    run
        folder written by `thumbnet train`
    split
        the images held out from training, or the test set
    views
        test-time augmentation: the image (1), its mirror image too (2), and both shifted by one pixel too (6)
    uncertain
        fraction of the images, the least certain in one view, that get all the views
    predictions
        write class, prediction and probability of every image to this .csv or .npz file
    confusion
        write the confusion matrix to this .csv or .png file
    robustness
        measure on corrupted images instead: 15 kinds, 5 levels each
    images
        for --robustness: this many images, evenly spread over the split; 1,000 if not given
    data_dir
        where the data are now, if they have moved since training
    """
    if images is not None:
        check_positive(images=images)
        if not robustness:
            raise UserError(f"--images {images} is for --robustness; all images of the split are measured without it")
    check_ending("predictions", predictions, ".csv", ".npz")
    check_ending("confusion", confusion, ".csv", ".png")
    check_writable(predictions, confusion)
    if uncertain != 1 and views == 1:
        raise UserError(
            f"--uncertain {uncertain:g} says which images get more views than one; give --views 2 or 6 with it"
        )
    if robustness and (views != 1 or uncertain != 1 or predictions or confusion):
        raise UserError("--robustness measures one view and keeps a table of its own; leave out the other options")

    from thumbnet.judging.evaluation import measure, say_of_earlier_looks
    from thumbnet.machine import Machine
    from thumbnet.runs.run import Run

    opened = Run.open(run)
    on = Machine(**given(machine))
    if robustness:
        if split == "test":
            say_of_earlier_looks(opened, note)
        told = {"split": split, "images": images or 1_000, "machine": on, "data_dir": data_dir}
        print_robustness(opened, run, told, json=json)
        return
    scores, said = measure(
        opened, split=split, views=views, uncertain=uncertain, machine=on, data_dir=data_dir, say=note
    )
    if predictions:
        write_predictions(said, predictions, opened)
    if confusion:
        write_confusion(scores, confusion)
    if json:
        measured = {"run": str(run), "uncertain": uncertain, **scores.to_dict()}
        print_json(measured | {"test_openings": opened.test_openings} if split == "test" else measured)
    else:
        written = [
            f"{what:11}  {path}" for what, path in (("predictions", predictions), ("confusion", confusion)) if path
        ]
        print("\n".join([*lines(opened, scores, uncertain), *written]))


def note(told: str) -> None:
    """What a person should know beside the numbers, where it does not mix with them."""
    print(f"note: {told}", file=sys.stderr)


def print_robustness(run: "Run", path: Path, options: dict[str, Any], *, json: bool) -> None:
    """Measured, with its progress shown where somebody watches."""
    from thumbnet.judging.robustness import evaluate_robustness
    from thumbnet.progress import reporter_for_terminal

    with reporter_for_terminal() as reporter:
        found = evaluate_robustness(run, progress=reporter.loading, **options)
    if json:
        print_json({"run": str(path), **found.to_dict()})
    else:
        hint = f"next       thumbnet report {shlex.quote(str(path))}   puts it into the report page"
        print("\n".join([*robustness_lines(run, found), "", hint]))


def write_predictions(predictions: "Predictions", path: Path, run: "Run") -> None:
    """One row per image as CSV, probabilities at the run's temperature; or the logits as npz."""
    if path.suffix.lower() == ".npz":
        predictions.save(path)
    else:
        predictions.save_csv(path, run.temperature)


def write_confusion(scores: "Scores", path: Path) -> None:
    """Counts as CSV with the classes in the first row and column, the same in parts of the class's images below, or a picture."""
    if path.suffix.lower() == ".png":
        from thumbnet.plots.judging import confusion_figure
        from thumbnet.plots.style import save

        save(confusion_figure(scores), path)
        return
    import csv
    import io

    from thumbnet.files import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *scores.classes])
    writer.writerows([name, *row] for name, row in zip(scores.classes, scores.confusion, strict=True))
    writer.writerow([])
    writer.writerow(["true \\ fraction predicted", *scores.classes])
    for name, row in zip(scores.classes, scores.confusion, strict=True):
        writer.writerow([name, *(f"{count / sum(row):.6f}" if sum(row) else "" for count in row)])
    write_text(path, text.getvalue())


def lines(run: "Run", scores: "Scores", uncertain: float = 1.0) -> list[str]:
    """The scores for people."""
    from thumbnet.measuring.results import views_in_words

    images = f"{counted(scores.images, f'{scores.split} image')} of {run.data['name']}"
    text = [
        f"{title_of(run.recipe)} on {images}{openings_of(run, scores.split)}",
        f"run          {run.path.resolve()}",
        f"accuracy     {scores.accuracy:.2%}  ({between(scores.interval95)}; {views_in_words(scores.views, uncertain)})",
        *([f"top-5        {scores.top5:.2%}  ({between(scores.top5_interval95)})"] if len(scores.classes) > 5 else []),
        f"balanced     {scores.balanced_accuracy:.2%}  (accuracy, all classes counting alike); macro F1 {scores.macro_f1:.4f}",
        f"loss         {scores.loss:.4f}",
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
    measured = scores.calibration
    text += [
        f"Brier score  {scores.brier:.4f}",
        f"calibration  error {measured.error:.2%} (bins of equal mass {measured.error_equal_mass:.2%}); "
        f"{measured.error_after:.2%} ({measured.error_equal_mass_after:.2%}) at the run's temperature "
        f"{measured.temperature:.2f}, which predict uses{fitted_here(run, scores)}",
    ]
    return text + class_lines(scores) + confused_lines(scores)


def openings_of(run: "Run", split: str) -> str:
    """How often the test set was opened, where it was."""
    return f" (test set opened {counted(run.test_openings, 'time')} for this run)" if split == "test" else ""


def between(interval: tuple[float, float]) -> str:
    """`95 % interval 88.26% to 92.89%`."""
    return "95 % interval {:.2%} to {:.2%}".format(*interval)


def fitted_here(run: "Run", scores: "Scores") -> str:
    """Where the temperature was fitted to the images that are measured, so much in words."""
    return " and which was fitted on these images" if run.calibrated and scores.split == "validation" else ""


def class_lines(scores: "Scores") -> list[str]:
    """Precision, recall and F1 of each class; "-" where there is nothing to divide by."""
    width = max(8, *(len(shortened(name)) for name in scores.classes))
    ends = (scores.per_class_interval95, scores.f1, scores.support)
    rows = zip(scores.classes, scores.precision, scores.per_class, *ends, strict=True)
    text = [f"{'by class':{width + 2}}  precision  recall  95 % interval         F1  images"]
    for name, precision, recall, interval, f1, images in rows:
        cells = [f"{'-' if value is None else f'{value:.2%}':>7}" for value in (precision, recall)]
        cells.append("{:6.2%} to {:.2%}".format(*interval).ljust(17) if interval else f"{'-':<17}")
        cells.append(f"{'-' if f1 is None else f'{f1:.4f}':>6}")
        text.append(f"  {shortened(name):{width}}    {cells[0]} {cells[1]}  {cells[2]}  {cells[3]}  {images:>6,}")
    if None in scores.precision:
        text.append("  - : no image was taken for this class, or it has none in this split")
    return text


def confused_lines(scores: "Scores", limit: int = 5) -> list[str]:
    """The most frequent mistakes."""
    rows = [
        f"  {shortened(name)} taken for {shortened(other)}: {count} of {shortened(name)}'s images ({part:.1%})"
        for name, other, count, part in scores.most_confused(limit)
    ]
    return ["most confused", *rows] if rows else ["no mistakes"]


def robustness_lines(run: "Run", found: "Robustness") -> list[str]:
    """Accuracy by kind and level for people."""
    from thumbnet.judging.statistics import wilson_interval

    width = max(len(row.kind) for row in found.rows)
    images = f"{counted(found.images, f'{found.split} image')} of {run.data['name']}"
    text = [
        f"{title_of(run.recipe)} on {images}, corrupted, in one view{openings_of(run, found.split)}",
        f"run        {run.path.resolve()}",
        f"clean      {found.clean:.2%}",
        f"corrupted  {found.corrupted:.2%}, the mean of {len(found.rows)} kinds and 5 levels; {found.relative:.1%} of clean",
        f"{'accuracy at level':{width}}       1       2       3       4       5",
    ]
    for row in found.rows:
        text.append(f"  {row.kind:{width}}  " + "  ".join(f"{value:6.2%}" for value in row.accuracies))
    low, high = wilson_interval(found.images // 2, found.images)
    widest = f"each accuracy is known to within {50 * (high - low):.1f} points (95 % interval, {found.images:,} images)"
    return [*text, f"note: {widest}", *(f"note: {warning}" for warning in found.warnings)]
