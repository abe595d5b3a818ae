"""Files of answers on the command line: `thumbnet evaluate FILE` and `thumbnet compare RUN FILE`."""

import csv
import io
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thumbnet.cli.options import note, print_json, show
from thumbnet.cli.scores import class_lines, confused_lines, measure_lines
from thumbnet.errors import UserError
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.judging.evaluation import Scores
    from thumbnet.judging.image_by_image import AnswersComparison
    from thumbnet.runs.predictions import Predictions


def refuse(path: Path, asked: dict[str, Any]) -> None:
    """Raise `UserError` for an option that asks what a file of answers cannot tell."""
    for option, value in asked.items():
        if value:
            raise UserError(f"{option} needs a run, and {path} is a file of answers; leave it out")


# ---------------------------------------------------------------- evaluate


def judge_file(
    paths: Sequence[Path], asked: dict[str, Any], *, with_probabilities: bool
) -> "tuple[Scores, Predictions, dict[str, Any], list[str]]":
    """The scores of another program's answers, the answers, what JSON tells of them besides, and all of it in words.

    Refuses the options that were `asked`, and answers without probabilities where these are to be written.
    """
    if len(paths) > 1:
        raise UserError(f"evaluate takes one file of answers, and {len(paths)} things are named; see: thumbnet compare")
    [path] = paths
    refuse(path, asked)

    from thumbnet.judging.answers import as_predictions, read_answers, score_answers

    answers = read_answers(path)
    if answers.logits is None and with_probabilities:
        raise UserError(f"--predictions writes probabilities, and {path} has answers alone; leave it out")
    scores = score_answers(answers)
    return scores, as_predictions(answers), {"split": answers.split, "views": answers.views}, score_lines(path, scores)


def score_lines(path: Path, scores: "Scores") -> list[str]:
    """The scores for people."""
    measured = scores.calibration
    more = [
        f"Brier score  {scores.brier:.4f}",
        f"calibration  error {measured.error:.2%} (bins of equal mass {measured.error_equal_mass:.2%})",
    ]
    return [
        f"{path}: answers for {counted(scores.images, 'image')} of {counted(len(scores.classes), 'class', 'classes')}",
        *measure_lines(scores),
        *([] if isnan(scores.brier) else more),
        *class_lines(scores),
        *confused_lines(scores),
    ]


# ---------------------------------------------------------------- compare


def compare_files(
    paths: Sequence[Path], *, split: Literal["validation", "test"] | None, csv: Path | None, json: bool
) -> None:
    """Compare the answers of runs and files image by image, in the order they were named; write and print it."""
    from thumbnet.judging.image_by_image import compare_answers
    from thumbnet.runs.paths import find_runs, is_answers
    from thumbnet.runs.run import Run

    sources: list[Run | Path] = []
    for path in paths:
        sources += (
            [path] if is_answers(path) else find_runs([path], tell=lambda line: note(line.removeprefix("note: ")))
        )
    if split and not any(isinstance(source, Run) for source in sources):
        raise UserError(f"--split {split} says which images of a run to take, and there is none here; leave it out")
    found = compare_answers(sources, split=split or "validation")
    if csv:
        from thumbnet.files import write_text

        write_text(csv, as_csv(found))
    if json:
        print_json(found.to_dict())
    else:
        show("\n".join([*comparison_lines(found), *([f"csv     {csv}"] if csv else [])]))


def comparison_lines(found: "AnswersComparison") -> list[str]:
    """A table of the networks, a sentence for every pair, and the warnings."""
    what = f"{found.split} accuracy on {found.dataset}" if found.split else "accuracy"
    width = max(7, *(len(it.name) for it in found.answers))
    to = "{0[0]:.2%} to {0[1]:.2%}".format
    rows = [f"{it.name:{width}}  {it.accuracy:>8.2%}  {to(it.interval95)}" for it in found.answers]
    return [
        f"{what}, image by image ({counted(found.images, 'image')})",
        f"{'answers':{width}}  accuracy  95 % interval",
        *rows,
        "",
        *(found.sentences or ["There is no other network here to compare it with."]),
        *(f"note: {warning}" for warning in found.warnings),
    ]


def as_csv(found: "AnswersComparison") -> str:
    """One row per network."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["answers", "images", "right", "accuracy", "low", "high", "test_openings"])
    for it in found.answers:
        ends = [f"{end:.6f}" for end in it.interval95]
        openings = "" if it.test_openings is None else it.test_openings
        writer.writerow([it.name, it.images, it.right, f"{it.accuracy:.6f}", *ends, openings])
    return text.getvalue()
