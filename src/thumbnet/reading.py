"""Files that somebody wrote, read strictly: no more bytes than are due, nothing that could run, and faults in one line."""

import csv
import hashlib
import io
import json
import math
import os
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from thumbnet.errors import UserError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_JSON = 64 << 20  # bytes; ours have at most a few megabytes
LARGEST_TOML = 1 << 20  # bytes; a study of a thousand variants has a tenth of it
SEPARATORS = (",", ";", "\t")  # of a CSV file; spreadsheets write the second where numbers have decimal commas
LONGEST_LINE = 1 << 24  # letters of the first line of a CSV file; the titles of a million pixels
LARGEST_TABLE = 64 << 20  # bytes of a CSV file; the answers for a million images
Fields = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)


def read_bytes(path: Path, most: int) -> bytes:
    """What is in a regular file of at most so many bytes. Raises `ValueError` for others, before they are read."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe would wait, a device never end
            raise ValueError("it is no regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def read_text(path: Path, most: int, errors: str = "strict") -> str:
    """The same as text."""
    return read_bytes(path, most).decode("utf-8", errors)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong within, where a text is read line by line, as a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is no text in UTF-8; save it as such (in Excel: CSV UTF-8)") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error


def read_written(path: Path, most: int) -> str:
    """The text of a file of at most so many bytes that a person wrote. Raises `UserError` where it cannot be read."""
    with reading(path):
        return read_text(path, most).removeprefix("\ufeff")  # with which Excel begins


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


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns that the first line of a CSV file names, and its rows, "" where one ends early; under None what is too much.

    Raises `UserError` where it cannot be read.
    """
    with reading(path):
        lines = csv_lines(io.StringIO(read_written(path, LARGEST_TABLE), newline=""))
        titles = next(lines, [])
        return titles, [as_row(titles, cells) for cells in lines if cells]


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


def read_npz(
    path: Path, most: int, wanted: Callable[[str], bool] = lambda name: True
) -> "tuple[dict[str, NDArray[Any]], list[str]]":
    """The wanted arrays of a NumPy archive, of at most `most` bytes in all, and the names of the others.

    Objects are never made, so that nothing can run. Raises `ValueError` for whatever is no such archive.
    """
    from zipfile import ZipFile

    import numpy as np

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


def member(archive: Mapping[str, Any], name: str) -> "NDArray[Any]":
    """One array of a NumPy archive. Raises `ValueError` where it is none, or one of objects."""
    import numpy as np

    try:
        array = archive[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise ValueError(f"{name[:40]!r} holds Python objects, which could run code; store numbers or texts") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name[:40]!r} is no array of NumPy")
    return array


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
