"""`thumbnet evaluate RUN --on PATH`: a run, or an export, measured on labelled images of one's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cli.options import note, tell_left_out
from thumbnet.cli.scores import between, calibration_lines, class_lines, confused_lines, measure_lines
from thumbnet.data.groups import of_groups
from thumbnet.errors import UserError
from thumbnet.recipes import title_of
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.judging.evaluation import Scores
    from thumbnet.machine import Machine
    from thumbnet.runs.predictions import Predictions
    from thumbnet.runs.run import Run
    from thumbnet.shipping.new_images import Judged


def check_on(on: Path | None, *, split: str | None, uncertain: float, robustness: bool, skip_broken: bool) -> None:
    """Raise `UserError` for what cannot be asked for together with images of one's own, or only with them."""
    if on is None:
        if skip_broken:
            raise UserError("--skip-broken is for --on; the images of the run are read as they were in training")
        return
    asked = {
        f"--split {split}": split is not None,
        f"--uncertain {uncertain:g}": uncertain != 1,
        "--robustness": robustness,
    }
    for option, given in asked.items():
        if given:
            raise UserError(f"{option} is for the images of the run, and --on {on} names others; leave one of them out")


def judge_on(
    path: Path, *, run: Path, views: int | None, skip_broken: bool, machine: "Machine", data_dir: Path | None
) -> "tuple[Scores, Predictions, dict[str, Any], list[str]]":
    """The scores of the images at `path`, the answers, what JSON tells of them besides, and all of it in words."""
    from thumbnet.measuring.results import views_in_words
    from thumbnet.runs.run import Run
    from thumbnet.shipping.exported import exported_file
    from thumbnet.shipping.loading import load
    from thumbnet.shipping.new_images import judge_new_images

    opened = None if exported_file(run) else Run.open(run)
    if opened is None and data_dir is not None:
        raise UserError(
            f"--data-dir {data_dir} names the training images of a run, and {run} is an export; leave it out"
        )
    options: dict[str, Any] = {"views": views, "skip_broken": skip_broken}
    if opened:
        options |= {"group_by": opened.data.get("group_by", ""), "columns": opened.data.telling_columns}
    judged = judge_new_images(load(opened or run, machine=machine), path, **options)
    if judged.note:
        note(judged.note)
    tell_left_out(judged.ignored, judged.broken, outside=", or outside the class folders")
    left_out = {"skipped": list(judged.broken), "ignored": [str(file) for file in judged.ignored]}
    known = known_images(opened, judged, data_dir) if opened else UNKNOWN
    name = title_of(opened.recipe) if opened else f"the network of {run}"
    lines = [
        f"{name} on {counted(judged.scores.images, 'labelled image')}{of_groups(judged.scores.groups)} of {path}",
        f"{'run' if opened else 'export':11}  {run.resolve()}",
        *measure_lines(judged.scores, views_in_words(judged.scores.views, 1.0)),
        *calibration_lines(judged.scores),
        *class_lines(judged.scores),
        *confused_lines(judged.scores),
    ]
    return judged.scores, judged.predictions, {"on": str(path), **known, **left_out}, lines


UNKNOWN: dict[str, Any] = {
    "trained_on": None, "of_groups_trained_on": None, "accuracy_on_others": None, "accuracy_on_others_interval95": None,
}  # fmt: skip


def known_images(run: "Run", judged: "Judged", data_dir: Path | None) -> dict[str, Any]:
    """How many of the images, or others of their groups, the run was trained on, and the accuracy on the rest.

    Told on stderr, too, where it is any.
    """
    import numpy as np
    import torch

    from thumbnet.judging.intervals import interval_of, part_of
    from thumbnet.shipping.new_images import trained_on

    try:
        equal, of_groups = trained_on(run, judged.pixels, judged.groups, data_dir=data_dir)
    except UserError as error:
        note(f"whether the run was trained on some of these images cannot be told: {error}")
        return UNKNOWN
    met = np.zeros(len(equal), bool) if of_groups is None else of_groups
    rest = torch.from_numpy(~(equal | met))
    hits = judged.predictions.hits()[rest]
    others = hits.double().mean().item() if len(hits) else None
    interval = interval_of(hits, part_of(judged.predictions.groups, rest)) if len(hits) else None
    if told := told_of_known(int(equal.sum()), int(met.sum())):
        measured = "there is no other"
        if others is not None and interval is not None:
            measured = f"on the other {len(hits):,} the accuracy is {others:.2%} ({between(interval)})"
        note(f"{told} that the run was trained on; {measured}")
    return {
        "trained_on": int(equal.sum()),
        "of_groups_trained_on": None if of_groups is None else int(of_groups.sum()),
        "accuracy_on_others": others,
        "accuracy_on_others_interval95": interval,
    }


def told_of_known(equal: int, met: int) -> str:
    """How many images equal one, or are of a group, that ..., "" of none."""
    told = [counted(equal, "of these images equals one", "of these images equal ones")] if equal else []
    told += [counted(met, "of these images is of a group", "of these images are of groups")] if met else []
    return ", ".join(told)
