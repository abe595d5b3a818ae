"""Data sets by name or path: where each comes from, its licence, and `load_dataset`, which finds, converts and maps it."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.data.arrays import array_files, holds_arrays, is_npz, read_arrays
from thumbnet.data.pack import LARGEST_SIDE, Pack, fingerprint, read_pack, write_pack
from thumbnet.errors import UserError, unknown_name
from thumbnet.files import cache_folder, drop_leftovers
from thumbnet.locks import locked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from thumbnet.data.batches import LockedSplit, Split
    from thumbnet.progress import Progress

# How folders of pictures are decoded where nothing else is said.
DECODING: dict[str, Any] = {"image_size": 32, "skip_broken": False}
CONVERTER = 1  # raise it when a reader changes what it returns, so that older packs are made anew


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a published data set before it is opened."""

    name: str
    title: str
    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    train: int  # images
    test: int
    licence: str
    homepage: str
    mirrored: bool = True  # whether a mirror image shows the same class


EMBEDDED = "fashion-mini"  # the one set that needs no files
FASHION_LICENCE = "MIT, Zalando SE"
FASHION_HOME = "https://github.com/zalandoresearch/fashion-mnist"
MNIST_LICENCE = "CC BY-SA 3.0, Yann LeCun and Corinna Cortes"
MNIST_HOME = "http://yann.lecun.com/exdb/mnist/"
CIFAR_LICENCE = "none stated; cite Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
SPECS = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            EMBEDDED,
            "7,000 images of Fashion-MNIST, embedded",
            (1, 28, 28),
            10,
            6_000,
            1_000,
            FASHION_LICENCE,
            FASHION_HOME,
        ),
        DatasetSpec("fashion-mnist", "Fashion-MNIST", (1, 28, 28), 10, 60_000, 10_000, FASHION_LICENCE, FASHION_HOME),
        DatasetSpec("mnist", "MNIST", (1, 28, 28), 10, 60_000, 10_000, MNIST_LICENCE, MNIST_HOME, mirrored=False),
        DatasetSpec("cifar10", "CIFAR-10", (3, 32, 32), 10, 50_000, 10_000, CIFAR_LICENCE, CIFAR_HOME),
        DatasetSpec("cifar100", "CIFAR-100, fine labels", (3, 32, 32), 100, 50_000, 10_000, CIFAR_LICENCE, CIFAR_HOME),
    )
}


@dataclass(frozen=True)
class Dataset:
    """A data set ready to train on. `test` is locked: `evaluate(..., split="test")` opens and counts it."""

    name: str  # as given to `load_dataset`, a path where it was one
    classes: tuple[str, ...]  # in label order
    train: "Split"
    validation: "Split | None"
    test: "LockedSplit | None"
    fingerprint: str  # 16 hex digits that change when any pixel or label does
    fingerprint_of_training: str  # the same of all but the test images
    facts: dict[str, Any]  # JSON: licence, where it lies, what was ignored ...
    development: "Split"  # the training images before any were held out
    own_validation: "Split | None"  # the validation split that the set brought along
    copies_together: bool = False  # whether equal images were kept on one side where the set was cut
    files: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # folders: names of the stored images by split, in row order

    def __repr__(self) -> str:
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(split):,} {part}" for part, split in parts.items() if split is not None)
        return f"Dataset({self.name!r}: {counts} images of {len(self.classes)} classes)"

    @property
    def channels(self) -> int:
        return self.development.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.development.images.shape[2:]
        return height, width

    @cached_property
    def copies(self) -> "Tensor | None":
        """Which training images are equal; None where none are, and for published sets, which are cut as they always were."""
        from thumbnet.data.batches import copies_of

        return None if self.name in SPECS else copies_of(self.development)

    def with_validation(
        self, fraction: float, *, seed: int, folds: int = 0, fold: int = 0, copies_together: bool = True
    ) -> "Dataset":
        """The same set with another part of its training images held out: `fraction`, or one of `folds` parts.

        Equal images are all held out or all trained on, except in published sets, which are cut as they always were, and where
        `copies_together` says that a run began before that was so. A set's own validation split is kept; it cannot be combined
        with folds.
        """
        from thumbnet.data.batches import fold_of, hold_out

        if folds and self.own_validation is not None:
            raise UserError(f"{self.name} brings its own validation images; folds are for sets that do not")
        copies_together = copies_together and self.name not in SPECS
        copies = self.copies if copies_together and (folds or fraction) and self.own_validation is None else None
        if self.own_validation is not None:
            return replace(self, train=self.development, validation=self.own_validation)
        if folds:
            train, held = fold_of(self.development, folds, fold, seed=seed, copies=copies)
        else:
            train, held = hold_out(self.development, fraction, seed=seed, copies=copies)
        made = replace(self, train=train, validation=held, copies_together=copies_together)
        if "copies" in vars(self):  # not to be looked for again in the same images
            vars(made)["copies"] = self.copies
        return made

    @property
    def notes(self) -> list[str]:
        """What a person should hear before training: whose files stand in for a published set, what was left out of a folder,
        classes with very few images.
        """
        from thumbnet.data.balance import counts_by_class, few_images
        from thumbnet.data.folder import left_out

        few = few_images(counts_by_class(self.development.labels.cpu().numpy(), self.classes), "train")
        origin = self.facts.get("converted_from")
        cached = f"no files of {self.name} were named or found; it is taken from the cache, converted from {origin}"
        return [
            *([cached] if origin and not is_download(origin) else []),
            *left_out(self.facts).values(),
            *([f"{few}; what is learnt of them is little"] if few else []),
        ]

    def files_of(self, split: str) -> Sequence[str]:
        """Names of the stored images that the rows of a split count; none where they did not come as files of their own."""
        is_cut = split == "validation" and self.own_validation is None
        return self.files.get("train" if is_cut else split, ())

    def in_memory(self) -> "Dataset":
        """The same set with its training and validation images read from disk now; else they are mapped."""
        return self.moved(lambda split: replace(split, images=split.images.clone()))

    def to(self, device: "torch.device") -> "Dataset":
        """The same set with its training and validation images on `device`."""
        return self.moved(lambda split: split.to(device))

    def moved(self, move: "Callable[[Split], Split]") -> "Dataset":
        """The same set with `move` applied to its images, once to each."""
        development = move(self.development)

        def of(split: "Split") -> "Split":
            shared = split.images is self.development.images
            return replace(development, rows=split.rows.to(development.rows.device)) if shared else move(split)

        return replace(
            self,
            train=of(self.train),
            validation=self.validation and of(self.validation),
            development=development,
            own_validation=self.own_validation and of(self.own_validation),
        )


def list_datasets() -> list[str]:
    """The names that `load_dataset` knows; it takes paths besides."""
    return list(SPECS)


def is_path(name: str) -> bool:
    """True where `name` means a path rather than a published set: `./x`, `a/b`, `x.npz`, or any existing folder."""
    return name not in SPECS and (os.sep in name or name.startswith(".") or is_npz(name) or exists(name))


def exists(name: str) -> bool:
    """Whether there is a folder or .npz file of this name; one that no file system could hold is none."""
    try:
        return Path(name).is_dir() or holds_arrays(Path(name))
    except OSError:  # too long
        return False


def comes_as_files(name: str) -> bool:
    """Whether this is a published set whose files lie in a `data_dir`."""
    return name in SPECS and name != EMBEDDED


def is_folder_of_pictures(name: str) -> bool:
    """Whether the files of this set are pictures, which are decoded and resized, rather than arrays."""
    return name not in SPECS and not holds_arrays(Path(name))


def decoding_of(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """How the folders of pictures among the named sets are to be decoded, without what is so anyway.

    Raises `UserError` for values that cannot be, and where none of the sets is such a folder.
    """
    chosen = {key: given.get(key, own) for key, own in DECODING.items()}
    size, skip_broken = chosen["image_size"], chosen["skip_broken"]
    if type(size) is not int or not 1 <= size <= LARGEST_SIDE:
        raise UserError(f"image_size is {size!r}; give a whole number of pixels from 1 to {LARGEST_SIDE}")
    if not isinstance(skip_broken, bool):
        raise UserError(f"skip_broken is {skip_broken!r}; give true or false")
    found = {key: value for key, value in chosen.items() if value != DECODING[key]}
    if found and not any(map(is_folder_of_pictures, names)):
        raise UserError(f"{next(iter(found))} is for folders of images, and none is trained on here; leave it out")
    return found


def short_name(name: str | Path) -> str:
    """What a data set is called in names of files and folders: its own name, or the last part of its path."""
    path = Path(name).resolve()
    return path.stem if is_npz(path) else path.name


def check_dataset_name(name: str) -> None:
    """Raise `UserError` where `name` is neither a known set nor a path that holds one."""
    if name in SPECS:
        return
    if not name:
        raise UserError("the data set has no name; give one of `thumbnet list datasets`, or a path")
    if not is_path(name):
        error = unknown_name("data set", name, SPECS)
        raise UserError(f"no folder {name!r} here, and {error}")
    if not exists(name):
        kind = "file" if is_npz(name) else "folder"
        raise UserError(
            f"there is no {kind} {name}; give a folder with one folder of images per class, or an .npz file of arrays"
        )


def load_dataset(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    validation: float = 0.1,
    seed: int = 0,
    image_size: int = 32,
    skip_broken: bool = False,
    offline: bool = False,
    progress: "Progress | None" = None,
) -> Dataset:
    """A published data set by name, a folder of images with one folder per class, or arrays (`read_arrays` in arrays.py).

    A `Path` is a path, whatever its name.

    The first use converts the files to a pack in the cache; later uses map it into memory. `data_dir` (or the variable
    THUMBNET_DATA) says where the published files lie; without it they are downloaded unless `offline`. `image_size` and
    `skip_broken` are for folders of images. `validation` and `seed` say what part of the training images is
    held out (`thumbnet.train` cuts anew, as its recipe says).
    Raises `UserError` on whatever the user can mend.
    """
    name = os.path.join(".", name) if isinstance(name, Path) and str(name) in SPECS else str(name)
    check_dataset_name(name)
    if name not in SPECS and data_dir is not None:
        raise UserError(f"data_dir {data_dir} is for published sets; {name} is a path, which is read where it is")
    if name == EMBEDDED and data_dir is not None:
        raise UserError(
            f"data_dir {data_dir} is for sets that come as files; {name} lies inside the package, leave it out"
        )
    are_pictures = is_folder_of_pictures(name)
    if not are_pictures and (image_size != 32 or skip_broken):
        given = "skip_broken is" if image_size == 32 else "image_size is"
        raise UserError(
            f"{given} for folders of images; {name} comes as it was {'published' if name in SPECS else 'stored'}"
        )
    if name == EMBEDDED:
        from thumbnet.data.embedded import read_fashion_mini

        pack, facts = read_fashion_mini(), {"location": "inside the package"}
    elif name in SPECS:
        pack, facts = load_published(name, None if data_dir is None else Path(data_dir), offline, progress)
    elif are_pictures:
        pack, facts = load_folder(Path(name), image_size, skip_broken, progress)
    else:
        pack, facts = load_arrays(Path(name), progress)
    return assemble(name, pack, facts).with_validation(validation, seed=seed)


def assemble(name: str, pack: Pack, facts: dict[str, Any]) -> Dataset:
    """A `Dataset` over the pack's arrays, all its training images in `train`."""
    import torch

    from thumbnet.data.batches import LockedSplit, whole
    from thumbnet.data.pack import array_sha256

    def split(part: str) -> "Split":
        return whole(torch.from_numpy(pack.arrays[f"{part}_images"]), torch.from_numpy(pack.arrays[f"{part}_labels"]))

    sums = pack.description.get("sha256") or {key: array_sha256(array) for key, array in pack.arrays.items()}
    spec = SPECS.get(name)
    about = {"licence": spec.licence, "homepage": spec.homepage} if spec else {"licence": "not known here"}
    kept_apart = ("classes", "sha256", "files", "converted_from", "named")
    described = {key: value for key, value in pack.description.items() if key not in kept_apart}
    has_test = "test_images" in pack.arrays
    return Dataset(
        name=name,
        classes=tuple(pack.description["classes"]),
        train=split("train"),
        validation=None,
        test=LockedSplit(len(pack.arrays["test_labels"]), lambda: split("test")) if has_test else None,
        fingerprint=fingerprint(sums),
        fingerprint_of_training=fingerprint({key: value for key, value in sums.items() if not key.startswith("test_")}),
        facts=about | described | facts,
        development=split("train"),
        own_validation=split("validation") if "validation_images" in pack.arrays else None,
        files=pack.description.get("files", {}),
    )


def load_published(
    name: str, data_dir: Path | None, offline: bool, progress: "Progress | None"
) -> tuple[Pack, dict[str, Any]]:
    """The pack of a published set and where it was found.

    Where no files are named or found, a set converted earlier is taken from the cache; only then is it downloaded. A pack
    remembers what it was converted from, and whether that was a folder of the user's, named for that one command.
    """
    from thumbnet.data import sources

    packs = cache_folder() / "packs"
    source = sources.find(name, data_dir)
    if source is None and (found := converted_before(name, packs)):
        return found
    source = source or sources.fetch(name, cache_folder() / "downloads", offline, progress)
    path = packs / f"{name}-v{CONVERTER}-{signature(source.files)}.safetensors"
    location = source.location.resolve()
    origin = {"converted_from": str(location), "named": data_dir is not None and not is_download(location)}

    def convert() -> Pack:
        pack = report(progress, f"converting {source.location}", source.read)
        return replace(pack, description=pack.description | origin)

    return cached_pack(path, convert, progress), {"location": str(source.location)} | kept(path)


def converted_before(name: str, packs: Path) -> tuple[Pack, dict[str, Any]] | None:
    """The newest pack of a published set that is complete; one of a folder named by --data-dir only where there is no other.

    Such a folder may hold another set in the same layout. A pack of an older version does not say what it was converted from.
    """
    spec, named = SPECS[name], None
    found = packs.glob(f"{name}-v{CONVERTER}-*.safetensors")
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        pack = read_pack(path)
        counts = [len(pack.arrays[f"{split}_labels"]) for split in ("train", "test")]
        if (counts, len(pack.description["classes"])) != ([spec.train, spec.test], spec.classes):
            continue
        facts = {"location": "the cache", "pack": str(path)}
        if origin := pack.description.get("converted_from"):
            facts |= {"location": f"the cache, converted from {origin}", "converted_from": origin}
        if not pack.description.get("named"):
            return pack, facts
        named = named or (pack, facts)
    return named


def is_download(location: str | Path) -> bool:
    """Whether files lie in the cache, where only downloads do."""
    return Path(location).is_relative_to(cache_folder().resolve())


def load_folder(
    folder: Path, image_size: int, skip_broken: bool, progress: "Progress | None"
) -> tuple[Pack, dict[str, Any]]:
    """The pack of a folder of images; converted again whenever a file in it changes."""
    from thumbnet.data.folder import folder_signature, read_folder

    key = folder_signature(folder, image_size, skip_broken=skip_broken)[:16]
    pack_path = pack_of(folder, "folder", key)
    tell = partial(progress, f"reading images of {folder}") if progress else None
    read = partial(read_folder, folder, image_size=image_size, skip_broken=skip_broken, progress=tell)
    pack = cached_pack(pack_path, read, progress)
    return pack, {"location": str(folder.resolve())} | kept(pack_path)


def load_arrays(path: Path, progress: "Progress | None") -> tuple[Pack, dict[str, Any]]:
    """The pack of an .npz file or a folder of IDX files; converted again whenever they change."""
    pack_path = pack_of(path, "arrays", signature(array_files(path)))
    read = partial(report, progress, f"converting {path}", partial(read_arrays, path))
    pack = cached_pack(pack_path, read, progress)
    return pack, {"location": str(path.resolve())} | kept(pack_path)


def pack_of(path: Path, kind: str, key: str) -> Path:
    """Where the cache keeps the pack of a path, `key` changing with its content."""
    label = "".join(letter if letter.isalnum() else "-" for letter in short_name(path))
    return cache_folder() / "packs" / f"{kind}-{label}-v{CONVERTER}-{key}.safetensors"


def cached_pack(path: Path, read: Callable[[], Pack], progress: "Progress | None") -> Pack:
    """The pack at `path`, made by `read` where it is absent. A cache that cannot be written costs time, not the run.

    Processes that want the same pack at once wait for the first, whatever becomes of it, and tell `progress` whom for.
    """
    if path.is_file():
        return read_pack(path)
    with converting(path, progress):
        if path.is_file():  # another process has made it meanwhile
            return read_pack(path)
        pack = read()
        try:
            write_pack(path, pack)
        except UserError:
            return pack
    return read_pack(path)


@contextmanager
def converting(path: Path, progress: "Progress | None") -> Iterator[None]:
    """One process at a time makes `path`; where the cache cannot be written to, each makes its own in memory."""

    def wait(owner: str) -> None:
        if progress:
            progress(f"waiting for {owner}, which converts the same images", 0, 1)

    with ExitStack() as stack:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), wait=wait))
            drop_leftovers(path.parent, path.name)
        yield


def kept(path: Path) -> dict[str, str]:
    """What to tell of a pack that could be written, or not."""
    return {"pack": str(path)} if path.is_file() else {"pack": f"not kept, since {path.parent} cannot be written to"}


def report(progress: "Progress | None", what: str, work: Callable[[], Pack]) -> Pack:
    """Run `work`, telling `progress` before and after."""
    if progress:
        progress(what, 0, 1)
    result = work()
    if progress:
        progress(what, 1, 1)
    return result


def signature(files: list[Path]) -> str:
    """16 hex digits that change when one of the files does: names, sizes and times, not contents."""
    rows = []
    for file in sorted(files):
        status = file.stat()
        rows.append((str(file.resolve()), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
