"""`export`: a run's network as a file, or as a folder to hand on, with a card that says what it is and a program that uses it.

A folder holds
model.onnx                what exporting.py writes, and checks
model.onnx.receipt.json   how it was checked
README.md                 the card: data, accuracy with its interval, classes, limits
classify.py               a page of Python that needs nothing of thumbnet
"""

from contextlib import suppress
from dataclasses import replace
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from thumbnet.data.groups import of_groups
from thumbnet.errors import UserError
from thumbnet.files import write_text
from thumbnet.judging.evaluation import Scores, score_predictions
from thumbnet.judging.groups import evaluation_of
from thumbnet.recipes import title_of
from thumbnet.runs.run import Run
from thumbnet.shipping.exported import MODEL
from thumbnet.shipping.exporting import ENDINGS, Receipt, export_file, receipt_path
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

SURE_ON_CARD = (0.95, 0.99)  # accuracies for which the card says how many answers are that sure


def export(
    run: "Run | str | Path",
    path: str | Path,
    *,
    views: int = 1,
    int8: bool = False,
    data: "Dataset | None" = None,
    data_dir: str | Path | None = None,
) -> Receipt:
    """Write a finished run's network to FILE.onnx, FILE.pt2, or, where `path` has no such ending, a folder to hand on.

    It is shown first that the file says what the run says, or with `int8` that it is as often right, see
    `exporting.export_file`, which also tells what is raised. A
    folder is made, or an earlier export in it replaced; `UserError` where something else is there.
    """
    run, path = run if isinstance(run, Run) else Run.open(run), Path(path)
    if is_file_name(path):
        return export_file(run, path, views=views, int8=int8, data=data, data_dir=data_dir)
    check_free(path)
    receipt = export_file(run, path / MODEL, views=views, int8=int8, data=data, data_dir=data_dir)
    write_text(
        path / "classify.py", resources.files("thumbnet.shipping.bundle").joinpath("classify.py").read_text("utf-8")
    )
    write_text(path / "README.md", card(run, receipt))
    return receipt


def is_file_name(path: Path) -> bool:
    """Whether a file is meant, and not a folder: any name with an ending, so that one that cannot be written is told."""
    return path.suffix.lower() in ENDINGS or (bool(path.suffix) and not path.is_dir())


def check_free(folder: Path) -> None:
    """Raise `UserError` where there is something else than a folder that is empty or an earlier export's."""
    if folder.is_dir() and (receipt_path(folder / MODEL).is_file() or not any(folder.iterdir())):
        return
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} is taken and holds no export of ours; give another folder")


def card(run: Run, receipt: Receipt) -> str:
    """The card, in Markdown; its numbers are those that the run folder has."""
    measured = scores_of(run)
    shown = measured.get("test") or measured.get("validation")
    environment = Environment(
        loader=PackageLoader("thumbnet.shipping.bundle", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # Markdown: nothing to escape but line breaks and bars, see `in_a_cell`
    height, width = receipt.image_size
    averaged = f"{receipt.views} views of each image (mirrored and shifted) are averaged inside."
    fitted = "Probabilities are calibrated on held-out images like those it was trained on; elsewhere they may be off."
    return environment.get_template("card.md").render(
        title=in_a_cell(f"{title_of(replace(run.recipe, start_from='', leave_out=''))} on {run.data.title}"),
        version=version("thumbnet"),
        rows=[(name, in_a_cell(value)) for name, value in facts(run, receipt, measured)],
        classes=[in_a_line(name) for name in run.classes],
        by_class=shown and class_lines(shown),
        images=shown and counted(shown.images, f"{shown.split} image"),
        height=height,
        width=width,
        channels=receipt.channels,
        kind="grey" if receipt.channels == 1 else "RGB",
        views=averaged if receipt.views > 1 else "",
        calibrated=fitted if run.calibrated else "Probabilities are not calibrated: no images were held out.",
    )


def scores_of(run: Run) -> dict[str, Scores]:
    """What the run's kept predictions come to, by split, in one view."""
    found = {}
    for split in ("validation", "test"):
        with suppress(UserError):  # none are kept
            found[split] = score_predictions(run.predictions(split), temperature=run.temperature)
    return found


def facts(run: Run, receipt: Receipt, measured: dict[str, Scores]) -> list[tuple[str, str]]:
    """The rows of the card's first table."""
    licence = f", licence {run.data['licence']}" if run.data.get("licence") else ""
    rows = [
        ("trained on", f"{counted(run.summary['train_images'], 'image')} of {run.data.title}{licence}"),
        ("recipe", f"{run.recipe.name}, {counted(run.recipe.epochs, 'epoch')}, seed {run.recipe.seed}"),
        ("network", f"{run.recipe.network}, {counted(run.summary['parameters'], 'parameter')}"),
    ]
    if run.recipe.leave_out:
        rows.append(("left out", f"{counted(run.data['trained_without'], 'image')} that a list named"))
    for began in run.lineage[:1]:
        rows.append(("began with", f"the weights of a run of {began['recipe']} on {began['dataset']}"))
    for split, scores in measured.items():
        low, high = scores.interval95
        images = counted(scores.images, "image") + of_groups(scores.groups)
        reached = f"{scores.accuracy:.2%} of {images} in one view, in {precision_of(run, split)}"
        opened = f"; the test set was opened {counted(run.test_openings, 'time')}" if split == "test" else ""
        rows.append((f"{split} accuracy", f"{reached} (95 % interval {low:.2%} to {high:.2%}{opened})"))
        error, before = scores.calibration.error_after, scores.calibration.error
        rows.append((f"{split} calibration", f"expected error {error:.2%} ({before:.2%} without the temperature)"))
    rows += sure_rows(receipt)
    checked = f"{receipt.images:,} {receipt.split} images"
    if receipt.precision == "int8":
        told = (
            f"{receipt.accuracy:.2%} right, {receipt.accuracy_of_run:.2%} by the network in fp32 (p = {receipt.p:.2g})"
        )
        checked = f"{checked}: {told}; the same class for {receipt.same_class:,}"
    else:
        near = f"probabilities differ by {receipt.largest_difference:.1e} at most"
        checked = f"{checked}, in fp32: the same class for {receipt.same_class:,}, {near}"
    speed, many = receipt.speed, f"{receipt.speed.images_per_second:,.0f} images/s"
    return [
        *rows,
        ("file", f"{MODEL}, {receipt.precision}, {receipt.bytes / 1e6:.1f} MB, SHA-256 {receipt.sha256}"),
        ("checked with", checked),
        ("speed", f"{speed.milliseconds:.3g} ms for one image, {many} in batches, on {speed.processor}"),
    ]


def sure_rows(receipt: Receipt) -> list[tuple[str, str]]:
    """From which probability on so many answers were right, where enough images were that sure to show it."""
    rows = []
    for found in receipt.thresholds:
        if found.target in SURE_ON_CARD and not found.lacking:
            low, high = found.interval95
            these = f"these {found.images:,}{of_groups(found.groups)}"
            right = f"{found.accuracy:.2%} of {these} are right (95 % interval {low:.2%} to {high:.2%})"
            told = f"from a probability of {found.confidence:.2%} on: {found.coverage:.1%} of the validation images; {right}"
            rows.append((f"{found.target:.0%} sure", told))
    return rows


def precision_of(run: Run, split: str) -> str:
    """What the kept predictions were computed in: as by the last evaluation of the split, else as in training."""
    row = evaluation_of(run, split) or run.summary
    return str(row.get("precision", run.summary["precision"]))


def class_lines(scores: Scores) -> list[str]:
    """One line for each class: its name, recall with interval, precision, images."""
    width = max(len(in_a_line(name)) for name in scores.classes)
    lines = []
    for name, recall, interval, precision, count in zip(
        scores.classes, scores.per_class, scores.per_class_interval95, scores.precision, scores.support, strict=True
    ):
        between = "" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"
        lines.append(
            f"{in_a_line(name):{width}}  {percent(recall):>6}  {between:17}  {percent(precision):>6}  {counted(count, 'image')}"
        )
    return lines


def percent(part: float | None) -> str:
    return "-" if part is None else f"{part:.1%}"


def in_a_line(name: Any) -> str:
    """A name without line breaks or other signs that are not printed."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(name))


def in_a_cell(text: str) -> str:
    """Text in a cell of a Markdown table: whatever a folder's name holds, it stays text."""
    return "".join(f"\\{letter}" if letter in "\\|`*_[]<>#" else letter for letter in in_a_line(text))
