"""thumbnet trains, judges and ships classifiers of small images.

    data = thumbnet.load_dataset("fashion-mini")
    run = thumbnet.train(thumbnet.recipe("general"), data, out="runs/first")
    scores = thumbnet.evaluate(run, split="validation")
    classifier = thumbnet.load(run)
    thumbnet.export(run, "model.onnx")

The names below are loaded when first used, so that importing thumbnet costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset as Dataset
    from thumbnet.data.datasets import load_dataset as load_dataset
    from thumbnet.data.names import list_datasets as list_datasets
    from thumbnet.errors import Interrupted as Interrupted
    from thumbnet.errors import ThumbnetError as ThumbnetError
    from thumbnet.errors import TrainingFailed as TrainingFailed
    from thumbnet.errors import UserError as UserError
    from thumbnet.judging.answers import evaluate_answers as evaluate_answers
    from thumbnet.judging.comparison import Comparison as Comparison
    from thumbnet.judging.comparison import compare as compare
    from thumbnet.judging.evaluation import Scores as Scores
    from thumbnet.judging.evaluation import evaluate as evaluate
    from thumbnet.judging.image_by_image import AnswersComparison as AnswersComparison
    from thumbnet.judging.image_by_image import compare_answers as compare_answers
    from thumbnet.judging.robustness import Robustness as Robustness
    from thumbnet.judging.robustness import evaluate_robustness as evaluate_robustness
    from thumbnet.machine import Machine as Machine
    from thumbnet.models.registry import create_model as create_model
    from thumbnet.models.registry import list_models as list_models
    from thumbnet.own_code import trust as trust
    from thumbnet.recipes import Recipe as Recipe
    from thumbnet.recipes import list_recipes as list_recipes
    from thumbnet.recipes import recipe as recipe
    from thumbnet.runs.run import Run as Run
    from thumbnet.shipping.bundle.folder import export as export
    from thumbnet.shipping.classifier import Classifier as Classifier
    from thumbnet.shipping.exporting import Receipt as Receipt
    from thumbnet.shipping.loading import load as load
    from thumbnet.shipping.serving import serve as serve
    from thumbnet.training.loop import train as train

HOME_OF = {
    "AnswersComparison": "thumbnet.judging.image_by_image",
    "Classifier": "thumbnet.shipping.classifier",
    "Comparison": "thumbnet.judging.comparison",
    "Dataset": "thumbnet.data.datasets",
    "Interrupted": "thumbnet.errors",
    "Machine": "thumbnet.machine",
    "Receipt": "thumbnet.shipping.exporting",
    "Recipe": "thumbnet.recipes",
    "Robustness": "thumbnet.judging.robustness",
    "Run": "thumbnet.runs.run",
    "Scores": "thumbnet.judging.evaluation",
    "ThumbnetError": "thumbnet.errors",
    "TrainingFailed": "thumbnet.errors",
    "UserError": "thumbnet.errors",
    "compare": "thumbnet.judging.comparison",
    "compare_answers": "thumbnet.judging.image_by_image",
    "create_model": "thumbnet.models.registry",
    "evaluate": "thumbnet.judging.evaluation",
    "evaluate_answers": "thumbnet.judging.answers",
    "evaluate_robustness": "thumbnet.judging.robustness",
    "export": "thumbnet.shipping.bundle.folder",
    "list_datasets": "thumbnet.data.names",
    "list_models": "thumbnet.models.registry",
    "list_recipes": "thumbnet.recipes",
    "load": "thumbnet.shipping.loading",
    "load_dataset": "thumbnet.data.datasets",
    "recipe": "thumbnet.recipes",
    "serve": "thumbnet.shipping.serving",
    "train": "thumbnet.training.loop",
    "trust": "thumbnet.own_code",
}

__all__ = list(HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("thumbnet")
    if name not in HOME_OF:
        raise AttributeError(f"module 'thumbnet' has no attribute {name!r}")
    return getattr(importlib.import_module(HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOME_OF})
