"""A Python file of the user's own, whose functions take the place of a recipe's network, optimiser, loss or augmentation.

A recipe names it by what is in it, `mine.py@DIGEST`, not by where it lies: another text is another recipe. It runs only where
somebody has said so, by typing its name or calling `trust`, which puts a copy into the user's cache; only copies there are ever
run. So a run folder or a file of options from somebody else can name code, and still runs none.
"""

import ast
import hashlib
import inspect
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from thumbnet.errors import ThumbnetError, UserError

NAMED = re.compile(
    r"([^/\\\0]+\.py)@([0-9a-f]{32})"
)  # half of a SHA-256; as the name of a place, no way out of the cache
FUNCTIONS = ("network", "optimizer", "loss", "augment", "mix")
# Parameters of theirs that get what thumbnet has.
GIVEN = {
    "classes",
    "channels",
    "widths",
    "depth",
    "dropout",
    "model",
    "recipe",
    "logits",
    "targets",
    "images",
    "random",
}
LARGEST = 2**20  # bytes; no file that a person wrote is larger


def is_own(value: Any) -> bool:
    """Whether a recipe's value means a file of the user's own: a path to it, or its name and digest."""
    return isinstance(value, str) and (value.endswith(".py") or NAMED.fullmatch(value) is not None)


def by_content(value: str, functions: Iterable[str]) -> str:
    """`mine.py@DIGEST` for a path to a file that has one of `functions`; nothing in it is run.

    Raises `UserError` where it cannot be read, is no Python, or lacks them all.
    """
    if NAMED.fullmatch(value):
        return value
    source = read_source(Path(value).expanduser())
    there = names_in(source, value)
    wanted = list(functions)
    if not there & set(wanted):
        others = f"; it has {', '.join(sorted(there))}" if there else ""
        raise UserError(f"{value} has no function named {' or '.join(wanted)}{others}")
    return f"{Path(value).name}@{digest_of(source)}"


def trust(path: str | Path) -> None:
    """Let a Python file run from now on, as it is now, wherever a recipe names it. Raises `UserError` where it cannot be read."""
    from thumbnet.files import make_folder, write_failed, write_text  # here: it imports numpy

    path = Path(path).expanduser()
    source = read_source(path)
    place = place_of(path.name, digest_of(source))
    try:
        make_folder(place.parent)
        write_text(place, source.decode())
    except OSError as error:
        raise write_failed(place, error) from error


def source_of(value: str) -> bytes:
    """The text of what a recipe names by its content. Raises `UserError` where nobody has said that it may run."""
    name, digest = parts_of(value)
    try:
        source = place_of(name, digest).read_bytes()
    except OSError:
        raise UserError(
            f"{name} ({digest[:8]}) is a program that was not run here before; read it (a run folder keeps it as code/{name}), "
            f"and if you trust it, add --trust and its path, in Python thumbnet.trust(path)"
        ) from None
    if digest_of(source) != digest:
        raise UserError(f"{place_of(name, digest)} was changed; delete it, and name your file again")
    return source


def check_trusted(values: Iterable[str]) -> None:
    """Raise `UserError` where one of the files that a recipe names may not run."""
    for value in values:
        source_of(value)


def has(value: str, name: str) -> bool:
    """Whether the file has something of this name. Raises `UserError` for code that is not trusted, or that fails."""
    return hasattr(module_of(value), name)


def call_own(value: str, name: str, *arguments: Any, own: Iterable[str] = (), **options: Any) -> Any:
    """What the file's function of this name gives; of the recipe's `own` values it gets those that it has parameters for.

    Raises `UserError` of one line for whatever goes wrong in it.
    """
    function = getattr(module_of(value), name)
    there = parameters_of(function)
    options |= {key: given for key, given in values_of(own).items() if key in there}
    with in_one_line(f"{shown(value)}, {name}"):
        return function(*arguments, **options)


def parameters_of(function: Any) -> set[str]:
    """The names of a function's or class's parameters that a recipe may give values for."""
    with suppress(TypeError, ValueError):  # nothing that can be called, or none of Python's
        return set(inspect.signature(function).parameters) - GIVEN
    return set()


def check_own_values(own: Iterable[str], files: Iterable[str]) -> None:
    """Raise `UserError` where none of the functions of these files has a parameter for one of the `own` values."""
    there = set()
    for value in files:
        module = module_of(value)
        there |= {key for name in FUNCTIONS if hasattr(module, name) for key in parameters_of(getattr(module, name))}
    for key in values_of(own):
        if key not in there:
            known = ", ".join(sorted(there)) or "nothing"
            raise UserError(
                f"own {key} is no parameter of a function of {' or '.join(map(shown, files))}; these take {known}"
            )


def values_of(own: Iterable[str]) -> dict[str, Any]:
    """`gamma=2.5` as {"gamma": 2.5}: a number where it is one, else a text."""
    return {key: number_or_text(text) for key, _, text in (item.partition("=") for item in own)}


def number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def check_own_form(own: Iterable[str]) -> None:
    """Raise `UserError` for what is not NAME=VALUE, for a name given twice, and for one that thumbnet gives itself."""
    names = [item.partition("=")[0] for item in own]
    for item, name in zip(own, names, strict=True):
        if not re.fullmatch(r"[^\W\d]\w*=.+", item):
            raise UserError(f"own is {item!r}; give NAME=VALUE, as in gamma=2.5")
        if name in GIVEN:
            raise UserError(f"own {item}: thumbnet gives {name} itself; call the parameter something else")
        if names.count(name) > 1:
            raise UserError(f"own gives {name} twice; leave one out")


@contextmanager
def in_one_line(where: str) -> Iterator[None]:
    """An error within as a `UserError`, with its line in a file of the user's, or where it has none, as of a call, `where`."""
    try:
        yield
    except ThumbnetError:
        raise
    except Exception as error:
        raise UserError(told_of(error, where)) from error


def told_of(error: Exception, where: str) -> str:
    """In one line."""
    return blame(error) or f"{where}: {of_one_line(error)}"


@cache
def module_of(value: str) -> ModuleType:
    """The file, run once in this process as a module of its own."""
    source, (name, digest) = source_of(value), parts_of(value)
    place = str(place_of(name, digest))
    module = ModuleType(f"thumbnet_own_{digest}")
    module.__file__ = place
    sys.modules[module.__name__] = module  # where dataclasses and pickles look for it
    try:
        with in_one_line(name):
            exec(compile(source, place, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def blame(error: BaseException) -> str | None:
    """`mine.py, line 8, in forward: ValueError: ...` for an error that came by way of a file of the user's own, else None."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_in_store(frame.filename)]
    if not frames:
        return None
    last = frames[-1]
    inside = "" if last.name == "<module>" else f", in {last.name}"
    return f"{Path(last.filename).name}, line {last.lineno}{inside}: {of_one_line(error)}"


def of_one_line(error: BaseException) -> str:
    """`ValueError: its first line`."""
    told = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


def shown(value: str, *, exact: bool = False) -> str:
    """`mine.py` for what a recipe names by its content; `exact`: `mine.py@0a1b2c3d`, which tells versions of it apart."""
    name, digest = parts_of(value)
    return f"{name}@{digest[:8]}" if exact else name


def in_usual_order(network: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hook of a network of the user's: images B C H W in torch's usual order, W next to each other in memory."""
    images = inputs[0].contiguous()
    return (
        images.flatten().view(images.shape),
        *inputs[1:],
    )  # of one channel, or one image, the order is told by strides alone


def is_in_usual_order(model: Any) -> bool:
    """Whether a network with that hook is in it, or is it."""
    return any(in_usual_order in module._forward_pre_hooks.values() for module in model.modules())


def keep_copies(values: Iterable[str], folder: Path) -> None:
    """Write the files that a recipe names into a folder, for people to read; nothing is ever run from there."""
    from thumbnet.files import make_folder, write_text

    names = Counter(parts_of(value)[0] for value in set(values))
    for value in set(values):
        name, digest = parts_of(value)
        make_folder(folder)
        write_text(folder / (name if names[name] == 1 else f"{digest[:8]}-{name}"), source_of(value).decode())


def parts_of(value: str) -> tuple[str, str]:
    """Name and digest."""
    named = NAMED.fullmatch(value)
    assert named is not None, value
    return named[1], named[2]


def place_of(name: str, digest: str) -> Path:
    """Where the copy is that may run. A folder for each: errors and warnings then show the name that the user knows."""
    return store() / digest / name


def store() -> Path:
    """The folder of all such copies."""
    from thumbnet.files import cache_folder

    return cache_folder() / "code"


def is_in_store(file: str) -> bool:
    """Whether a file is such a copy."""
    return Path(file).is_relative_to(store())


def read_source(path: Path) -> bytes:
    """What is in a file. Raises `UserError` where it cannot be read or is too large to be a program."""
    try:
        with open(path, "rb") as file:
            source = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read the Python file {path}: {error.strerror}") from error
    if len(source) > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} bytes; name a Python file that a person wrote")
    return source


def digest_of(source: bytes) -> str:
    """32 hex digits."""
    return hashlib.sha256(source).hexdigest()[:32]


def names_in(source: bytes, path: str) -> set[str]:
    """What the top of a Python text defines, assigns or imports. Raises `UserError` where it is no Python in UTF-8."""
    try:
        tree = ast.parse(source.decode())
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text in UTF-8; save it so") from None
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{path}{line}: {getattr(error, 'msg', error)}") from None
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names
