"""Scores for people, and as files; shared by what measures a run, new images and another program's answers."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from thumbnet.words import nats, shortened

if TYPE_CHECKING:
    from thumbnet.judging.evaluation import Scores
    from thumbnet.runs.predictions import Predictions


def measure_lines(scores: "Scores", views: str = "") -> list[str]:
    """Accuracy, with the `views` it was measured with, top-5 where there are more classes than five, means over classes, loss."""
    top5 = len(scores.classes) > 5 and not isnan(scores.top5)
    return [
        f"accuracy     {scores.accuracy:.2%}  ({'; '.join(filter(None, (between(scores.interval95), views)))})",
        *([f"top-5        {scores.top5:.2%}  ({between(scores.top5_interval95)})"] if top5 else []),
        f"balanced     {scores.balanced_accuracy:.2%}  (accuracy, all classes counting alike); macro F1 {scores.macro_f1:.4f}",
        *([] if isnan(scores.loss) else [f"loss         {nats(scores.loss)}"]),
    ]


def calibration_lines(scores: "Scores", fitted: str = "") -> list[str]:
    """How far the probabilities can be believed, before and after the temperature, which was `fitted` on something."""
    measured = scores.calibration
    return [
        f"Brier score  {scores.brier:.4f}",
        f"calibration  error {measured.error:.2%} (bins of equal mass {measured.error_equal_mass:.2%}); "
        f"{measured.error_after:.2%} ({measured.error_equal_mass_after:.2%}) at the run's temperature "
        f"{measured.temperature:.2f}, which predict uses{fitted}",
    ]


def between(interval: tuple[float, float]) -> str:
    """`95 % interval 88.26% to 92.89%`."""
    return "95 % interval {:.2%} to {:.2%}".format(*interval)


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
    if None in (*scores.precision, *scores.per_class):
        text.append("  - : no image was taken for this class, or it has none here")
    return text


def confused_lines(scores: "Scores", limit: int = 5) -> list[str]:
    """The most frequent mistakes."""
    rows = [
        f"  {shortened(name)} taken for {shortened(other)}: {count} of {shortened(name)}'s images ({part:.1%})"
        for name, other, count, part in scores.most_confused(limit)
    ]
    return ["most confused", *rows] if rows else ["no mistakes"]


def write_predictions(predictions: "Predictions", path: Path, temperature: float) -> None:
    """One row per image as CSV, probabilities at this temperature; or the logits as npz."""
    if path.suffix.lower() == ".npz":
        predictions.save(path)
    else:
        predictions.save_csv(path, temperature)


def write_confusion(scores: "Scores", path: Path) -> None:
    """Counts as CSV with the classes in the first row and column, the same in parts of the class's images below, or a picture."""
    if path.suffix.lower() != ".csv":
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
