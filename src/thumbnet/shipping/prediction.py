"""The classifier that computes with a run's network."""
# Shapes: N images, C channels, H and W height and width, K classes.

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.backend import Backend, place, prepare
from thumbnet.data.batches import whole
from thumbnet.errors import UserError
from thumbnet.judging.calibration import confidence_and_hits, threshold_for
from thumbnet.judging.evaluation import check_views, predict_logits
from thumbnet.judging.thresholds import Threshold
from thumbnet.machine import Machine
from thumbnet.runs.run import Run
from thumbnet.shipping.classifier import Classifier

if TYPE_CHECKING:
    from torch import nn


class NetworkClassifier(Classifier):
    """The network of a finished run on a machine made ready."""

    def __init__(
        self,
        model: "nn.Module",
        classes: tuple[str, ...],
        channels: int,
        image_size: tuple[int, int],
        backend: Backend,
        *,
        temperature: float = 1.0,
        mirrored: bool = True,
    ):
        super().__init__(classes, channels, image_size, temperature)
        self.model = model
        self.backend = backend
        self.mirrored = mirrored  # in training

    def computed_by(self) -> str:
        return self.backend.describe()

    def probabilities(self, pixels: NDArray[np.uint8], *, views: int | None = None) -> NDArray[np.float32]:
        return (torch.from_numpy(self.logits(pixels, views=views)) / self.temperature).softmax(1).numpy()

    def logits(self, pixels: NDArray[np.uint8], *, views: int | None = None) -> NDArray[np.float32]:
        taken = self.views_taken(views)
        check_views(taken, mirrored=self.mirrored)
        split = whole(torch.from_numpy(pixels), torch.zeros(len(pixels), dtype=torch.int64)).to(self.backend.device)
        return predict_logits(self.model, split, self.backend, views=taken).numpy()


def load_run(run: Run, *, machine: Machine | None = None) -> NetworkClassifier:
    """The classifier of a finished run. Raises `UserError` where it is unfinished."""
    backend = prepare(run.machine_to_measure(machine or Machine()))
    model = place(run.model(), backend.device)
    size = (run.data["image_size"][0], run.data["image_size"][1])
    return NetworkClassifier(
        model, run.classes, run.data["channels"], size, backend,
        temperature=run.temperature, mirrored=run.recipe.flip,
    )  # fmt: skip


def sure_from(run: Run, accuracy: float) -> Threshold:
    """The probability from which on answers were right in a part `accuracy` of the run's validation images.

    Raises `UserError` where the run kept no predictions of such images, or was never that sure with reason.
    """
    if not 0 < accuracy < 1:
        raise UserError(f"sure is {accuracy:g}; give the accuracy wanted of the answers, above 0 and below 1")
    kept = run.predictions("validation")
    answers = confidence_and_hits(kept.logits.double() / run.temperature, kept.labels)
    found = threshold_for(*answers, accuracy, kept.groups)
    if found is None:
        raise UserError(
            f"{run.path} never reached {accuracy:.1%} on its validation images, however sure it was; ask for less"
        )
    return found
