"""A pack: one data set converted once to one file that loads memory-mapped.

The file is safetensors (no code can hide in it), its metadata one JSON description. Readers of foreign formats
(`cifar.py`, `idx.py`, `folder.py`) return a `Pack`; `cached_packs.py` keeps it in the cache.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.errors import UserError
from thumbnet.files import write_arrays
from thumbnet.reading import parse_json

FORMAT = "thumbnet-pack-1"
MOST_CLASSES, LARGEST_SIDE = 100_000, 4096  # far beyond small images; more is a damaged file
LARGEST_ARRAYS = 4 << 30  # bytes of all images of a file; PathMNIST in 64 x 64 pixels has 1.3 thousand million
# What splits are called, in any letters, by those who make data sets; `training` and `testing` where MNIST is unpacked to files.
SPLIT_OF_NAME = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

SPLITS = tuple(dict.fromkeys(SPLIT_OF_NAME.values()))  # train first, as its classes are the measure for the others

IN_WORDS = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Pack:
    """The arrays of a data set and what is known about them.

    `arrays` holds, for each split present (`train`, perhaps `validation` and `test`), `<split>_images` uint8 N C H W and
    `<split>_labels` int64 N; further arrays of N rows, such as `train_coarse_labels`, are kept. `description` is plain
    JSON: at least `classes`, the class names in label order.
    """

    arrays: dict[str, NDArray[Any]]
    description: dict[str, Any]


def write_pack(path: Path, pack: Pack) -> None:
    """Write the pack and read it back. Raises `UserError` where it cannot be written or does not come back as it was."""
    sums = {name: array_sha256(array) for name, array in pack.arrays.items()}
    description = pack.description | {"sha256": sums}
    metadata = {"format": FORMAT, "description": json.dumps(description)}
    write_arrays(path, pack.arrays, metadata)
    try:
        verify_pack(path)
    except UserError:
        path.unlink(missing_ok=True)
        raise


def read_pack(path: Path) -> Pack:
    """The pack in a file, its arrays mapped into memory rather than read. Raises `UserError` if it is none of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(f"{path} is not a {FORMAT} file; delete it and run again, it will be made anew")
            arrays = {name: stored.get_tensor(name).numpy() for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a type that numpy lacks
        raise UserError(f"{path} cannot be read ({error}); delete it and run again, it will be made anew") from error
    try:
        description = parse_json(metadata.get("description", ""), {"classes": list, "sha256": dict})
        check_arrays(arrays, description)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again, it will be made anew") from error
    return Pack(arrays, description)


def check_arrays(arrays: dict[str, NDArray[Any]], description: dict[str, Any]) -> None:
    """Raise `ValueError` unless every split has images uint8 N C H W, labels int64 N of its classes, perhaps groups int64 N."""
    splits = [name.removesuffix("_images") for name in arrays if name.endswith("_images")]
    if "train" not in splits:
        raise ValueError("it has no training images")
    for split in splits:
        images, labels = arrays[f"{split}_images"], arrays.get(f"{split}_labels", np.zeros(0))
        if (images.dtype, images.ndim, labels.dtype, labels.shape) != (np.uint8, 4, np.int64, images.shape[:1]):
            raise ValueError(f"its {split} images and labels do not fit together")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(description["classes"]):
            raise ValueError(f"its {split} labels are beyond its classes")
        groups = arrays.get(f"{split}_groups", labels)
        if (groups.dtype, groups.shape) != (np.int64, labels.shape):
            raise ValueError(f"its {split} images and groups do not fit together")
    if description["sha256"].keys() != arrays.keys():
        raise ValueError("its checksums are of other arrays")


def verify_pack(path: Path) -> None:
    """Recompute every checksum; raises `UserError` naming the first array that is not what was written."""
    pack = read_pack(path)
    for name, expected in pack.description["sha256"].items():
        received = array_sha256(pack.arrays[name])
        if received != expected:
            raise UserError(
                f"{path}: {name} has SHA-256 {received}, expected {expected}; delete the file and run again"
            )


def array_sha256(array: NDArray[Any]) -> str:
    """Hex SHA-256 of shape, type and bytes."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint(sums: dict[str, str]) -> str:
    """One short name (16 hex digits) for a whole data set, from the checksums of its arrays."""
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()[:16]
