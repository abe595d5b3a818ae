"""Cut the embedded data set out of Fashion-MNIST: 600 training and 100 test images of each class, seeded.

    apt-get install dataset-fashion-mnist        (or any folder with the four published files)
    python scripts/make_fashion_mini.py [FOLDER]

The reader checks the SHA-256 of the unpacked files. Running it again gives the same file, byte for byte.
"""

import sys
import zipfile
from pathlib import Path

import numpy as np

from thumbnet.data.embedded import FILE
from thumbnet.data.idx import read_fashion_mnist

SEED = 20201201  # any fixed number; this one is part of the data set's definition
PER_CLASS = {"train": 600, "test": 100}


def chosen_rows(labels: np.ndarray, per_class: int, random: np.random.Generator) -> np.ndarray:
    """Row numbers of `per_class` images of every class, in random order."""
    members = [random.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    return random.permutation(np.concatenate(members))


def save_reproducibly(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """`np.savez_compressed` without the time stamps that would make every run's file differ."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/usr/share/datasets/fashion-mnist")
    pack = read_fashion_mnist(folder)
    random = np.random.default_rng(SEED)
    arrays = {"classes": np.array(pack.description["classes"])}
    for split, per_class in PER_CLASS.items():
        rows = chosen_rows(pack.arrays[f"{split}_labels"], per_class, random)
        arrays[f"{split}_images"] = pack.arrays[f"{split}_images"][rows]
        arrays[f"{split}_labels"] = pack.arrays[f"{split}_labels"][rows]
    save_reproducibly(FILE, arrays)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
