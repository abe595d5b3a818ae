"""A classifier from wherever it was kept: a run folder, or an exported file."""

from pathlib import Path

from thumbnet.machine import Machine
from thumbnet.runs.run import Run
from thumbnet.shipping.classifier import Classifier
from thumbnet.shipping.exported import exported_file, load_exported


def load(run: "Run | str | Path", *, machine: Machine | None = None) -> Classifier:
    """The classifier of a finished run, or of a file FILE.onnx or a folder that `export` wrote.

    Raises `UserError` where there is none, or the run is unfinished.
    """
    if not isinstance(run, Run) and (file := exported_file(run)):
        return load_exported(file, machine=machine)
    from thumbnet.shipping.prediction import load_run

    return load_run(run if isinstance(run, Run) else Run.open(run), machine=machine)
