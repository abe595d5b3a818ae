"""Measure a finished run on images it was not trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thumbnet.cli.options import Json, MachineFlags, Machines, given, print_json

if TYPE_CHECKING:
    from thumbnet.evaluation import Scores
    from thumbnet.runs import Run


def evaluate(
    run: Path,
    /,
    *,
    split: Literal["validation", "test"] = "validation",
    views: Literal[1, 2, 6] = 1,
    uncertain: float = 1.0,
    data_dir: Path | None = None,
    machine: Machines = MachineFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Measure a finished run: accuracy with its interval, top-5, loss, and accuracy by class.

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
    data_dir
        where the data lie now, if not where they lay in training
    """

    from thumbnet.evaluation import evaluate as measure
    from thumbnet.machine import Machine
    from thumbnet.runs import Run

    opened = Run.open(run)
    on = Machine(**given(machine))
    scores = measure(opened, split=split, views=views, uncertain=uncertain, machine=on, data_dir=data_dir)
    if json:
        measured = {"run": str(run), **scores.to_json()}
        print_json(measured | {"test_openings": opened.test_openings} if split == "test" else measured)
    else:
        print("\n".join(lines(opened, scores)))


def lines(run: "Run", scores: "Scores") -> list[str]:
    """The scores for people."""
    low, high = scores.interval95
    width = max(len(name) for name in scores.classes)
    counted = f" (test set opened {run.test_openings} x for this run)" if scores.split == "test" else ""
    text = [
        f"{run.recipe.name} on {scores.images:,} {scores.split} images of {run.data['name']}{counted}",
        f"run       {run.path.resolve()}",
        f"accuracy  {scores.accuracy:.4f}  (95 % interval {low:.4f} to {high:.4f}; {scores.views} view{'s'[: scores.views > 1]})",
        *([f"top-5     {scores.top5:.4f}"] if len(scores.classes) > 5 else []),
        f"loss      {scores.loss:.4f}",
    ]
    if penalty := run.summary["l2_penalty"]:
        text.append(f"          {scores.loss + penalty:.4f} with the L2 penalty (Keras reports such losses)")
    text.append("by class")
    rows = zip(scores.classes, scores.per_class, scores.support, strict=True)
    text += [f"  {name:{width}}  {accuracy:.4f}  of {count:,}" for name, accuracy, count in rows]
    return text
