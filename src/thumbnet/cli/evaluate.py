"""Measure a finished run on images it was not trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thumbnet.cli.options import Json, Measuring, MeasuringFlags, Whole, check_positive, described, given, print_json
from thumbnet.errors import UserError
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.evaluation import Scores
    from thumbnet.predictions import Predictions
    from thumbnet.robustness import Robustness
    from thumbnet.runs import Run


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
    images: Whole = 1_000,
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
        average over the image (1), its mirror image (2), and both shifted by one pixel (6)
    uncertain
        part of the images, the least certain in one view, that get all the views
    predictions
        write class, prediction and probability of every image to this .csv or .npz file
    confusion
        write the confusion matrix to this .csv or .png file
    robustness
        measure on corrupted images instead: 15 kinds, 5 levels each
    images
        for --robustness: so many images, evenly spread over the split
    data_dir
        where the data lie now, if not where they lay in training
    """
    check_positive(images=images)
    check_ending("predictions", predictions, ".csv", ".npz")
    check_ending("confusion", confusion, ".csv", ".png")
    if robustness and (views != 1 or predictions or confusion):
        raise UserError("--robustness measures one view and keeps a table of its own; leave out the other options")

    from thumbnet.evaluation import measure
    from thumbnet.machine import Machine
    from thumbnet.runs import Run

    opened = Run.open(run)
    on = Machine(**given(machine))
    if robustness:
        from thumbnet.robustness import evaluate_robustness

        found = evaluate_robustness(opened, split=split, images=images, machine=on, data_dir=data_dir)
        if json:
            print_json({"run": str(run), **found.to_json()})
        else:
            print("\n".join(robustness_lines(opened, found)))
        return
    scores, said = measure(opened, split=split, views=views, uncertain=uncertain, machine=on, data_dir=data_dir)
    if predictions:
        write_predictions(said, predictions, opened)
    if confusion:
        write_confusion(scores, confusion)
    if json:
        measured = {"run": str(run), **scores.to_json()}
        print_json(measured | {"test_openings": opened.test_openings} if split == "test" else measured)
    else:
        print("\n".join(lines(opened, scores)))


def check_ending(option: str, path: Path | None, *endings: str) -> None:
    """Raise `UserError` for a file whose ending says nothing of how to write it."""
    if path is not None and path.suffix.lower() not in endings:
        raise UserError(f"--{option} {path}: give a name that ends in {' or '.join(endings)}")


def write_predictions(predictions: "Predictions", path: Path, run: "Run") -> None:
    """One row per image as CSV, probabilities at the run's temperature; or the logits as npz."""
    if path.suffix.lower() == ".npz":
        predictions.save(path)
    else:
        predictions.save_csv(path, run.temperature)


def write_confusion(scores: "Scores", path: Path) -> None:
    """Counts as CSV with the classes in the first row and column, or a picture."""
    if path.suffix.lower() == ".png":
        from thumbnet.plots import confusion_figure, save

        save(confusion_figure(scores), path)
        return
    import csv
    import io

    from thumbnet.files import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class \\ taken for", *scores.classes])
    writer.writerows([name, *row] for name, row in zip(scores.classes, scores.confusion, strict=True))
    write_text(path, text.getvalue())


def lines(run: "Run", scores: "Scores") -> list[str]:
    """The scores for people."""
    low, high = scores.interval95
    openings = f" (test set opened {run.test_openings} x for this run)" if scores.split == "test" else ""
    text = [
        f"{run.recipe.name} on {counted(scores.images, f'{scores.split} image')} of {run.data['name']}{openings}",
        f"run          {run.path.resolve()}",
        f"accuracy     {scores.accuracy:.2%}  (95 % interval {low:.2%} to {high:.2%}; {counted(scores.views, 'view')})",
        *([f"top-5        {scores.top5:.2%}"] if len(scores.classes) > 5 else []),
        f"loss         {scores.loss:.4f}",
    ]
    if penalty := run.summary["l2_penalty"]:
        text.append(f"             {scores.loss + penalty:.4f} with the L2 penalty (Keras reports such losses)")
    measured = scores.calibration
    text += [
        f"Brier score  {scores.brier:.4f}",
        f"calibration  error {measured.error:.2%}; {measured.error_after:.2%} at the run's temperature "
        f"{measured.temperature:.2f}, which predict uses",
    ]
    return text + class_lines(scores) + confused_lines(scores)


def class_lines(scores: "Scores") -> list[str]:
    """Precision, recall and F1 of each class; "-" where there is nothing to divide by."""
    width = max(8, *(len(name) for name in scores.classes))
    rows = zip(scores.classes, scores.precision, scores.per_class, scores.f1, scores.support, strict=True)
    text = [f"{'by class':{width + 2}}  precision  recall      F1  images"]
    for name, precision, recall, f1, images in rows:
        cells = [f"{'-' if value is None else f'{value:.2%}':>7}" for value in (precision, recall)]
        cells.append(f"{'-' if f1 is None else f'{f1:.4f}':>6}")
        text.append(f"  {name:{width}}    {cells[0]} {cells[1]}  {cells[2]}  {images:>6,}")
    if None in scores.precision:
        text.append("  - : no image was taken for this class, or it has none in this split")
    return text


def confused_lines(scores: "Scores", limit: int = 5) -> list[str]:
    """The most frequent mistakes."""
    rows = [
        f"  {name} taken for {other}: {count} of {name}'s images ({part:.1%})"
        for name, other, count, part in scores.most_confused(limit)
    ]
    return ["most confused", *rows] if rows else ["no mistakes"]


def robustness_lines(run: "Run", found: "Robustness") -> list[str]:
    """Accuracy by kind and level for people."""
    width = max(len(row.kind) for row in found.rows)
    text = [
        f"{run.recipe.name} on {counted(found.images, f'{found.split} image')} of {run.data['name']}, corrupted (one view)",
        f"run        {run.path.resolve()}",
        f"clean      {found.clean:.2%}",
        f"corrupted  {found.corrupted:.2%}, the mean of {len(found.rows)} kinds and 5 levels; {found.relative:.1%} of clean",
        f"{'accuracy at level':{width}}       1       2       3       4       5",
    ]
    for row in found.rows:
        text.append(f"  {row.kind:{width}}  " + "  ".join(f"{value:6.2%}" for value in row.accuracies))
    return text + [f"note: {warning}" for warning in found.warnings]
