"""Classify image files with a finished run."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from thumbnet.cli.options import (
    Json,
    Measuring,
    MeasuringFlags,
    Whole,
    as_json,
    check_positive,
    check_writable,
    described,
    given,
    note,
    show,
    tell_left_out,
)
from thumbnet.errors import UserError
from thumbnet.files import write_text
from thumbnet.words import counted, shortened, visible

if TYPE_CHECKING:
    from thumbnet.data.unlabelled import UnlabelledImages
    from thumbnet.judging.thresholds import Threshold
    from thumbnet.machine import Machine
    from thumbnet.runs.run import Run
    from thumbnet.shipping.classifier import Classifier, Prediction

Format: TypeAlias = Literal["table", "csv", "json"]


@described
def predict(
    run: Path,
    images: list[Path],
    /,
    *,
    top: Whole = 1,
    views: Literal[1, 2, 6] | None = None,
    sure: float | None = None,
    explain: Path | None = None,
    like: Path | None = None,
    data_dir: Path | None = None,
    format: Format | None = None,
    output: Path | None = None,
    skip_broken: bool = False,
    machine: Measuring = MeasuringFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Name the class of image files, with its probability.

    Parameters
    ----------
    run
        folder written by `thumbnet train`, or a FILE.onnx or a folder written by `thumbnet export`
    images
        image files (PNG, JPEG, WebP, GIF, BMP), folders, which are searched for them, .csv files that name them or have their
        pixels, or arrays as `thumbnet train` takes them
    top
        how many of the most likely classes to print
    views
        test-time augmentation: the image (1, the default), its mirror image too (2), and both shifted by one pixel too (6);
        an export has its own inside
    sure
        mark uncertain answers: 0.99 finds the probability from which on 99 % of the answers on the validation images were
        right, and marks what is below it as not sure
    explain
        folder for a picture per image: where the network looked, beside the nearest training images
    like
        a table to be filled, such as a competition's sample_submission.csv: its rows and columns with our answers, as CSV
    data_dir
        for --explain: where the training images are now, if they have moved
    format
        how to print: for people, as CSV, or as JSON (--json is the same); by default as the ending of --output says
    output
        write there instead of to the screen
    skip_broken
        list files that cannot be read instead of stopping at the first
    """
    check_positive(top=top)
    check_writable(output, explain and explain / "picture.png")
    format = chosen_format(json, format, output, like=like is not None)
    if like is not None and (top != 1 or sure is not None or explain or skip_broken):
        raise UserError("--like answers each row of its table; leave out --top, --sure, --explain and --skip-broken")

    from thumbnet.data.unlabelled import together, unlabelled_images
    from thumbnet.machine import Machine
    from thumbnet.shipping.classifier import predict_images

    found = together([unlabelled_images(path) for path in images])
    on = Machine(**given(machine))
    classifier, opened, threshold = what_predicts(run, on, views=views, sure=sure, explain=explain)
    if like is not None:
        return put(*answers_like(like, classifier, found, views), output)
    least = threshold.confidence if threshold else 0.0
    predictions, broken = predict_images(
        classifier, found.names, found.images, top=top, views=views, sure=least, skip_broken=skip_broken
    )
    tell_aside(found, broken, threshold)
    if explain is not None and opened:
        explain_files(opened, classifier, predictions, explain, data_dir)
    if format == "json":
        left_out = {"skipped": broken, "ignored": [str(file) for file in found.ignored]}
        text = as_json(as_objects(run, predictions, threshold) | left_out)
    else:
        text = as_csv(predictions, threshold) if format == "csv" else as_table(predictions)
    put(text, len(predictions), output)


def tell_aside(found: "UnlabelledImages", broken: Sequence[str] = (), threshold: "Threshold | None" = None) -> None:
    """On stderr, what a person should know beside the answers."""
    tell_left_out(found.ignored, broken)
    if found.note:
        note(found.note)
    if threshold:
        show(threshold.in_words(), file=sys.stderr)


def put(text: str, rows: int, output: Path | None) -> None:
    """The answers where they are wanted."""
    if output is None:
        sys.stdout.write(text)
        return
    write_text(output, text)
    show(f"{counted(rows, 'prediction')} in {output}", file=sys.stderr)


def chosen_format(json: bool, format: Format | None, output: Path | None, *, like: bool = False) -> Format:
    """What to print; CSV where a table is filled. Raises `UserError` where two things are asked for."""
    asked = format or (format_of(output) if output and output.suffix else None)
    if like and (json or asked not in (None, "csv")):
        raise UserError(
            f"--like writes CSV; leave out {'--json' if json else '--format' if format else f'the ending of {output}'}"
        )
    if like:
        return "csv"
    if json and asked not in (None, "json"):
        raise UserError(f"--json, and {'--format' if format else '--output'} for {asked}: leave one of them out")
    return "json" if json else asked or "table"


def format_of(output: Path | None) -> Format:
    """What the ending of the file asks for; the table where it is .txt, or there is none."""
    kinds: dict[str, Format] = {".csv": "csv", ".json": "json", ".txt": "table", "": "table"}
    ending = output.suffix.lower() if output else ""
    if ending not in kinds:
        raise UserError(
            f"--output {output}: give a name that ends in .csv, .json or .txt, or say what it is with --format"
        )
    return kinds[ending]


def what_predicts(
    run: Path, machine: "Machine", *, views: int | None, sure: float | None, explain: Path | None
) -> "tuple[Classifier, Run | None, Threshold | None]":
    """The classifier; of a run folder the run too, and from where on it is sure, where that was asked."""
    from thumbnet.shipping.exported import exported_file
    from thumbnet.shipping.loading import load, sure_from

    if exported_file(run):
        if explain is not None:
            raise UserError(f"--explain needs the images of the run, and {run} is an export; name the run folder")
        opened = None
    else:
        from thumbnet.runs.run import Run

        if sure is not None and views not in (None, 1):
            raise UserError(
                f"--sure goes by one view, as the validation images were measured; leave out --views {views}"
            )
        opened = Run.open(run)
    classifier = load(opened or run, machine=machine)
    threshold = None if sure is None else sure_from(opened or run, classifier, sure)
    return classifier, opened, threshold


def answers_like(path: Path, classifier: "Classifier", found: "UnlabelledImages", views: int | None) -> tuple[str, int]:
    """A table that somebody gave with our answers, and its rows. What it asks for is looked at before anything is computed."""
    from thumbnet.shipping.classifier import read_files
    from thumbnet.shipping.form import doubts, filled_in, places_in, read_form

    form = read_form(path, classifier.classes)
    places = places_in(form, found.names, numbered=found.numbered)
    tell_aside(found)
    for doubt in doubts(form, classifier.classes, found.names, places):
        note(doubt)
    pixels, _, broken = read_files(classifier, found.images, skip_broken=True)
    if broken:
        raise UserError(f"{broken[0]}; --like answers each row of {path}")
    probabilities = classifier.probabilities(pixels, views=views)  # N K
    return filled_in(form, probabilities, places, classifier.classes), len(form.rows)


def explain_files(
    run: "Run", classifier: "Classifier", predictions: "list[Prediction]", folder: Path, data_dir: Path | None
) -> None:
    """A picture per image in `folder`, named after the file."""
    from thumbnet.judging.explanation import save_explanations
    from thumbnet.shipping.prediction import NetworkClassifier

    assert isinstance(classifier, NetworkClassifier)  # a run's
    data = run.check_data(run.load_data(data_dir=data_dir))
    written = save_explanations(classifier, data, predictions, folder)
    show(f"{counted(len(written), 'explanation')} in {folder}", file=sys.stderr)


def as_objects(run: Path, rows: "list[Prediction]", threshold: "Threshold | None") -> dict[str, object]:
    """All images, and what `--sure` came down to where it was asked for."""
    found: dict[str, object] = {"run": str(run), "images": [as_object(row, threshold) for row in rows]}
    return found | ({"threshold": asdict(threshold)} if threshold else {})


def as_object(row: "Prediction", threshold: "Threshold | None") -> dict[str, object]:
    """One image as a JSON object; `sure` is there where it was asked for."""
    ranking = [{"class": name, "probability": round(value, 6)} for name, value in row.ranking]
    found = {"file": row.file, "class": row.label, "probability": round(row.probability, 6), "ranking": ranking}
    return found | ({"sure": row.sure} if threshold else {})


def as_csv(predictions: "list[Prediction]", threshold: "Threshold | None") -> str:
    """One row per image: file, then class and probability for each place, and whether it is sure where that was asked."""
    places = len(predictions[0].ranking)
    head = ["file", "class", "probability"]
    head += [f"{column}_{place}" for place in range(2, places + 1) for column in ("class", "probability")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head + (["sure"] if threshold else []))
    for row in predictions:
        ranked = [value for name, share in row.ranking for value in (name, f"{share:.6f}")]
        writer.writerow([row.file, *ranked] + ([int(row.sure)] if threshold else []))
    return text.getvalue()


def as_table(predictions: "list[Prediction]") -> str:
    """One line per image, in columns."""
    files = [visible(row.file) for row in predictions]
    width = max(map(len, files))
    called = {name: shortened(visible(name)) for row in predictions for name, _ in row.ranking}
    label = max(map(len, called.values()))
    rows = [
        "  ".join([f"{file:{width}}", *(f"{called[name]:{label}} {value:6.2%}" for name, value in row.ranking)])
        + ("" if row.sure else "  not sure")
        for file, row in zip(files, predictions, strict=True)
    ]
    return "".join(f"{row}\n" for row in rows)
