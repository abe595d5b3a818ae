"""The inert pickle reader: every genuine dialect is read, and nothing in a file is ever run."""

import os
import pickle
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from thumbnet.data.inert_pickle import FREE_OPCODES, read_pickle
from thumbnet.errors import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ROWS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)


def batch(**more: object) -> dict[bytes, object]:
    """A batch as CIFAR's files hold it."""
    content: dict[bytes, object] = {b"batch_label": b"testing batch 1 of 1", b"data": ROWS, b"labels": [3, 0, 9, 3]}
    content[b"filenames"] = [f"leptodactylus_pentadactylus_s_{index}.png".encode() for index in range(4)]
    return content | {key.encode(): value for key, value in more.items()}


def assert_same(received: object, expected: dict) -> None:
    assert isinstance(received, dict)
    assert list(received) == list(expected)
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert received[key].dtype == value.dtype
            np.testing.assert_array_equal(received[key], value)
        else:
            assert received[key] == value
            assert type(received[key]) is type(value)


def python_2_text(text: bytes, protocol: int) -> bytes:
    """A `str` as Python 2 wrote it."""
    if protocol == 0:
        escaped = "".join(chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}" for byte in text)
        return b"S'" + escaped.encode() + b"'\n"
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def python_2_number(number: int, protocol: int) -> bytes:
    if protocol == 0:
        return f"I{number}\n".encode()
    return b"K" + bytes([number]) if 0 <= number < 256 else b"J" + struct.pack("<i", number)


def python_2_array(array: np.ndarray, protocol: int) -> bytes:
    """An array as numpy under Python 2 wrote it: built from an empty one, raw bytes as `str`, flags as numbers."""

    def pack(value: bytes | int) -> bytes:
        return python_2_text(value, protocol) if isinstance(value, bytes) else python_2_number(value, protocol)

    code, order = array.dtype.str[1:].encode(), array.dtype.str[:1].encode()
    false = b"I00\n" if protocol < 2 else pickle.NEWFALSE
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(", pack(0), b"t", pack(b"b"), b"tR",
            b"(", pack(1), b"(", *map(pack, array.shape), b"t",
            b"cnumpy\ndtype\n(", pack(code), pack(0), pack(1), b"tR",
            b"(", pack(3), pack(order), b"NNN", pack(-1), pack(-1), pack(0), b"tb",
            false, pack(array.tobytes()), b"tb",
        ]
    )  # fmt: skip


def python_2_pickle(content: dict[bytes, object], protocol: int) -> bytes:
    """A whole batch by Python 2, with memo entries as it scattered them."""
    out = [b"\x80\x02" if protocol == 2 else b"", b"(dp0\n" if protocol == 0 else b"}q\x00"]
    for number, (key, value) in enumerate(content.items(), start=1):
        out.append(python_2_text(key, protocol))
        if isinstance(value, bytes):
            out.append(python_2_text(value, protocol))
        elif isinstance(value, np.ndarray):
            out.append(python_2_array(value, protocol))
        else:
            pack = [(python_2_text if isinstance(item, bytes) else python_2_number)(item, protocol) for item in value]
            out.append(
                b"(lp%d\n" % number + b"a".join([*pack, b""]) if protocol == 0 else b"](" + b"".join(pack) + b"e"
            )
        out.append(b"s")
    return b"".join([*out, b"."])


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that the hostile pickles try to create; the test fails if it is there at the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists(), "the pickle was run"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_of_python_3_is_read(protocol: int) -> None:
    assert_same(read_pickle(pickle.dumps(batch(), protocol), "batch"), batch())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts_numbers_and_other_arrays_are_read_in_every_protocol(protocol: int) -> None:
    content = {
        "text": "Ångström\n\\ \u2028 \U0001f600",
        "bytes": bytes(range(256)),
        "numbers": [0, 1, -1, 255, 256, 65_535, 65_536, -(2**31), 2**31, 2**63 - 1, -(2**63), True, False, None, 0.5],
        "columns first": np.asfortranarray(ROWS[:, :7]),
        "every second": ROWS[:, ::2],
        "big-endian": np.array([1, 2, 300], ">i4"),
        "names": np.array([b"one", b"three"]),
        "texts": np.array(["één", "twee"]),
        "three axes": np.arange(24, dtype=np.int64).reshape(2, 3, 4),
        "empty": [],
        "no bytes": b"",
        "no rows": ROWS[:0],
    }
    assert_same(read_pickle(pickle.dumps(content, protocol), "file"), content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars_become_python_numbers(protocol: int) -> None:
    labels = [np.int64(3), np.uint8(255), np.int64(3), np.str_("name"), np.bool_(True)]
    received = read_pickle(pickle.dumps(labels, protocol), "labels")
    assert received == [3, 255, 3, "name", True]
    assert [type(value) for value in received] == [int, int, int, str, bool]


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python_2_dialect_is_read(protocol: int) -> None:
    data = python_2_pickle(batch(long_text=bytes(range(256)) * 2), protocol)
    if protocol == 2:  # the hand-made file is a genuine pickle
        assert_same(pickle.loads(data, encoding="bytes"), batch(long_text=bytes(range(256)) * 2))
    assert_same(read_pickle(data, "batch"), batch(long_text=bytes(range(256)) * 2))


@pytest.mark.parametrize("protocol", [2, 5])
def test_names_of_the_older_numpy_are_read(protocol: int) -> None:
    data = pickle.dumps({"data": ROWS}, min(protocol, 3)).replace(b"numpy._core", b"numpy.core")
    if protocol == 5:
        module = b"\x8c\x12numpy.core.numeric"
        data = pickle.dumps({"data": ROWS}, 5).replace(b"\x8c\x13numpy._core.numeric", module)
    assert b"numpy.core." in data
    assert_same(read_pickle(data, "file"), {"data": ROWS})


def test_arrays_are_read_only_views() -> None:
    received = read_pickle(pickle.dumps(batch(), 2), "batch")
    assert not received[b"data"].flags.writeable
    assert not received[b"data"].flags.owndata


class Command:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def hostile() -> dict[str, bytes]:
    """Files that run commands, or exhaust memory or the stack, when unpickled. Each would create `canary`."""
    shell = b"touch canary"
    system = {f"os.system, protocol {number}": pickle.dumps(Command(os.system, shell), number) for number in PROTOCOLS}
    return system | {
        "eval": pickle.dumps({"data": Command(eval, "open('canary', 'w').close()")}),
        "exec among labels": pickle.dumps({"data": ROWS, "labels": [Command(exec, "open('canary', 'w').close()")]}),
        "global only": b"cos\nsystem\n.",
        "name with a dot": b"\x8c\x05numpy\x8c\x0fndarray.tofile\x93\x8c\x06canary\x85R.",
        "module inside an allowed one": b"cnumpy\nsave\n(S'canary'\nI1\ntR.",
        "inst": b"(S'touch canary'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'touch canary'\no.",
        "newobj": b"\x80\x02cbuiltins\nopen\nX\x06\x00\x00\x00canaryX\x01\x00\x00\x00w\x86\x81.",
        "newobj of an allowed name": b"\x80\x02cnumpy\nndarray\nK\x01\x85\x81.",
        "bytes from an integer": b"c__builtin__\nbytes\n(I99999999\ntR.",
        "newobj_ex": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)}\x92.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent id": b"P0\n.",
        "persistent id on the stack": b"K\x01Q.",
        "out-of-band buffer": b"\x80\x05\x97.",
        "read-only buffer": b"\x80\x05C\x01a\x98.",
        "build on a list": b"]}U\x01aU\x01bsb.",
        "array built from a call": b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n(K\x00tU\x01btR.",
        "array of objects": pickle.dumps(np.array([None, Command(os.system, shell)], dtype=object)),
        "structured array": pickle.dumps(np.zeros(2, [("a", "u1"), ("b", "i4")])),
        "dates": pickle.dumps(np.zeros(2, "M8[s]")),
        "codec that is not latin-1": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zipt\x52.",
        "array that claims 8 gigabytes": pickle.dumps(ROWS, 3).replace(b"M\x00\x0c\x86", b"J\xff\xff\xff\x7f\x86"),
        "array of a thousand axes": pickle.dumps(ROWS, 3).replace(b"K\x04M\x00\x0c\x86", b"(" + b"K\x01" * 1000 + b"t"),
        "1 terabyte of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
        "1 terabyte of text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",
        "1 terabyte of a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.",
        "negative length": b"T\xff\xff\xff\xffabc.",
        "huge memo index": b"K\x01r\xff\xff\xff\xff0.",
        "unknown memo index": b"j\xff\xff\xff\xff.",
        "negative memo index": b"K\x01p-1\n0.",
        "integer of a thousand digits": b"I" + b"9" * 1_000 + b"\n.",
        "long of a megabyte": b"\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b".",
        "nested lists": b"]" * 50_000 + b"a" * 49_999 + b".",
        "nested tuples": b")" + b"\x85" * 50_000 + b".",
        "nested dictionaries": b"}U\x01a" * 50_000 + b"}" + b"s" * 50_000 + b".",
        "marks without end": b"(" * 90_000 + b".",
        "memo bomb": b"(lp0\n" + b"".join(b"(g%d\ng%d\nlp%d\n" % (i, i, i + 1) for i in range(100)) + b".",
        "encoding bomb": b"\x80\x02X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
        + b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02(" + b"h\x01h\x00h\x02\x86R" * 10_000 + b"l.",
        "a million objects": b"(" + b"]" * (10 * FREE_OPCODES) + b"l.",
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
        "no end": b"\x80\x02}",
        "underflow": b"s.",
        "two values": b"K\x01K\x02.",
        "nothing": b".",
        "a name as the value": b"cnumpy\nndarray\n.",
        "an unfinished array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR.",
        "something after the end": pickle.dumps({}) + b"cos\nsystem\n(S'touch canary'\ntR.",
        "a list as key": b"}]K\x01s.",
        "python 2 text with other escapes": b"S'\\N{BULLET}'\n.",
        "python 2 text without quotes": b"Sabc\n.",
    }  # fmt: skip


@pytest.mark.parametrize("name", hostile())
def test_hostile_file_is_refused_and_not_run(name: str, canary: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_pickle(hostile()[name], "folder/data_batch_1")
    message = str(caught.value)
    assert message.startswith("folder/data_batch_1 is not read: ")
    assert "\n" not in message
    assert len(message) < 400


def test_the_attacks_are_real(canary: Path) -> None:
    """Guards the test above: unpickling the same bytes does create the canary."""
    for name in ("os.system, protocol 2", "eval", "exec among labels", "inst", "obj"):
        pickle.loads(hostile()[name])
        assert canary.exists(), name
        canary.unlink()


def test_a_huge_memo_index_reserves_nothing() -> None:
    """Ten bytes that make Python's own unpickler reserve 32 GB."""
    tracemalloc.start()
    try:
        assert read_pickle(b"\x80\x02K\x01r\xff\xff\xff\xff.", "file") == 1
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cos\nsystem\n.", "the name 'os.system' is not allowed"),
        (b"\x80\x02\x82\x01.", "opcode EXT1 at byte 2 is not allowed"),
        (b"", "it is empty"),
        (b"<html>", "it is no pickle, it starts with b'<html>'"),
        (b"\x80\x02U\x09abc", "byte 4 announces 9 bytes where 3 are left"),
        (pickle.dumps({}) + b"xyz", "3 bytes follow its end"),
        (b"\x80\x02}", "it ends early, after 3 bytes"),
        (
            hostile()["array that claims 8 gigabytes"],
            "an array of shape (4, 2147483647) and type uint8 has 12288 bytes",
        ),
    ],
)
def test_the_message_names_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        read_pickle(data, "meta")
    assert f"meta is not read: {reason}; " in str(caught.value)
    assert "get the file again from its publisher" in str(caught.value)


@pytest.mark.parametrize("name", hostile())
def test_hostile_file_takes_little_memory(name: str, canary: Path) -> None:
    data = hostile()[name]
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read_pickle(data, "file")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data) + 25_000_000  # FREE_OPCODES objects of up to 232 bytes
