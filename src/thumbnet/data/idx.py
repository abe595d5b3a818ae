"""IDX files, the format of MNIST and its relatives, plain or gzipped; MNIST and Fashion-MNIST as they were published.

Format: http://yann.lecun.com/exdb/mnist/ (two zero bytes, one for the type, one for the number of dimensions, the sizes
as big-endian 32-bit integers, then the values). Fashion-MNIST: Xiao, Rasul and Vollgraf, arXiv 1708.07747,
https://github.com/zalandoresearch/fashion-mnist.
"""

import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.pack import Pack
from thumbnet.errors import UserError

UINT8_START = b"\x00\x00\x08"  # the format's code for unsigned bytes
LARGEST = 1 << 30  # bytes; the largest set in this format, EMNIST ByClass, has 550 million
PIECE = 1 << 20  # bytes read at a time, so that a header cannot reserve memory that the file does not fill
GZIP_START = b"\x1f\x8b"  # RFC 1952

Stream = IO[bytes] | gzip.GzipFile

# https://github.com/zalandoresearch/fashion-mnist#labels
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MNIST_CLASSES = tuple("0123456789")
# SHA-256 of the unpacked bytes: the archives are recompressed by some who pass them on, which changes their own sums.
MNIST_FILES = {
    "train_images": (
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train_labels": (
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "test_images": (
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "test_labels": (
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
FASHION_MNIST_FILES = {
    "train_images": (
        "train-images-idx3-ubyte",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train_labels": (
        "train-labels-idx1-ubyte",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "test_images": (
        "t10k-images-idx3-ubyte",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "test_labels": (
        "t10k-labels-idx1-ubyte",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an array of unsigned bytes of one to three dimensions, gzipped or not (told by content, not by name).

    Raises UserError where the file is missing, damaged, of another type, or not as long as its header says.
    """
    return _read(path)[0]


def read_fashion_mnist(folder: Path) -> Pack:
    """Read the four files of Fashion-MNIST, with or without `.gz`.

    The pack has `train_images` and `test_images`, uint8 N 1 28 28 (60,000 and 10,000), their labels, int64 N from 0 to
    9, and the names as `classes`. Raises UserError where a file is missing or its content is not the published one.
    """
    return _read_published(folder, "Fashion-MNIST", FASHION_MNIST_FILES, FASHION_MNIST_CLASSES)


def read_mnist(folder: Path) -> Pack:
    """Read the four files of MNIST, with or without `.gz`, as `read_fashion_mnist` does."""
    return _read_published(folder, "MNIST", MNIST_FILES, MNIST_CLASSES)


def has_labels_of(folder: Path, files: dict[str, tuple[str, str]]) -> bool:
    """Whether the training labels there are those of the set; where they cannot be read, its reader will tell."""
    name, expected = files["train_labels"]
    try:
        return _read(_find(folder, name, ""))[1] == expected
    except UserError:
        return True


def _read_published(folder: Path, title: str, files: dict[str, tuple[str, str]], classes: tuple[str, ...]) -> Pack:
    """The pack of four files, `files` giving the name and SHA-256 of each array's."""
    arrays: dict[str, NDArray[Any]] = {}
    for key, (name, expected) in files.items():
        path = _find(folder, name, title)
        values, received = _read(path)
        if received != expected:
            raise UserError(
                f"{path} is not the published {title}: unpacked SHA-256 {received}, expected {expected}; "
                "download it again, or name its folder as the data set if it is another one"
            )
        arrays[key] = values[:, np.newaxis] if key.endswith("images") else values.astype(np.int64)  # N H W -> N 1 H W
    return Pack(arrays, {"classes": list(classes)})


def _find(folder: Path, name: str, title: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder} lacks {name} (or {name}.gz); put the four files of {title} there")


def _read(path: Path) -> tuple[NDArray[np.uint8], str]:
    """The array, and the SHA-256 of the unpacked file."""
    try:
        with _unpacked(path) as file:
            header, shape = _header(path, file)
            expected = math.prod(shape)
            values = _at_most(file, expected + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"cannot read {path}: {error}; check that it exists and is whole, or get it again") from error
    if len(values) != expected:
        received = len(values) if len(values) < expected else "more"
        raise UserError(f"{path} announces {expected} values of shape {shape} and has {received}; get it again")
    digest = hashlib.sha256(header)
    digest.update(values)
    return np.frombuffer(values, np.uint8).reshape(shape), digest.hexdigest()


@contextmanager
def _unpacked(path: Path) -> Iterator[Stream]:
    with open(path, "rb") as file:
        is_packed = file.read(2) == GZIP_START
        file.seek(0)
        if not is_packed:
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked


def _header(path: Path, file: Stream) -> tuple[bytes, tuple[int, ...]]:
    """The header's bytes and the shape that they give."""
    start = file.read(4)
    if start[:3] != UINT8_START or start[3:] not in (b"\x01", b"\x02", b"\x03"):
        raise UserError(f"{path} is no IDX file of unsigned bytes with 1 to 3 dimensions: it starts with {start!r}")
    sizes = file.read(4 * start[3])
    if len(sizes) != 4 * start[3]:
        raise UserError(f"{path} ends within its header; get it again")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    if math.prod(shape) > LARGEST:
        raise UserError(f"{path} announces {math.prod(shape)} bytes, where at most {LARGEST} are read; get it again")
    return start + sizes, shape


def _at_most(file: Stream, count: int) -> bytearray:
    """Up to `count` bytes, fewer where the file ends."""
    values = bytearray()
    while len(values) < count and (piece := file.read(min(PIECE, count - len(values)))):
        values += piece
    return values
