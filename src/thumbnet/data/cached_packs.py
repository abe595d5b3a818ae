"""The arrays of a data set from the cache, where they were converted before; else from its files, converted and kept."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cache import cache_folder
from thumbnet.data.arrays import array_files, read_arrays
from thumbnet.data.columns import is_table
from thumbnet.data.names import SPECS, location_of, short_name
from thumbnet.data.pack import Pack, read_pack, write_pack
from thumbnet.errors import UserError
from thumbnet.files import drop_leftovers
from thumbnet.locks import locked

if TYPE_CHECKING:
    from thumbnet.progress import Progress

CONVERTER = 1  # raise it when a reader changes what it returns, so that older packs are made anew
ARRAYS = 3  # the same of arrays; from 2 on with groups of training images, from 3 on of all


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


def load_pictures(
    path: Path, image_size: int, skip_broken: bool, group_by: str, columns: str, progress: "Progress | None"
) -> tuple[Pack, dict[str, Any]]:
    """The pack of a folder of images, or of a table that names some; converted again whenever one of the files changes."""
    from thumbnet.data import pictures
    from thumbnet.data.folder import list_folder
    from thumbnet.data.table import list_table

    pictures.check_size(image_size)
    listing = list_table(path, group_by, columns) if is_table(path) else list_folder(path, group_by)
    key = pictures.pictures_signature(listing, image_size, skip_broken=skip_broken)[:16]
    pack_path = pack_of(path, "folder", key)
    tell = partial(progress, f"reading images of {path}") if progress else None
    read = partial(pictures.read_pictures, listing, image_size=image_size, skip_broken=skip_broken, progress=tell)
    pack = cached_pack(pack_path, read, progress)
    return pack, {"location": str(location_of(path))} | kept(pack_path)


def load_arrays(path: Path, progress: "Progress | None") -> tuple[Pack, dict[str, Any]]:
    """The pack of an .npz file or a folder of IDX files; converted again whenever they change."""
    pack_path = pack_of(path, "arrays", signature(array_files(path)), version=ARRAYS)
    read = partial(report, progress, f"converting {path}", partial(read_arrays, path))
    pack = cached_pack(pack_path, read, progress)
    return pack, {"location": str(location_of(path))} | kept(pack_path)


def pack_of(path: Path, kind: str, key: str, version: int = CONVERTER) -> Path:
    """Where the cache keeps the pack of a path, `key` changing with its content."""
    label = "".join(letter if letter.isalnum() else "-" for letter in short_name(path))
    return cache_folder() / "packs" / f"{kind}-{label}-v{version}-{key}.safetensors"


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
