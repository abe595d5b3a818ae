"""Images in, classes and probabilities out, prepared exactly as they were for training, whatever computes in between."""
# Shapes: N images, C channels, H and W height and width, K classes.

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thumbnet.data.images import decode_image
from thumbnet.data.labelled import called_by_numbers
from thumbnet.errors import UserError, unknown_name

if TYPE_CHECKING:
    from thumbnet.judging.evaluation import Scores
    from thumbnet.runs.predictions import Predictions

ImageSource: TypeAlias = str | Path | Image.Image


@dataclass(frozen=True)
class Prediction:
    """What one image is taken for: classes and their probabilities, likeliest first."""

    file: str
    ranking: tuple[tuple[str, float], ...]
    source: ImageSource | None = None  # the image itself, where it is not the file of that name
    sure: bool = True  # False where the probability is below what `predict --sure` asks for

    @property
    def label(self) -> str:
        return self.ranking[0][0]

    @property
    def probability(self) -> float:
        return self.ranking[0][1]


class Classifier(ABC):
    """What was trained, with scikit-learn's verbs. `classes` (and `classes_`) hold the names in the order of the columns.

    Probabilities are calibrated: the logits are divided by the temperature that was fitted on the validation images.
    """

    def __init__(self, classes: tuple[str, ...], channels: int, image_size: tuple[int, int], temperature: float = 1.0):
        self.classes = classes
        self.channels = channels
        self.image_size = image_size
        self.temperature = temperature

    def __repr__(self) -> str:
        size = "{} x {}".format(*self.image_size)
        return f"Classifier({len(self.classes)} classes, images of {size}, {self.computed_by()})"

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The names as scikit-learn's tools ask for them."""
        return np.array(self.classes)

    @abstractmethod
    def computed_by(self) -> str:
        """What computes, for people."""

    @abstractmethod
    def probabilities(self, pixels: NDArray[np.uint8], *, views: int | None = None) -> NDArray[np.float32]:
        """float32 N K for prepared images uint8 N C H W."""

    def logits(self, pixels: NDArray[np.uint8], *, views: int | None = None) -> NDArray[np.float32]:
        """float32 N K for prepared images uint8 N C H W, before the temperature divides them; each row up to a constant.

        From the probabilities here: those that fp32 cannot tell from 0 count as its smallest number, 1e-38.
        """
        found = np.maximum(self.probabilities(pixels, views=views), np.finfo(np.float32).tiny)
        return (self.temperature * np.log(found)).astype(np.float32)

    def views_taken(self, views: int | None) -> int:
        """How many views of an image are averaged where so many are asked for; None asks for one, or for those inside a file."""
        return views or 1

    def predict_proba(
        self, images: NDArray[np.uint8] | Sequence[ImageSource], *, views: int | None = None
    ) -> NDArray[np.float32]:
        """float32 N K, rows summing to 1.

        `images` is a uint8 array N H W 3 (or N H W for grey), or a sequence of paths or PIL images; what has another size
        or mode than the training images is converted as they were. `views` (1, 2 or 6) averages over mirrored and shifted
        copies; None means one view, or those that an exported file has inside, which takes no others.
        Raises `UserError` on files that are no images and on arrays of another type or shape.
        """
        pixels = self.prepare_images(images)
        if len(pixels) == 0:
            return np.zeros((0, len(self.classes)), np.float32)
        return self.probabilities(pixels, views=views)

    def predict(
        self, images: NDArray[np.uint8] | Sequence[ImageSource], *, views: int | None = None
    ) -> NDArray[np.str_]:
        """The name of the likeliest class of each image; takes what `predict_proba` takes."""
        return self.classes_[self.predict_proba(images, views=views).argmax(1)]

    def score(
        self,
        images: NDArray[np.uint8] | Sequence[ImageSource],
        labels: Sequence[str] | NDArray[Any],
        *,
        views: int | None = None,
    ) -> float:
        """Accuracy in [0, 1] against `labels`: names of classes, or their places in `classes`, of which none is a number then.

        Raises `UserError` where there are more or fewer labels than images, or a label is no class.
        """
        truth = self.places_of(np.asarray(labels))
        found = self.predict_proba(images, views=views).argmax(1)
        if len(truth) != len(found):
            raise UserError(f"{len(truth):,} labels for {len(found):,} images; give one for each")
        return float((found == truth).mean())

    def evaluate(
        self,
        images: NDArray[np.uint8] | Sequence[ImageSource],
        labels: Sequence[str] | NDArray[Any],
        *,
        views: int | None = None,
    ) -> "Scores":
        """All that `thumbnet.evaluate` measures, of images of your own; takes and raises what `score` does, and needs PyTorch.

        Classes without images among them are left out of balanced accuracy and macro F1.
        """
        from thumbnet.judging.evaluation import score_predictions

        truth, pixels = self.places_of(np.asarray(labels)), self.prepare_images(images)
        if len(truth) != len(pixels):
            raise UserError(f"{len(truth):,} labels for {len(pixels):,} images; give one for each")
        return score_predictions(self.answers(pixels, truth, views=views), temperature=self.temperature)

    def answers(
        self,
        pixels: NDArray[np.uint8],
        truth: NDArray[np.int64],
        *,
        files: Sequence[str] = (),
        views: int | None = None,
    ) -> "Predictions":
        """What is said of prepared images uint8 N C H W, beside the places N of their classes and perhaps their names."""
        import torch

        from thumbnet.data.pack import array_sha256, fingerprint
        from thumbnet.runs.predictions import Predictions

        logits = torch.from_numpy(self.logits(pixels, views=views))
        return Predictions(
            split="new",
            views=self.views_taken(views),
            classes=self.classes,
            fingerprint=fingerprint({"images": array_sha256(pixels), "labels": array_sha256(truth)}),
            rows=torch.arange(len(pixels)),
            labels=torch.from_numpy(truth),
            logits=logits,
            files=tuple(files),
        )

    def places_of(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Labels as places in `classes`."""
        if labels.ndim != 1 or len(labels) == 0:
            raise UserError(f"labels have the shape {labels.shape}; give one for each image")
        if labels.dtype.kind in "iu" and called_by_numbers(self.classes):
            labels = labels.astype(str)
        if labels.dtype.kind in "iu":
            if not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise UserError(
                    f"labels go from {labels.min()} to {labels.max()}; there are {len(self.classes)} classes"
                )
            return labels.astype(np.int64)
        places = {name: place for place, name in enumerate(self.classes)}
        if unknown := [label for label in labels.tolist() if label not in places]:
            raise unknown_name("class", str(unknown[0]), self.classes)
        return np.array([places[label] for label in labels.tolist()], np.int64)

    def prepare_images(self, images: NDArray[np.uint8] | Sequence[ImageSource]) -> NDArray[np.uint8]:
        """uint8 N C H W in the size and channels of the training images."""
        if isinstance(images, np.ndarray):
            if (
                images.dtype != np.uint8
                or images.ndim not in (3, 4)
                or (images.ndim == 4 and images.shape[3] not in (1, 3))
            ):
                raise UserError(f"images are {images.dtype} {images.shape}; give uint8 N H W 3, or N H W for grey")
            pixels = images[..., None] if images.ndim == 3 else images  # N H W C
            if pixels.shape[1:] == (*self.image_size, self.channels):
                return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
            if images.ndim == 3 and images.shape[2] in (1, 3):  # read as N H W, its rows would be images
                raise UserError(
                    f"images are uint8 {images.shape}, which looks like one image H W {images.shape[2]}; give an array of "
                    "images, for one image an array of one: image[None]"
                )
            images = [Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image) for image in images]
        elif isinstance(images, str | Path | Image.Image) or not isinstance(images, Sequence):
            raise UserError("give a sequence of images, for one image a list of one")
        if any(isinstance(image, np.ndarray) for image in images):
            raise UserError("a list holds arrays; give one array of all images, uint8 N H W 3, or N H W for grey")
        sources = [Path(image) if isinstance(image, str) else image for image in images]
        rows = [decode_image(source, channels=self.channels, size=self.image_size) for source in sources]
        return np.stack(rows) if rows else np.zeros((0, self.channels, *self.image_size), np.uint8)

    def rank(self, probabilities: NDArray[np.float32], top: int) -> tuple[tuple[str, float], ...]:
        """The `top` likeliest classes of one image's probabilities K, with them; all where there are fewer."""
        best = np.argsort(-probabilities, kind="stable")[:top]
        return tuple((self.classes[place], float(probabilities[place])) for place in best)


def predict_files(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    top: int = 1,
    views: int | None = None,
    sure: float = 0.0,
    skip_broken: bool = False,
) -> tuple[list[Prediction], list[str]]:
    """Predictions for image files, called by their paths, as `predict_images` gives them."""
    names = [str(file) for file in files]
    return predict_images(classifier, names, files, top=top, views=views, sure=sure, skip_broken=skip_broken)


def predict_images(
    classifier: Classifier,
    names: Sequence[str],
    images: Sequence[Path | Image.Image],
    *,
    top: int = 1,
    views: int | None = None,
    sure: float = 0.0,
    skip_broken: bool = False,
) -> tuple[list[Prediction], list[str]]:
    """Predictions for images that are called so, and the complaints about those that could not be read.

    Those with a probability below `sure` are marked. A file that cannot be read raises `UserError` naming it, unless
    `skip_broken`.
    """
    pixels, readable, broken = read_files(classifier, images, skip_broken=skip_broken)
    rankings = [classifier.rank(row, top) for row in classifier.probabilities(pixels, views=views)]
    predictions = [
        Prediction(
            names[place],
            ranking,
            source=None if names[place] == str(images[place]) else images[place],
            sure=ranking[0][1] >= sure,
        )
        for place, ranking in zip(readable, rankings, strict=True)
    ]
    return predictions, broken


def read_files(
    classifier: Classifier, files: Sequence[Path | Image.Image], *, skip_broken: bool = False
) -> tuple[NDArray[np.uint8], list[int], list[str]]:
    """Image files as the classifier takes them, uint8 N C H W; places of those that could be read; complaints on others."""
    pixels, readable, broken = [], [], []
    for place, file in enumerate(files):
        try:
            pixels.append(decode_image(file, channels=classifier.channels, size=classifier.image_size))
            readable.append(place)
        except UserError as error:
            if not skip_broken:
                raise UserError(f"{error}, or skip such files (--skip-broken)") from error
            broken.append(str(error))
    if not readable:
        raise UserError(f"none of the {len(files)} files could be read; the first complaint: {broken[0]}")
    return np.stack(pixels), readable, broken
