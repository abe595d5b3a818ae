"""Read the data of a pickle without unpickling it: no name in the file is ever imported, looked up or called.

CIFAR is published as pickles, and a pickle is a program that may run any command. This reader interprets the few
opcodes that a dictionary of arrays, lists and texts needs, and refuses all others. Names such as `numpy.ndarray` become
inert `Name` records; arrays are views of the file's own bytes. Nothing is allocated before its bytes have been seen,
so a short file cannot ask for much memory. Opcodes: `pickletools` in Python's standard library, which documents each.
Array, dtype and scalar records: `__reduce__` in numpy's `multiarray`, versions 1 and 2, Python 2 and 3.
"""

import math
import pickletools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from thumbnet.errors import UserError

# An opcode may create an object of up to 232 bytes (a dict of one item, CPython 3.11). A batch needs under ten opcodes
# for an image of 3,072 bytes, so one for 64 bytes is ample, and memory stays within a few times the file's size.
FREE_OPCODES, BYTES_PER_OPCODE = 100_000, 64
LONGEST_TUPLE = 16  # tuples are arguments and shapes only; numpy's records have up to 9 items
LONGEST_NUMBER = 20  # decimal digits with sign of a 64-bit integer

# Everything that numpy writes for arrays, dtypes and scalars, and Python 3 for bytes in protocols 0 to 2.
NAMES = {
    "_codecs encode": "encode",
    "__builtin__ bytes": "empty",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    **{f"numpy.{core}.multiarray _reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": "frombuffer" for core in ("core", "_core")},
}
DTYPES = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9]\d{0,3}")  # no objects, no structures, no dates
PYTHON_2_TEXT = re.compile(rb"(?:[^\\]|\\x[0-9a-fA-F]{2}|\\[\\'\"nrt])*+")  # the escapes that Python 2's repr writes

LEAVES = {bytes, str, int, float, bool, type(None)}  # what a list may hold
VALUES = LEAVES | {list, np.ndarray}  # what a dictionary may hold


def read_pickle(data: bytes, source: str) -> Any:
    """The one value in `data`: a dict, list, array, text, bytes or number; `source` names the file in errors.

    Dictionaries have text or bytes keys and hold lists, arrays and plain values; lists hold plain values. Arrays are
    read-only views. Python 2's `str` is given as bytes. Raises UserError for anything else, damaged files included.
    """
    reader = _Reader(data, source)
    try:
        return reader.run()
    except UserError:
        raise
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
        reader.refuse(f"it is damaged at byte {reader.position} ({type(error).__name__})")


@dataclass(frozen=True)
class Name:
    """A name that the file mentions; a mere label, never resolved."""

    role: str


@dataclass
class Unbuilt:
    """An array or dtype between its REDUCE and its BUILD; `built` is the finished value, for later mentions."""

    role: str
    code: str = ""
    built: Any = None


@dataclass
class _Reader:
    """The pickle machine: a stack, marks (heights of that stack) and a memo of values mentioned again."""

    data: bytes
    source: str
    position: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    copied: int = 0

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(
            f"{self.source} is not read: {reason}; thumbnet reads pickles of plain arrays, lists and texts only, "
            "so get the file again from its publisher"
        )

    def run(self) -> Any:
        for _ in range(FREE_OPCODES + len(self.data) // BYTES_PER_OPCODE):
            if self.position >= len(self.data):
                self.refuse(f"it ends early, after {len(self.data)} bytes" if self.data else "it is empty")
            code = self.data[self.position]
            self.position += 1
            if code in PUSHES:
                self.stack.append(PUSHES[code](self))
            elif code in ACTIONS:
                ACTIONS[code](self)
            elif code == STOP:
                return self.result()
            else:
                self.refuse_opcode(code)
        self.refuse("it has more opcodes than a data set of its size needs")

    def refuse_opcode(self, code: int) -> NoReturn:
        if self.position == 1:
            self.refuse(f"it is no pickle, it starts with {self.data[:16]!r}")
        known = next((name for name, known in CODES.items() if known == code), hex(code))
        self.refuse(f"opcode {known} at byte {self.position - 1} is not allowed")

    def result(self) -> Any:
        if self.position != len(self.data):
            self.refuse(f"{len(self.data) - self.position} bytes follow its end")
        if len(self.stack) != 1 or type(self.stack[0]) not in VALUES | {dict}:
            self.refuse("it does not hold one plain value")
        return self.stack[0]

    def take(self, count: int) -> bytes:
        """The next `count` bytes of the file; a count beyond its end is refused before anything is allocated."""
        end = self.position + count
        if not self.position <= end <= len(self.data):
            self.refuse(f"byte {self.position} announces {count} bytes where {len(self.data) - self.position} are left")
        start, self.position = self.position, end
        return self.data[start:end]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def counted(self, layout: str) -> bytes:
        return self.take(self.number(layout))

    def line(self) -> bytes:
        return self.take(self.data.index(b"\n", self.position) - self.position + 1)[:-1]

    def spend(self, count: int) -> None:
        """Count bytes that are copied; a genuine file has each of its bytes copied once, a bomb many times."""
        self.copied += count
        if self.copied > len(self.data):
            self.refuse("it copies the same bytes over and over")

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> Any:
        value = self.memo[index]
        return value.built if type(value) is Unbuilt and value.built is not None else value


def _integer(line: bytes) -> int:
    if line in (b"00", b"01"):  # False and True in protocols 0 and 1
        return line == b"01"
    if len(line) > LONGEST_NUMBER:
        raise ValueError
    return int(line)


def _long(reader: _Reader, raw: bytes) -> int:
    if len(raw) > 9:  # 64 unsigned bits and the sign's byte
        reader.refuse(f"an integer of {len(raw)} bytes is not allowed")
    return int.from_bytes(raw, "little", signed=True)


def _python_2_string(line: bytes) -> bytes:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"') or not PYTHON_2_TEXT.fullmatch(line):
        raise ValueError
    return line[1:-1].decode("unicode_escape").encode("latin-1")


def _name(reader: _Reader, module: str, name: str) -> Name:
    role = NAMES.get(f"{module} {name}")
    if role is None:
        reader.refuse(f"the name {f'{module}.{name}'[:80]!r} is not allowed")
    return Name(role)


def _stack_global(reader: _Reader) -> None:
    name, module = reader.stack.pop(), reader.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError
    reader.stack.append(_name(reader, module, name))


def _push_tuple(reader: _Reader, items: list[Any]) -> None:
    if len(items) > LONGEST_TUPLE:
        reader.refuse(f"a tuple of {len(items)} items is not allowed")
    reader.stack.append(tuple(items))


def _push_last(reader: _Reader, count: int) -> None:
    if len(reader.stack) < count:
        raise IndexError
    items = reader.stack[-count:]
    del reader.stack[-count:]
    _push_tuple(reader, items)


def _extend_list(reader: _Reader, items: list[Any]) -> None:
    if type(reader.stack[-1]) is not list or not set(map(type, items)) <= LEAVES:
        reader.refuse("a list of anything but numbers and texts is not allowed")
    reader.stack[-1].extend(items)


def _fill_dict(reader: _Reader, items: list[Any]) -> None:
    keys, values = items[::2], items[1::2]
    if type(reader.stack[-1]) is not dict or len(keys) != len(values) or not set(map(type, keys)) <= {str, bytes}:
        reader.refuse("a dictionary whose keys are not texts is not allowed")
    if not set(map(type, values)) <= VALUES:
        reader.refuse("a dictionary that holds anything but arrays, lists and plain values is not allowed")
    reader.stack[-1].update(zip(keys, values, strict=True))


def _collect(reader: _Reader, empty: Any, fill: Callable[[_Reader, list[Any]], None]) -> None:
    items = reader.since_mark()
    reader.stack.append(empty)
    fill(reader, items)


def _text(value: Any) -> str:
    """A short text that Python 2 wrote as bytes."""
    return value.decode("ascii") if type(value) is bytes else value


def _array(reader: _Reader, raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """A read-only view of `raw`; the shape must use up exactly its bytes."""
    plain = type(raw) is bytes and isinstance(dtype, np.dtype) and type(shape) is tuple and order in ("C", "F")
    if not plain or not all(type(size) is int and size >= 0 for size in shape):
        raise TypeError
    if math.prod(shape) * dtype.itemsize != len(raw):
        reader.refuse(f"an array of shape {shape} and type {dtype} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _reduce(reader: _Reader) -> None:
    """Where pickle would call a function: the four records that numpy writes, and Python 3's bytes."""
    arguments, name = reader.stack.pop(), reader.stack.pop()
    if type(name) is not Name or type(arguments) is not tuple:
        raise TypeError
    match name.role, arguments:
        case "encode", (str(text), "latin1" | "latin-1"):
            reader.spend(len(text))
            value: Any = text.encode("latin-1")
        case "empty", ():
            value = b""
        case "dtype", (str() | bytes() as code, *_) if DTYPES.fullmatch(_text(code)):
            value = Unbuilt("dtype", code=_text(code))
        case "reconstruct", (Name("ndarray"), *_):
            value = Unbuilt("array")
        case "scalar", (np.dtype() as dtype, bytes(raw)):
            reader.spend(len(raw))
            value = _array(reader, raw, dtype, (), "C").item()
        case "frombuffer", (raw, dtype, shape, str(order)):
            value = _array(reader, raw, dtype, shape, order)
        case _:
            reader.refuse(f"the record {name.role!r} with {len(arguments)} arguments is not allowed")
    reader.stack.append(value)


def _build(reader: _Reader) -> None:
    """Complete an array or dtype from its state; see `__setstate__` of both in numpy's documentation."""
    state, unbuilt = reader.stack.pop(), reader.stack.pop()
    if type(unbuilt) is not Unbuilt or type(state) is not tuple:
        raise TypeError
    match unbuilt.role, state:
        case "dtype", (_, str() | bytes() as order, None, None, None, *_) if _text(order) in ("|", "<", ">", "="):
            unbuilt.built = np.dtype(_text(order) + unbuilt.code)
        case "array", (_, shape, dtype, bool() | int() as fortran, raw):
            unbuilt.built = _array(reader, raw, dtype, shape, "F" if fortran else "C")
        case role, _:
            reader.refuse(f"the {role}'s state is not allowed")
    reader.stack.append(unbuilt.built)


def _by_code(actions: dict[str, Callable[[_Reader], Any]]) -> dict[int, Callable[[_Reader], Any]]:
    return {CODES[name]: action for name, action in actions.items()}


CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
STOP = CODES["STOP"]

PUSHES = _by_code(
    {  # opcodes that put one value on the stack
        "NONE": lambda reader: None,
        "NEWTRUE": lambda reader: True,
        "NEWFALSE": lambda reader: False,
        "EMPTY_LIST": lambda reader: [],
        "EMPTY_DICT": lambda reader: {},
        "EMPTY_TUPLE": lambda reader: (),
        "INT": lambda reader: _integer(reader.line()),
        "LONG": lambda reader: _integer(reader.line().removesuffix(b"L")),
        "BININT": lambda reader: reader.number("<i"),
        "BININT1": lambda reader: reader.number("<B"),
        "BININT2": lambda reader: reader.number("<H"),
        "LONG1": lambda reader: _long(reader, reader.counted("<B")),
        "LONG4": lambda reader: _long(reader, reader.counted("<i")),
        "FLOAT": lambda reader: float(reader.line()),
        "BINFLOAT": lambda reader: reader.number(">d"),
        "STRING": lambda reader: _python_2_string(reader.line()),
        "SHORT_BINSTRING": lambda reader: reader.counted("<B"),
        "BINSTRING": lambda reader: reader.counted("<i"),
        "SHORT_BINBYTES": lambda reader: reader.counted("<B"),
        "BINBYTES": lambda reader: reader.counted("<I"),
        "BINBYTES8": lambda reader: reader.counted("<Q"),
        "BYTEARRAY8": lambda reader: reader.counted("<Q"),
        "UNICODE": lambda reader: reader.line().decode("raw-unicode-escape"),
        "SHORT_BINUNICODE": lambda reader: reader.counted("<B").decode(),
        "BINUNICODE": lambda reader: reader.counted("<I").decode(),
        "BINUNICODE8": lambda reader: reader.counted("<Q").decode(),
        "GLOBAL": lambda reader: _name(reader, reader.line().decode(), reader.line().decode()),
        "GET": lambda reader: reader.recall(_integer(reader.line())),
        "BINGET": lambda reader: reader.recall(reader.number("<B")),
        "LONG_BINGET": lambda reader: reader.recall(reader.number("<I")),
    }
)

ACTIONS = _by_code(
    {  # opcodes that rearrange what is there
        "PROTO": lambda reader: reader.take(1),
        "FRAME": lambda reader: reader.take(8),
        "MARK": lambda reader: reader.marks.append(len(reader.stack)),
        "PUT": lambda reader: reader.remember(_integer(reader.line())),
        "BINPUT": lambda reader: reader.remember(reader.number("<B")),
        "LONG_BINPUT": lambda reader: reader.remember(reader.number("<I")),
        "MEMOIZE": lambda reader: reader.remember(len(reader.memo)),
        "TUPLE": lambda reader: _push_tuple(reader, reader.since_mark()),
        "TUPLE1": lambda reader: _push_last(reader, 1),
        "TUPLE2": lambda reader: _push_last(reader, 2),
        "TUPLE3": lambda reader: _push_last(reader, 3),
        "LIST": lambda reader: _collect(reader, [], _extend_list),
        "APPEND": lambda reader: _extend_list(reader, [reader.stack.pop()]),
        "APPENDS": lambda reader: _extend_list(reader, reader.since_mark()),
        "DICT": lambda reader: _collect(reader, {}, _fill_dict),
        "SETITEM": lambda reader: _fill_dict(reader, [reader.stack.pop(-2), reader.stack.pop()]),
        "SETITEMS": lambda reader: _fill_dict(reader, reader.since_mark()),
        "STACK_GLOBAL": lambda reader: _stack_global(reader),
        "REDUCE": lambda reader: _reduce(reader),
        "BUILD": lambda reader: _build(reader),
    }
)
