"""Files that are either whole or absent: written beside their place, synced, then renamed. Pipes and devices are written into."""

import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from thumbnet.errors import ThumbnetError, UserError

LARGEST_JSON = 64 << 20  # bytes; ours have at most a few megabytes
LARGEST_TOML = 1 << 20  # bytes; a study of a thousand variants has a tenth of it
SEPARATORS = (",", ";", "\t")  # of a CSV file; spreadsheets write the second where numbers have decimal commas
LONGEST_LINE = 1 << 24  # letters of the first line of a CSV file; the titles of a million pixels
LARGEST_TABLE = 64 << 20  # bytes of a CSV file; the answers for a million images


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes `path` in one step, on failure nothing is left behind.

    A link gives way to the file, and what it pointed at stays as it was. A pipe or a device stays, and the bytes go into it.
    """
    try:
        with (feeding if is_written_into(path) else renaming)(path) as temporary:
            yield temporary
    except OSError as error:
        raise write_failed(path, error) from error


@contextmanager
def renaming(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path`.

    The temporary file lies in the same folder, since a rename is atomic only within one file system. File and folder
    are synced, so that after a power cut the old or the new content is there, never a part.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        make_folder(path.parent)
        create_anew(temporary)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):  # nothing was written, or it was renamed
            temporary.unlink()


@contextmanager
def feeding(path: Path) -> Iterator[Path]:
    """A temporary path, elsewhere, whose bytes go into `path`: in a pipe, writers of archives and pictures could not go back."""
    with TemporaryDirectory() as folder:
        temporary = Path(folder, "content")
        create_anew(temporary)
        yield temporary
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)  # append: where stdout goes, something may stand already
        with open(descriptor, "wb") as target, open(temporary, "rb") as source:
            shutil.copyfileobj(source, target)


def is_written_into(path: Path) -> bool:
    """Whether there is a pipe, a device, or the very file that this process prints to (/dev/stdout), maybe behind a link.

    Raises `UserError` for a disk as a whole.
    """
    try:
        found = path.stat()
    except OSError:  # nothing there; whatever else is wrong is told when it is written
        return False
    if stat.S_ISBLK(found.st_mode):
        raise UserError(f"cannot write {path}: it is a whole disk; give the name of a file")
    if stat.S_ISREG(found.st_mode):
        return is_printed_to(found)
    return not stat.S_ISDIR(found.st_mode)


def is_printed_to(found: os.stat_result) -> bool:
    """Whether a file is the one that stdout or stderr was redirected to."""
    for descriptor in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(found, os.fstat(descriptor)):
                return True
    return False


def create_anew(path: Path) -> None:
    """An empty file that was not there before: a leftover of that name goes, a link is not followed."""
    with suppress(FileNotFoundError):
        path.unlink()
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))


def drop_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed processes of this machine left of files that they were replacing."""
    for temporary in folder.glob(f".{name}.tmp-*"):
        number = temporary.name.rpartition("-")[2]
        if number.isdecimal() and not is_running(int(number)):
            with suppress(OSError):
                temporary.unlink()


def is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)  # asks, and does nothing
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing, so that they survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the file's whole content. Names in it that are no text are written as `words.printable` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Replace the file by one JSON value, indented for people. ASCII, since file names may hold bytes that are no text."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> None:
    """Replace the file by named arrays in the safetensors format, which can hold no code."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        try:
            save_file(
                {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()},
                temporary,
                metadata,
            )
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from error
        temporary.chmod(0o666 & ~umask())  # the library makes its files unreadable for others


def read_npz(
    path: Path, most: int, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The wanted arrays of a NumPy archive, of at most `most` bytes in all, and the names of the others.

    Objects are never made, so that nothing can run. Raises `ValueError` for whatever is no such archive.
    """
    try:
        with ZipFile(path) as members:
            sizes = [(info.filename.removesuffix(".npy"), info.file_size) for info in members.infolist()]
        if sum(size for name, size in sizes if wanted(name)) > most:
            raise ValueError(f"its arrays have more than the {most >> 20} MiB that are read")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: member(archive, name) for name in archive.files if wanted(name)}
    except OSError as error:
        raise ValueError(error.strerror or first_line(error)) from error
    except Exception as error:  # zipfile and numpy raise a dozen kinds for a damaged archive
        raise ValueError(first_line(error)) from error
    return arrays, [name for name, _ in sizes if not wanted(name)]


def member(archive: Mapping[str, Any], name: str) -> NDArray[Any]:
    """One array of a NumPy archive. Raises `ValueError` where it is none, or one of objects."""
    try:
        array = archive[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise ValueError(f"{name[:40]!r} holds Python objects, which could run code; store numbers or texts") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name[:40]!r} is no array of NumPy")
    return array


def cache_folder() -> Path:
    """THUMBNET_CACHE, else thumbnet's folder in the user's cache."""
    if chosen := os.environ.get("THUMBNET_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "thumbnet"


def check_private(path: Path) -> None:
    """Raise `OSError` where another user could have written what is about to run."""
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or stat.S_ISLNK(status.st_mode):
        raise OSError(f"{path} is not this user's alone")


def umask() -> int:
    """The permissions that new files of this process lack; there is no way to ask without setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def append_line(path: Path, line: str) -> None:
    """Add one line and sync it. A reader may meet a torn last line after a power cut, never a torn earlier one.

    A torn line that is there, from a power cut or a full disk, is removed first. A link is not followed. Processes that add lines
    to one file wait for each other.
    """
    try:
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with open(descriptor, "r+b") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise write_failed(path, error) from error


Fields = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)


def read_json(path: Path, fields: Fields | None = None) -> Any:
    """The one JSON value of a file; with `fields`, an object that has at least these, of these types.

    Raises `UserError` where it is missing, too large, no JSON, holds NaN, or is nested deeper than anything of ours.
    """
    try:
        return parse_json(read_text(path, LARGEST_JSON), fields)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from error


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table of a TOML file, `what` being its name in a message, as in "the study file".

    Raises `UserError` where it cannot be read, is too large, no TOML, or nested deeper than anything of ours.
    """
    try:
        return tomllib.loads(read_text(path, LARGEST_TOML))
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UserError(f"{what} {path} is nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{what} {path} is not TOML: {first_line(error)}") from error


def read_json_lines(path: Path, fields: Fields) -> list[Any]:
    """The objects of a file with one in each line. A last line torn by a power cut is left out; none where there is no file.

    Raises `UserError` for any other line that is no such object.
    """
    if not path.is_file():
        return []
    rows: list[Any] = []
    try:
        lines = read_text(path, LARGEST_JSON, errors="surrogateescape").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from error
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse_json(line, fields))
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UserError(f"{path} is damaged in line {number}: {first_line(error)}") from error
    return rows


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns that the first line of a CSV file names, and its rows, "" where one ends early; under None what is too much.

    Raises `UserError` where it cannot be read.
    """
    text = read_written(path, LARGEST_TABLE)
    try:
        lines = csv_lines(io.StringIO(text, newline=""))
        titles = next(lines, [])
        return titles, [as_row(titles, cells) for cells in lines if cells]
    except (csv.Error, ValueError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error


def as_row(titles: list[str], cells: list[str]) -> dict[str, str]:
    """The cells by their titles, as csv.DictReader gives them."""
    row = dict(zip(titles, cells + [""] * (len(titles) - len(cells)), strict=False))
    if len(cells) > len(titles):
        row[None] = ", ".join(cells[len(titles) :])  # type: ignore[index]
    return row


def csv_lines(file: TextIO) -> Iterator[list[str]]:
    """The cells of each line of a CSV file, the titles first. Its first line tells what stands between them: what it has most of.

    Raises `ValueError` where that line is too long to be one, and csv.Error for what cannot be read.
    """
    first = file.readline(LONGEST_LINE)
    if len(first) == LONGEST_LINE:
        raise ValueError(f"its first line has more than {LONGEST_LINE} letters")
    is_told = first[:4].casefold() == "sep="  # in which Excel tells itself what stands between columns
    separator = (first[4:5].strip() or "\t") if is_told else max(SEPARATORS, key=first.count)
    lines = chain([] if is_told else [first], file)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def read_written(path: Path, most: int) -> str:
    """The text of a file of at most so many bytes that a person wrote. Raises `UserError` where it cannot be read."""
    try:
        return read_text(path, most).removeprefix("\ufeff")  # with which Excel begins
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is no text in UTF-8; save it as such (in Excel: CSV UTF-8)") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error


def read_text(path: Path, most: int, errors: str = "strict") -> str:
    """The text of a regular file of at most so many bytes; others raise `ValueError` before they are read."""
    return read_bytes(path, most).decode("utf-8", errors)


def read_bytes(path: Path, most: int) -> bytes:
    """What is in it."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe would wait, a device never end
            raise ValueError("it is no regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def parse_json(text: str, fields: Fields | None = None) -> Any:
    """Strict JSON: no NaN, no number beyond a float's, no name twice. Raises `ValueError`."""
    try:
        value = json.loads(text, parse_constant=refuse_number, parse_float=finite, object_pairs_hook=without_twins)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value if fields is None else with_fields(value, fields)


def with_fields(value: Any, fields: Fields) -> dict[str, Any]:
    """The value, an object that has at least these fields, of these types. Raises `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    for name, types in fields.items():
        if name not in value:
            raise ValueError(f"it lacks {name!r}")
        if not isinstance(value[name], types) or (isinstance(value[name], bool) and not allows(types, bool)):
            raise ValueError(f"{name!r} is {str(value[name])[:40]!r}")
    return value


def allows(types: type | tuple[type, ...], wanted: type) -> bool:
    """Whether a type, or one of several, is the wanted one: `isinstance` takes True for an int."""
    return wanted in (types if isinstance(types, tuple) else (types,))


def refuse_number(text: str) -> float:
    """For what Python's JSON knows and JSON does not."""
    raise ValueError(f"{text} is no number of JSON")


def finite(text: str) -> float:
    """A float; 1e999 is none."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is too large")
    return value


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; two of one name mean that readers disagree on what it says."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("it has a name twice")
    return members


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut; does nothing where folders cannot be opened (Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_failed(path: Path, error: OSError) -> ThumbnetError:
    """The one-line error for a disk that is full, read-only or not ours."""
    reason = error.strerror or first_line(error)
    if not (is_full(error) or "space" in reason or "too large" in reason):  # a library's error has words, but no number
        return UserError(f"cannot write {path}: {reason}; choose another place and run again")
    with suppress(OSError):
        reason += f" ({shutil.disk_usage(path.parent).free:,} bytes are free there)"
    return UserError(f"cannot write {path}: {reason}; free some space and run again")


def is_full(error: OSError) -> bool:
    """Whether the disk, the user's share of it, or the largest size of a file is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
