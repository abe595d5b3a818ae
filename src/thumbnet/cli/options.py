"""Flags that several commands share. The recipe's flags and the machine's are read from their dataclasses."""

import dataclasses
import inspect
import json
import os
import sys
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, TextIO, get_origin

from cyclopts import Group, Parameter, Token

from thumbnet.errors import UserError
from thumbnet.files import is_written_into
from thumbnet.machine import Machine
from thumbnet.recipes.recipe import Recipe
from thumbnet.words import counted, visible_lines


def whole_number(kind: Any, tokens: Sequence[Token]) -> int:
    """Strict int: cyclopts would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


def by_word(read: Callable[[str], Any], kind: Any, tokens: Sequence[Token]) -> Any:
    """What `read` makes of the word."""
    return read(tokens[0].value)


def as_flag(field: "dataclasses.Field[Any]", group: Group) -> tuple[str, Any, None]:
    """One optional flag for a dataclass field, with the help that stands in the field; None means not given."""
    whole = field.type is int or field.type == int | None
    many = get_origin(field.type) is tuple
    read = field.metadata.get("read")
    parameter = Parameter(
        help=field.metadata.get("help", ""),
        group=group,
        converter=partial(by_word, read) if read else whole_number if whole else None,
        consume_multiple=many or None,
        negative_iterable=() if many else None,
        show_default=False,
    )
    return field.name, Annotated[field.type | None, parameter], None  # type: ignore[operator]


def flags_of(dataclass: type, group: Group, *, leave_out: Sequence[str] = ()) -> type:
    """A dataclass of optional flags, one for each field of `dataclass`."""
    rows = [as_flag(field, group) for field in dataclasses.fields(dataclass) if field.name not in leave_out]
    made = dataclasses.make_dataclass(f"{dataclass.__name__}Flags", rows, kw_only=True, frozen=True)
    made.__module__ = __name__  # cyclopts resolves the annotations in this module
    return types.new_class(made.__name__, (made,), {}, lambda body: body.update(__module__=__name__, __doc__=None))


RecipeFlags = flags_of(Recipe, Group("Recipe", sort_key=2), leave_out=("name",))
MachineFlags = flags_of(Machine, Group("Machine", sort_key=3))
MeasuringFlags = flags_of(
    Machine, Group("Machine", sort_key=3), leave_out=("checkpoint_seconds",)
)  # nothing is trained


@dataclasses.dataclass(kw_only=True, frozen=True)
class DataOptions:
    """Where data come from and how folders are read."""

    data_dir: Path | None = dataclasses.field(
        default=None, metadata={"help": "folder with the published files; else THUMBNET_DATA, else downloaded"}
    )
    image_size: int | None = dataclasses.field(
        default=None, metadata={"help": "folders: side in pixels that images are resized to (32)"}
    )
    skip_broken: bool | None = dataclasses.field(
        default=None, metadata={"help": "folders: count and list unreadable images instead of stopping"}
    )
    group_by: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "folders: keep images together in whose paths a regular expression finds the same, as B[0-9]+"
        },
    )
    columns: str | None = dataclasses.field(
        default=None,
        metadata={"help": "tables: titles for image, label, split or group, as label=species,group=bird_id"},
    )
    offline: bool | None = dataclasses.field(default=None, metadata={"help": "never open a network connection"})


DataFlags = flags_of(DataOptions, Group("Data", sort_key=4))
DecodingFlags = flags_of(DataOptions, Group("Data", sort_key=4), leave_out=("data_dir", "offline"))

Recipes = Annotated[RecipeFlags, Parameter(name="*")]  # type: ignore[valid-type]
Machines = Annotated[MachineFlags, Parameter(name="*")]  # type: ignore[valid-type]
Measuring = Annotated[MeasuringFlags, Parameter(name="*")]  # type: ignore[valid-type]
Data = Annotated[DataFlags, Parameter(name="*")]  # type: ignore[valid-type]
Decoding = Annotated[DecodingFlags, Parameter(name="*")]  # type: ignore[valid-type]
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="print one JSON object on stdout and nothing else there")
]
Whole = Annotated[int, Parameter(converter=whole_number)]


def described(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with each parameter's description in one line of its docstring: help keeps the lines it finds."""
    lines: list[str] = []
    for line in inspect.cleandoc(command.__doc__ or "").splitlines():
        goes_on = line.startswith("    ") and lines[-1].startswith("    ")
        lines[-1:] = [f"{lines[-1]} {line.strip()}"] if goes_on else [*lines[-1:], line]
    command.__doc__ = "\n".join(lines)
    return command


def given(flags: Any) -> dict[str, Any]:
    """The flags that were given, by name."""
    return {name: value for name, value in vars(flags).items() if value is not None}


def as_json(value: Any) -> str:
    """One JSON value as text. ASCII, since file names may hold bytes that are no text."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(as_json(value))


def show(told: Any, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print something for people; names within it tell a terminal nothing."""
    print(visible_lines(str(told)), file=file, flush=flush)


def note(told: str) -> None:
    """What a person should know beside the numbers, where it does not mix with them."""
    show(f"note: {told}", file=sys.stderr)


def tell_left_out(ignored: Sequence[Path], broken: Sequence[str], *, outside: str = "") -> None:
    """On stderr, what of a folder was no image by its name, and what could not be read."""
    from thumbnet.data.images import FORMATS_IN_WORDS

    if ignored:
        shown = ", ".join(map(str, ignored[:3])) + (", ..." if len(ignored) > 3 else "")
        show(
            f"ignored: {counted(len(ignored), 'file')}, no {FORMATS_IN_WORDS} by the name{outside}: {shown}",
            file=sys.stderr,
        )
    for complaint in broken:
        show(f"skipped: {complaint}", file=sys.stderr)


def check_positive(**counts: int | None) -> None:
    """Raise `UserError` for a count below 1; None is none."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{name.replace('_', '-')} is {value}; give 1 or more")


FIGURES = (".png", ".svg", ".pdf")  # what figures can be written as


def check_ending(option: str, path: Path | None, *endings: str) -> None:
    """Raise `UserError` for a file whose ending says nothing of how to write it, or the wrong thing."""
    if path is not None and path.suffix.lower() not in endings:
        *most, last = endings
        wanted = f"{', '.join(most)} or {last}" if most else last
        raise UserError(f"--{option} {path}: give a name that ends in {wanted}")


def check_writable(*paths: Path | None) -> None:
    """Raise `UserError` for a file that cannot be written, before work is done, or a test set opened, for it."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; give the name of a file")
        if is_written_into(path):  # a pipe cannot be tried without a reader
            if not os.access(path, os.W_OK):
                raise UserError(f"cannot write {path}: you lack the permission; choose another place")
            continue
        above = next(folder for folder in path.absolute().parents if folder.exists())
        try:
            with TemporaryFile(dir=above):  # who may write where is more than modes and owners say
                pass
        except OSError as error:
            raise UserError(f"cannot write {path}: {above}: {error.strerror}; choose another place") from error
