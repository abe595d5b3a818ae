"""The data set that comes with the package: 6,000 + 1,000 images of Fashion-MNIST (MIT licence, Zalando SE; see LICENSE)."""

from pathlib import Path

import numpy as np

from thumbnet.data.pack import Pack

FILE = Path(__file__).parent / "fashion-mini.npz"  # made by scripts/make_fashion_mini.py


def read_fashion_mini() -> Pack:
    """600 training and 100 test images of each of the ten classes, 1 x 28 x 28."""
    with np.load(FILE, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "classes"}
        return Pack(arrays, {"classes": [str(name) for name in stored["classes"]]})
