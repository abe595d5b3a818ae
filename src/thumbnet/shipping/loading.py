"""A classifier from wherever it was kept: a run folder, or an exported file."""

from pathlib import Path

from thumbnet.judging.thresholds import Threshold
from thumbnet.machine import Machine
from thumbnet.runs.run import Run
from thumbnet.shipping.classifier import Classifier
from thumbnet.shipping.exported import ExportedClassifier, exported_file, load_exported


def load(run: "Run | str | Path", *, machine: Machine | None = None) -> Classifier:
    """The classifier of a finished run, or of a file FILE.onnx or a folder that `export` wrote.

    Raises `UserError` where there is none, or the run is unfinished.
    """
    if not isinstance(run, Run) and (file := exported_file(run)):
        return load_exported(file, machine=machine)
    from thumbnet.shipping.prediction import load_run

    return load_run(run if isinstance(run, Run) else Run.open(run), machine=machine)


def sure_from(run: "Run | str | Path", classifier: Classifier, accuracy: float) -> Threshold:
    """The probability from which on answers were right in a part `accuracy` of the validation images, of a run or an export.

    Raises `UserError` where it is not known, or no answer was ever that sure with reason.
    """
    if isinstance(classifier, ExportedClassifier):
        return classifier.sure_from(accuracy)
    from thumbnet.shipping.prediction import sure_from as sure_of_run

    return sure_of_run(run if isinstance(run, Run) else Run.open(run), accuracy)
