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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from thumbnet.cache import cache_folder, check_private
from thumbnet.errors import ThumbnetError, UserError
from thumbnet.files import make_folder, replacing, write_failed
from thumbnet.reading import read_bytes

# Half of a SHA-256; the name is one of a place, and no way out of the cache.
NAMED = re.compile(r"([^/\\\x00-\x1f]+\.py)@([0-9a-f]{32})")
SIGNATURES = {
    "network": "classes, channels", "optimizer": "model, recipe", "loss": "logits, targets", "augment": "images, random",
    "mix": "images, targets, random",
}  # fmt: skip
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
NO_MEMORY = "out of memory|not enough memory|can't allocate memory"  # torch has no error of its own for it on a CPU


# ---------------------------------------------------------------------------------------------- naming a file


def is_own(value: Any) -> bool:
    """Whether a recipe's value means a file of the user's own: a path to it, or its name and digest."""
    return isinstance(value, str) and (value.endswith(".py") or NAMED.fullmatch(value) is not None)


def by_content(value: str, functions: Sequence[str]) -> str:
    """`mine.py@DIGEST` for a path to a file that has one of `functions`; nothing in it is run.

    Raises `UserError` where it cannot be read, is no Python, or lacks them all.
    """
    if NAMED.fullmatch(value):
        return value
    source = read_source(Path(value).expanduser())
    there = names_in(source, value)
    if not there & set(functions):
        others = f"; it has {', '.join(sorted(there))}" if there else ""
        wanted = " or ".join(f"def {name}({SIGNATURES[name]})" for name in functions)
        raise UserError(f"{value} has no {wanted} at its top{others}")
    return f"{Path(value).name}@{digest_of(source)}"


def shown(value: str, *, exact: bool = False) -> str:
    """`mine.py` for what a recipe names by its content; `exact`: `mine.py@0a1b2c3d`, which tells versions of it apart."""
    name, digest = parts_of(value)
    return f"{name}@{digest[:8]}" if exact else name


def in_words(values: Iterable[str]) -> str:
    """`a.py and b.py`."""
    return " and ".join(sorted(set(map(shown, values))))


def parts_of(value: str) -> tuple[str, str]:
    """Name and digest."""
    named = NAMED.fullmatch(value)
    assert named is not None, value
    return named[1], named[2]


def read_source(path: Path) -> bytes:
    """What is in a file. Raises `UserError` where it cannot be read or is too large to be a program."""
    try:
        return read_bytes(path, LARGEST)
    except OSError as error:
        raise UserError(f"cannot read the Python file {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"cannot read the Python file {path}: {error}") from error


def digest_of(source: bytes) -> str:
    """32 hex digits."""
    return hashlib.sha256(source).hexdigest()[:32]


def names_in(source: bytes, path: str) -> set[str]:
    """What the top of a Python text defines, assigns or imports. Raises `UserError` where it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{path}{line}: {getattr(error, 'msg', error) or 'it is nested too deeply'}") from None
    names: set[str] = set()
    for node in statements(tree.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Those of a file's top, also under an `if`, `try` or `with` there."""
    for node in body:
        yield node
        is_main = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)  # what runs only as a program
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler) and not is_main:
            for part in ("body", "handlers", "orelse", "finalbody"):
                yield from statements(getattr(node, part, ()))


# ---------------------------------------------------------------------------------------------- who may run


def trust(path: str | Path) -> None:
    """Let a Python file run from now on, as it is now, wherever a recipe names it.

    Raises `UserError` where it cannot be read, or is no Python.
    """
    path = Path(path).expanduser()
    source = read_source(path)
    names_in(source, str(path))
    place = store() / digest_of(source) / path.name
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(place) as temporary:
            temporary.write_bytes(source)
            temporary.chmod(0o600)
    except OSError as error:
        raise write_failed(place, error) from error


def source_of(value: str) -> tuple[Path, bytes]:
    """Where the copy of what a recipe names lies, and its text. Raises `UserError` where nobody here has said that it may run."""
    name, digest = parts_of(value)
    place = next(iter(sorted((store() / digest).glob("*.py"))), None)  # whatever it was called then
    if place is None:
        trusted = store().is_dir() and any((folder / name).is_file() for folder in store().iterdir())
        other = f"; the {name} that you trusted has another text" if trusted else ""
        raise UserError(
            f"{name} ({digest[:8]}) is a program that was not run here before{other}; read it (a run folder keeps it in code/), "
            f"and if you trust it, add --trust code/{name} or wherever it lies, in Python thumbnet.trust(path)"
        )
    try:
        for path in (store(), place.parent, place):
            check_private(path)
        source = place.read_bytes()
    except OSError as error:
        raise UserError(
            f"{place} is not run: {error.strerror or error}; delete it, and name your file again"
        ) from error
    if digest_of(source) != digest:
        raise UserError(f"{place} was changed; delete it, and name your file again")
    return place, source


def check_trusted(values: Iterable[str]) -> None:
    """Raise `UserError` where one of the files that a recipe names may not run."""
    for value in values:
        source_of(value)


def store() -> Path:
    """The folder of all copies that may run; a folder for each, so that errors show the name that the user knows."""
    return cache_folder() / "code"


def keep_copies(values: Iterable[str], folder: Path) -> None:
    """Write the files that a recipe names into a folder, for people to read; nothing is ever run from there."""
    names = Counter(parts_of(value)[0] for value in set(values))
    for value in set(values):
        name, digest = parts_of(value)
        place = folder / name if names[name] == 1 else folder / digest[:8] / name
        make_folder(place.parent)
        with replacing(place) as temporary:
            temporary.write_bytes(source_of(value)[1])


def kept_in(folder: Path, values: Iterable[str]) -> list[tuple[Path, str]]:
    """Of the copies in a folder, those whose text is what the recipe names, each with it, in the order of their paths."""
    digests, found = {parts_of(value)[1] for value in values}, []
    for path in sorted(folder.rglob("*.py")):
        with suppress(OSError, ValueError):
            source = read_bytes(path, LARGEST)
            if digest_of(source) in digests:
                found.append((path, source.decode("utf-8", "replace")))
    return found


# ---------------------------------------------------------------------------------------------- running it


def has(value: str, name: str) -> bool:
    """Whether the file has something of this name. Raises `UserError` for code that is not trusted, or that fails."""
    return hasattr(module_of(value), name)


def call_own(value: str, name: str, *arguments: Any, own: Iterable[str] = (), **options: Any) -> Any:
    """What the file's function of this name gives; of the recipe's `own` values it gets those that it has parameters for.

    Raises `UserError` of one line for whatever goes wrong in it.
    """
    module = module_of(value)
    if not hasattr(module, name):
        raise UserError(
            f"{shown(value)} defines no {name} when it is run; does it stand under an if that does not hold?"
        )
    with in_one_line(f"{shown(value)}, {name}"):
        return getattr(module, name)(*arguments, **options, **values_for(value, name, own))


@cache
def module_of(value: str) -> ModuleType:
    """The file, run once in this process as a module of its own."""
    place, source = source_of(value)
    module = ModuleType(f"thumbnet_own_{digest_of(source)}")
    module.__file__ = str(place)
    module.__dict__["print"] = aside
    sys.modules[module.__name__] = module  # where dataclasses and pickles look for it
    try:
        with in_one_line(shown(value)):
            exec(compile(source, str(place), "exec"), module.__dict__)
    except SystemExit as error:
        del sys.modules[module.__name__]
        raise UserError(
            f"{shown(value)} ends the program when it is loaded, as sys.exit or argparse do; take that out"
        ) from error
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def aside(*values: Any, **options: Any) -> None:
    """`print` for the file, to stderr unless it says where: stdout is the command's, and may have to be one JSON object."""
    print(*values, **options | {"file": options.get("file") or sys.stderr})


def run_anew() -> None:
    """Let each file begin as in a fresh process when it is asked next."""
    module_of.cache_clear()


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


# ---------------------------------------------------------------------------------------------- values for its parameters


def as_own(value: Mapping[str, Any] | Iterable[str]) -> tuple[str, ...]:
    """`NAME=VALUE` of each, by name. Raises `UserError` for what is not that, and for what is no number, text, true or false."""
    if isinstance(value, Mapping):
        for name, given in value.items():
            if not isinstance(given, int | float | str):
                raise UserError(f"own {name} is {given!r}; give a number, a text, true or false")
        value = [f"{name}={str(given).lower() if isinstance(given, bool) else given}" for name, given in value.items()]
    items = tuple(map(str, value))
    names = [item.partition("=")[0] for item in items]
    for item, name in zip(items, names, strict=True):
        if not re.fullmatch(r"[^\W\d]\w*=.+", item):
            raise UserError(f"own is {item!r}; give NAME=VALUE, as in gamma=2.5")
        if name in ("widths", "depth", "dropout"):
            raise UserError(f"own {item}: give it by --{name}, a field of recipes")
        if name in GIVEN:
            raise UserError(f"own {item}: thumbnet gives {name} itself; call the parameter something else")
        if names.count(name) > 1:
            raise UserError(f"own gives {name} twice; leave one out")
    return tuple(sorted(items))


def values_of(own: Iterable[str]) -> dict[str, Any]:
    """`gamma=2.5` as {"gamma": 2.5}: a number, true or false where it is one, else a text."""
    return {key: number_or_text(text) for key, _, text in (item.partition("=") for item in own)}


def values_for(value: str, name: str, own: Iterable[str]) -> dict[str, Any]:
    """Those that the file's function of this name has parameters for."""
    there = parameters_of(getattr(module_of(value), name, None))
    return {key: given for key, given in values_of(own).items() if key in there}


def number_or_text(text: str) -> int | float | bool | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text.lower(), text)


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
        there |= {key for name in SIGNATURES if hasattr(module, name) for key in parameters_of(getattr(module, name))}
    for key in values_of(own):
        if key not in there:
            known = ", ".join(sorted(there)) or "none"
            raise UserError(f"own {key} is no parameter of a function of {in_words(files)}; these have {known}")


# ---------------------------------------------------------------------------------------------- what went wrong in it


@contextmanager
def in_one_line(where: str) -> Iterator[None]:
    """An error within as a `UserError`, with its line in a file of the user's, or where it has none, as of a call, `where`."""
    try:
        yield
    except ThumbnetError:
        raise
    except Exception as error:
        if lacks_memory(error):  # which is told with what to make smaller
            raise
        raise UserError(told_of(error, where)) from error


def told_of(error: Exception, where: str) -> str:
    """In one line."""
    return blame(error) or f"{where}: {of_one_line(error)}"


def blame(error: BaseException) -> str | None:
    """`mine.py, line 8, in forward: ValueError: ...` for an error that came by way of a file of the user's own, else None."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(store())
    ]
    if not frames:
        return None
    last = frames[-1]
    inside = "" if last.name == "<module>" else f", in {last.name}"
    return f"{Path(last.filename).name}, line {last.lineno}{inside}: {of_one_line(error)}"


def last_line_in_own_code(text: str) -> str | None:
    """`mine.py, line 8, in forward` of the last line of a traceback, as text, that lies in a file of the user's own."""
    found = re.findall(rf'File "{re.escape(str(store()))}/[0-9a-f]+/(.+)", line (\d+), in (.+)', text)
    return "{}, line {}, in {}".format(*found[-1]) if found else None


def of_one_line(error: BaseException) -> str:
    """`ValueError: its first line`."""
    told = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, ModuleNotFoundError):
        told += "; what is not installed as a package must stand in the file itself"
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


def lacks_memory(error: BaseException) -> bool:
    """Whether there was too little memory for what was asked."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(re.search(NO_MEMORY, str(error)))
    )
