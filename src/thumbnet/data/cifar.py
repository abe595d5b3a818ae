"""CIFAR-10 and CIFAR-100 from the files that their authors publish ("python version"), read without unpickling.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html
describes the layout: each file is a pickled dictionary whose `data` has a row of 3,072 bytes for each image, 1,024 red,
then green, then blue, each plane row by row from the top left. Sets in the same layout, such as ciFAIR or one's own
batches, may have other numbers of images. An archive is streamed: nothing is unpacked to the disk.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from thumbnet.data.inert_pickle import read_pickle
from thumbnet.data.pack import Pack
from thumbnet.errors import UserError

IMAGE = (3, 32, 32)  # channels, height, width; the layout's only size
ROW = 3 * 32 * 32
LARGEST_FILE = 512 << 20  # bytes; the largest published file, CIFAR-100's train, has 155 million
LARGEST_ARCHIVE = 1 << 30  # bytes unpacked; the published ones have 186 million
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)  # neither links nor files with holes, which unpack to any size
GZIP_START = b"\x1f\x8b"  # RFC 1952


@dataclass(frozen=True)
class Layout:
    """Which files make up a published set, and under which keys."""

    folder: str
    meta: str
    splits: dict[str, tuple[str, ...]]  # split -> its files
    labels: dict[str, tuple[str, str]]  # kind of label -> key in the batches, key of the names in the meta file

    @property
    def files(self) -> tuple[str, ...]:
        return (self.meta, *(name for names in self.splits.values() for name in names))


CIFAR10 = Layout(
    folder="cifar-10-batches-py",
    meta="batches.meta",
    splits={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
    labels={"": ("labels", "label_names")},
)
CIFAR100 = Layout(
    folder="cifar-100-python",
    meta="meta",
    splits={"train": ("train",), "test": ("test",)},
    labels={"": ("fine_labels", "fine_label_names"), "coarse_": ("coarse_labels", "coarse_label_names")},
)


def read_cifar10(source: Path) -> Pack:
    """Read CIFAR-10 from the folder `cifar-10-batches-py`, the folder that holds it, or the published `.tar.gz`.

    The pack has `train_images` and `test_images`, uint8 N 3 32 32 (50,000 and 10,000 as published), their labels, int64
    N from 0 to 9, and the names as `classes`. Raises UserError, naming the file, where one is missing or damaged.
    """
    return _read(source, CIFAR10)


def read_cifar100(source: Path) -> Pack:
    """Read CIFAR-100 from the folder `cifar-100-python`, the folder that holds it, or the published `.tar.gz`.

    As `read_cifar10`, with labels from 0 to 99; also `train_coarse_labels` and `test_coarse_labels`, int64 N from 0 to
    19, with their names as `coarse_classes`.
    """
    return _read(source, CIFAR100)


def _read(source: Path, layout: Layout) -> Pack:
    contents = {name: _content(f"{source}: {name}", data) for name, data in _files(source, layout)}
    missing = [name for name in layout.files if name not in contents]
    if missing:
        raise UserError(
            f"{source} lacks {', '.join(missing)}; a set consists of {', '.join(layout.files)} under these names, "
            f"so unpack the published archive of {layout.folder} again"
        )
    names = {kind: _names(contents[layout.meta], key) for kind, (_, key) in layout.labels.items()}
    arrays: dict[str, NDArray[Any]] = {}
    for split, files in layout.splits.items():
        arrays[f"{split}_images"] = np.concatenate([_images(contents[name]) for name in files])
        for kind, (key, _) in layout.labels.items():
            labels = [_labels(contents[name], key, len(names[kind])) for name in files]
            arrays[f"{split}_{kind}labels"] = np.concatenate(labels)
    return Pack(arrays, {f"{kind}classes": names[kind] for kind in layout.labels})


def _files(source: Path, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Those files of the layout that the source holds, as name and bytes."""
    if source.is_dir():
        inner = source / layout.folder
        return _from_folder(inner if inner.is_dir() else source, layout.files)
    if source.is_file():
        return _from_archive(source, layout)
    raise UserError(f"{source} does not exist; give the folder {layout.folder} or the archive it is published in")


def _from_folder(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for path in (folder / name for name in names):
        if path.is_file():
            try:
                _check_size(str(path), path.stat().st_size)
                yield path.name, path.read_bytes()
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}; check its permissions and the disk") from error


def _from_archive(path: Path, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """The named members only, plain files only, as the archive streams by; no path of the archive is ever used."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != GZIP_START:
                raise UserError(f"{path} is no .tar.gz archive; download it again, or unpack it and give the folder")
        with _CappedGzip(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            yield from _members(path, archive, layout)
            while unpacked.read(1 << 20):  # the rest, at whose end gzip compares its checksum
                pass
    except UserError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete ({error}); download it again") from error


def _members(path: Path, archive: tarfile.TarFile, layout: Layout) -> Iterator[tuple[str, bytes]]:
    wanted = {f"{layout.folder}/{name}": name for name in layout.files}
    for member in archive:
        name = wanted.pop(member.name.removeprefix("./"), None)
        if name is not None:
            content = archive.extractfile(member) if member.type in PLAIN and not member.issparse() else None
            if content is None:
                raise UserError(f"{path}: {name} is no plain file; download the archive again")
            _check_size(f"{path}: {name}", member.size)
            yield name, content.read()


class _CappedGzip(gzip.GzipFile):
    """A stream that ends in an error after LARGEST_ARCHIVE bytes, since a small gzip file can unpack to terabytes."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > LARGEST_ARCHIVE:
            raise UserError(f"{self.name} unpacks to over {LARGEST_ARCHIVE} bytes, unlike CIFAR; download it again")
        return super().read(size)


def _check_size(name: str, size: int) -> None:
    if size > LARGEST_FILE:
        raise UserError(
            f"{name} has {size} bytes, where at most {LARGEST_FILE} are read; split it into smaller batches"
        )


@dataclass(frozen=True)
class _Content:
    """The dictionary of one file, and the file's name for errors."""

    file: str
    values: dict[str, Any]

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(f"{self.file} {reason}")

    def value(self, key: str) -> Any:
        if key not in self.values:
            found = ", ".join(sorted(self.values))[:200]
            self.refuse(f"lacks the key {key!r}, it has {found!r}; is it a file of another set, or renamed?")
        return self.values[key]


def _content(file: str, data: bytes) -> _Content:
    """Keys are texts in Python 3's files and bytes in Python 2's; here texts."""
    values = read_pickle(data, file)
    if type(values) is not dict:
        raise UserError(f"{file} holds a {type(values).__name__}, expected a dictionary; get the published file again")
    return _Content(file, {key.decode("latin-1") if type(key) is bytes else key: values[key] for key in values})


def _names(content: _Content, key: str) -> list[str]:
    """The class names in label order."""
    names = content.value(key)
    if type(names) is not list or not names or not set(map(type, names)) <= {str, bytes}:
        content.refuse(f"has no list of names under {key!r}; get the published file again")
    texts = [text.decode("utf-8", "replace") if type(text) is bytes else text for text in names]
    if len(set(texts)) != len(texts):
        content.refuse(f"names a class twice under {key!r}; give each class its own name")
    return texts


def _images(content: _Content) -> NDArray[np.uint8]:
    """The rows of one batch as images, N 3 32 32, upright."""
    data = content.value("data")
    if type(data) is not np.ndarray or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != ROW:
        received = f"{data.dtype} of shape {data.shape}" if type(data) is np.ndarray else type(data).__name__
        content.refuse(f"has {received} as its data, expected uint8 rows of {ROW} (3 x 32 x 32); convert it to that")
    if len(data) == 0:
        content.refuse("has no images; get the published file again")
    return data.reshape(-1, *IMAGE)  # N 3072 -> N 3 32 32


def _labels(content: _Content, key: str, classes: int) -> NDArray[np.int64]:
    """The labels of one batch, int64 N, one for each image and each the index of a class name."""
    labels, images = content.value(key), len(content.value("data"))
    if type(labels) is np.ndarray and labels.ndim == 1:
        labels = labels.tolist()
    if type(labels) is not list or not set(map(type, labels)) <= {int}:
        content.refuse(f"has other things than whole numbers as {key!r}; write a list of label numbers")
    if len(labels) != images:
        content.refuse(f"has {len(labels)} {key!r} for {images} images; it may be damaged, so get it again")
    wrong = next((label for label in labels if not 0 <= label < classes), None)
    if wrong is not None:
        content.refuse(f"has the label {wrong} as {key!r}, expected 0 to {classes - 1}; is {key!r} of another set?")
    return np.array(labels, np.int64)
