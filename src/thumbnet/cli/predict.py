"""Classify image files with a finished run."""

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thumbnet.cli.options import Json, MachineFlags, Machines, Whole, as_json, check_positive, given
from thumbnet.errors import UserError

if TYPE_CHECKING:
    from thumbnet.prediction import Prediction


def predict(
    run: Path,
    images: list[Path],
    /,
    *,
    top: Whole = 1,
    views: Literal[1, 2, 6] = 1,
    format: Literal["table", "csv", "json"] = "table",
    output: Path | None = None,
    skip_broken: bool = False,
    machine: Machines = MachineFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Name the class of image files, with its probability.

    Parameters
    ----------
    run
        folder written by `thumbnet train`
    images
        image files (PNG, JPEG, WebP, GIF, BMP), or folders, which are searched for them
    top
        how many of the likeliest classes to tell
    views
        average over the image (1), its mirror image (2), and both shifted by one pixel (6)
    format
        how to print: for people, as CSV, or as JSON (--json is the same)
    output
        write there instead of to the screen
    skip_broken
        list files that cannot be read instead of stopping at the first
    """
    check_positive(top=top)
    if not images:
        raise UserError("no images given; name image files or folders after the run")

    from thumbnet.data.images import image_files
    from thumbnet.machine import Machine
    from thumbnet.prediction import load, predict_files

    files = [file for path in images for file in image_files(path)]
    classifier = load(run, machine=Machine(**given(machine)))
    predictions, broken = predict_files(classifier, files, top=top, views=views, skip_broken=skip_broken)
    for complaint in broken:
        print(f"skipped: {complaint}", file=sys.stderr)
    if json or format == "json":
        text = as_json({"run": str(run), "images": [as_object(row) for row in predictions], "skipped": broken})
    else:
        text = as_csv(predictions) if format == "csv" else as_table(predictions)
    if output is None:
        sys.stdout.write(text)
    else:
        from thumbnet.files import write_text

        write_text(output, text)
        print(f"{len(predictions)} predictions in {output}", file=sys.stderr)


def as_object(row: "Prediction") -> dict[str, object]:
    """One image as a JSON object."""
    ranking = [{"class": name, "probability": round(value, 6)} for name, value in row.ranking]
    return {"file": row.file, "class": row.label, "probability": round(row.probability, 6), "ranking": ranking}


def as_csv(predictions: "list[Prediction]") -> str:
    """One row per image: file, then class and probability for each place."""
    places = len(predictions[0].ranking)
    head = ["file", "class", "probability"]
    head += [f"{column}_{place}" for place in range(2, places + 1) for column in ("class", "probability")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in predictions:
        writer.writerow([row.file, *(value for name, share in row.ranking for value in (name, f"{share:.6f}"))])
    return text.getvalue()


def as_table(predictions: "list[Prediction]") -> str:
    """One line per image, in columns."""
    width = max(len(row.file) for row in predictions)
    label = max(len(name) for row in predictions for name, _ in row.ranking)
    rows = [
        "  ".join([f"{row.file:{width}}", *(f"{name:{label}} {value:6.2%}" for name, value in row.ranking)])
        for row in predictions
    ]
    return "".join(f"{row}\n" for row in rows)
