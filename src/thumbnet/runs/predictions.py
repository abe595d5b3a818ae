"""What a network said of every image of a split, kept so that every figure can be computed again without the network."""
# Shapes: N images, K classes.

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thumbnet.errors import UserError, first_line
from thumbnet.files import replacing, write_text
from thumbnet.reading import read_npz

LARGEST = 2 << 30  # bytes unpacked; a million images of a hundred classes have a fifth of it


@dataclass(frozen=True)
class Predictions:
    """Logits of a split with the labels, in its order."""

    split: str
    views: int
    classes: tuple[str, ...]
    fingerprint: str  # of the data set
    rows: Tensor  # int64 N: positions among the stored images of the split's file
    labels: Tensor  # int64 N
    logits: Tensor  # float32 N K
    files: tuple[str, ...] = ()  # N names, or none where the images did not come as files
    groups: Tensor | None = None  # int64 N: images of one number belong together; None where no groups were named

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """float64 N K, rows summing to 1."""
        return (self.logits.double() / temperature).softmax(1)

    def hits(self, guesses: int = 1) -> Tensor:
        """bool N: whether the class is among so many of the likeliest."""
        if guesses == 1:
            return self.logits.argmax(1) == self.labels
        likeliest = self.logits.topk(min(guesses, len(self.classes)), dim=1).indices  # N guesses
        return (likeliest == self.labels[:, None]).any(1)

    def commonest(self) -> tuple[str, float]:
        """The class of most images, and its part of them: what always answering it would be right for."""
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        return self.classes[int(counts.argmax())], counts.max().item() / len(self.labels)

    def same_images(self, other: "Predictions") -> bool:
        """True where both are of the same images of the same data, in the same order.

        Of validation images the fingerprint says nothing: it changes with test images that are added.
        """
        same_data = self.split == "validation" or self.fingerprint == other.fingerprint
        return (
            same_data
            and (self.split, self.classes) == (other.split, other.classes)
            and (torch.equal(self.rows, other.rows) and torch.equal(self.labels, other.labels))
        )

    def save(self, path: Path) -> None:
        """A NumPy archive of plain arrays: split, views, classes, fingerprint, rows, labels, logits, perhaps files and groups."""
        named: dict[str, Any] = {"files": np.array(self.files)} if self.files else {}
        named |= {} if self.groups is None else {"groups": self.groups.numpy()}
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                split=np.array(self.split),
                views=np.array(self.views),
                classes=np.array(self.classes),
                fingerprint=np.array(self.fingerprint),
                rows=self.rows.numpy(),
                labels=self.labels.numpy(),
                logits=self.logits.numpy(),
                **named,
            )

    def save_csv(self, path: Path, temperature: float = 1.0) -> None:
        """One row per image: its place among the stored images, class, predicted class, probability, right or not, file, group.

        The last two where they are known.
        """
        write_text(path, self.as_csv(temperature))

    def as_csv(self, temperature: float = 1.0) -> str:
        """The rows of `save_csv` as text; probabilities at `temperature`."""
        confidence, predicted = self.probabilities(temperature).max(1)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        extra = {"file": self.files or None, "group": None if self.groups is None else self.groups.tolist()}
        told = {name: column for name, column in extra.items() if column is not None}
        writer.writerow(["image", "class", "predicted", "probability", "correct", *told])
        names = list(zip(*told.values(), strict=True)) or [()] * len(self.rows)
        columns = (self.rows.tolist(), self.labels.tolist(), predicted.tolist(), confidence.tolist(), names)
        for row, label, guess, sure, name in zip(*columns, strict=True):
            writer.writerow([row, self.classes[label], self.classes[guess], f"{sure:.6f}", int(label == guess), *name])
        return text.getvalue()


def load_predictions(path: Path) -> Predictions:
    """Predictions that `save` wrote. Raises `UserError` where the file is none; it is read as data and can run nothing."""
    try:
        arrays, _ = read_npz(path, LARGEST)
        made = Predictions(
            split=str(arrays["split"]),
            views=int(arrays["views"]),
            classes=tuple(map(str, arrays["classes"])),
            fingerprint=str(arrays["fingerprint"]),
            rows=torch.from_numpy(arrays["rows"]),
            labels=torch.from_numpy(arrays["labels"]),
            logits=torch.from_numpy(arrays["logits"]),
            files=tuple(map(str, arrays.get("files", ()))),
            groups=torch.from_numpy(arrays["groups"]) if "groups" in arrays else None,
        )
    except Exception as error:  # arrays that are missing, or of types that do not convert
        raise UserError(f"{path} does not hold predictions: {first_line(error)}") from error
    counts = {len(made.labels), len(made.rows), len(made.files or made.labels)}
    counts.add(len(made.labels if made.groups is None else made.groups))
    if made.logits.shape != (len(made.labels), len(made.classes)) or len(counts) > 1:
        raise UserError(f"{path} does not hold predictions: its arrays do not fit together")
    if not made.logits.isfinite().all():
        raise UserError(f"{path} does not hold predictions: some of its logits are no finite numbers")
    if len(made.labels) and not 0 <= int(made.labels.min()) <= int(made.labels.max()) < len(made.classes):
        raise UserError(f"{path} does not hold predictions: its labels are beyond its classes")
    if made.groups is not None and (made.groups.dtype != torch.int64 or (made.groups < 0).any()):
        raise UserError(f"{path} does not hold predictions: its groups are no numbers from 0 on")
    return made
