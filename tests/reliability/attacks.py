"""Hand-made attacks, by surface: bytes that try to run code, take memory or time, or reach out of their folder.

They are made here, never stored. Every one must be refused, but for those whose harm is passed over (`PASSED_OVER`).
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from safetensors.numpy import save

from fuzzing import archive
from readers import FILES, PIXELS, POSITION, arrays, cifar_members, idx_files, images


class Command:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def pickles():
    import os

    call = Command(os.system, "touch canary")
    claim = pickle.dumps(PIXELS, 3)
    return {
        **{f"os.system, protocol {number}": pickle.dumps({"data": call}, number) for number in range(6)},
        "eval": pickle.dumps({"data": Command(eval, "open('canary', 'w')")}),
        "exec in a list": pickle.dumps({"labels": [Command(exec, "open('canary', 'w')")]}),
        "inst": b"(S'touch canary'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'touch canary'\no.",
        "newobj": b"\x80\x02cbuiltins\nopen\nX\x06\x00\x00\x00canaryX\x01\x00\x00\x00w\x86\x81.",
        "stack global with a dot": b"\x8c\x05numpy\x8c\x0fndarray.tofile\x93\x8c\x06canary\x85R.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent id": b"P0\n.",
        "array of objects": pickle.dumps(np.array([None, call], dtype=object)),
        "8 GB claimed by an array": claim.replace(b"M\x00\x0c\x86", b"J\xff\xff\xff\x7f\x86"),
        "1 TB of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
        "huge memo index": b"K\x01r\xff\xff\xff\xff0.",
        "50,000 lists in each other": b"]" * 50_000 + b"a" * 49_999 + b".",
        "memo bomb": b"(lp0\n" + b"".join(b"(g%d\ng%d\nlp%d\n" % (i, i, i + 1) for i in range(100)) + b".",
        "an integer of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
        "a web page": b"<!DOCTYPE html><html>404</html>",
        "nothing": b"",
    }


def tar_of(*members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as stored:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname, member.size = content.decode(), 0
            stored.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def tars():
    """Whole sets, each with one member more, or one replaced."""
    plain, batch, members = tarfile.REGTYPE, "cifar-10-batches-py/data_batch_1", cifar_members()
    whole = [(name, plain, content) for name, content in members.items()]
    rest = whole[1:]
    return {
        "a batch that is a link": tar_of((batch, tarfile.SYMTYPE, b"/etc/passwd"), *rest),
        "a batch that is a hard link": tar_of((batch, tarfile.LNKTYPE, b"/etc/passwd"), *rest),
        "a batch that is a device": tar_of((batch, tarfile.CHRTYPE, b""), *rest),
        "a batch that is a pipe": tar_of((batch, tarfile.FIFOTYPE, b""), *rest),
        "a batch that runs code": tar_of((batch, plain, pickles()["os.system, protocol 2"]), *rest),
        "a batch above its folder": tar_of((f"../{batch}", plain, members[batch]), *rest),
        "a header that claims 8 TB": gzip.compress(
            tar_of((batch, plain, b"x"), mode="w").replace(b"00000000001\0", b"77777777777\0", 1)
        ),
        "a gzip bomb": gzip.compress(bytes(1 << 29), 9),
        "no archive": b"PK\x03\x04" + bytes(100),
        "a name above its folder": tar_of(("../../canary", plain, b"x"), *whole),
        "an absolute name": tar_of(("/tmp/canary-of-thumbnet", plain, b"x"), *whole),
        "a link, then a file through it": tar_of(
            ("out", tarfile.SYMTYPE, b"/tmp"), ("out/canary", plain, b"x"), *whole
        ),
        "20,000 empty members": tar_of(*whole, *[(f"{number}", plain, b"") for number in range(20_000)]),
    }


def idx():
    start = b"\x00\x00\x08\x03"
    return {
        "4 GB claimed": start + struct.pack(">3I", 65_536, 256, 256),
        "sizes whose product wraps around": start + struct.pack(">3I", 2**31, 2**31, 4),
        "more dimensions than are read": b"\x00\x00\x08\xff" + b"\xff" * 1020,
        "floats": b"\x00\x00\x0d\x03" + struct.pack(">3I", 1, 1, 1) + bytes(4),
        "one value too many": idx_files()[0] + b"\x00",
        "a gzip bomb": gzip.compress(start + struct.pack(">3I", 1, 28, 28) + bytes(1 << 28), 9),
        "gzip in gzip": gzip.compress(gzip.compress(idx_files()[0])),
    }


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, *extra, data=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def pictures():
    bomb = zlib.compress(bytes(1 << 28), 9)
    gif = next(content for content in images() if content[:3] == b"GIF")
    bmp = next(content for content in images() if content[:2] == b"BM")
    jpeg = next(content for content in images() if content[:2] == b"\xff\xd8")
    size_at = jpeg.index(b"\xff\xc0") + 5
    return {
        "PNG of 100,000 x 100,000": png(100_000, 100_000),
        "PNG of 2^31 x 1": png(2**31 - 1, 1),
        "PNG with a text that unpacks to 256 MB": png(40_000, 40_000, chunk(b"zTXt", b"a\0\0" + bomb)),
        "PNG with a colour profile that unpacks to 256 MB": png(30_000, 30_000, chunk(b"iCCP", b"a\0\0" + bomb)),
        "PNG without pixels": png(32, 32),
        "JPEG of 65,535 x 65,535": jpeg[:size_at] + b"\xff" * 4 + jpeg[size_at + 4 :],
        "JPEG cut in half": jpeg[: len(jpeg) // 2],
        "BMP of 2^31 rows": bmp[:22] + struct.pack("<i", 2**31 - 1) + bmp[26:],
        "GIF of 65,535 x 65,535": gif[:6] + b"\xff" * 4 + gif[10:],
        "WebP that ends in its head": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        "TIFF": b"II*\x00\x08\x00\x00\x00" + bytes(64),
        "EPS, which Pillow hands to Ghostscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "a web page": b"<html><img src=x onerror=alert(1)></html>",
        "a pickle": pickles()["os.system, protocol 2"],
    }


def tensors(header, size=8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def safetensors():
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "a header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
        "a header of 200 MB": struct.pack("<Q", 200 << 20) + b"{",
        "offsets beyond the end": tensors({"a": entry | {"data_offsets": [0, 1 << 40], "shape": [1 << 38]}}),
        "tensors that overlap": tensors({"a": entry, "b": entry}),
        "a negative offset": tensors({"a": entry | {"data_offsets": [-8, 0]}}),
        "a shape that wraps around": tensors({"a": entry | {"shape": [2**33, 2**33]}}),
        "one name twice": tensors(b'{"a":%s,"a":%s}' % (json.dumps(entry).encode(), json.dumps(entry).encode())),
        "an unknown type": tensors({"a": entry | {"dtype": "PICKLE"}}),
        "lists in each other": tensors(b"[" * 100_000),
        "a pickle": pickles()["os.system, protocol 2"],
        "what torch.save writes": archive(
            {"archive/data.pkl": pickles()["os.system, protocol 2"], "archive/version": b"3"}
        ),
        "another run's tensors": save({"model.other": np.zeros(3, np.float32)}, {"owner": "x", "position": "{}"}),
        "NaN": save(arrays(np.nan), {"owner": "0123456789abcdef", "position": json.dumps(POSITION)}),
    }


def npy(shape, kind="<f4", data=b""):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def npz():
    objects = io.BytesIO()
    np.save(objects, np.array([Command(eval, "open('canary', 'w')")], dtype=object), allow_pickle=True)
    return {
        "an array of objects": archive({"split.npy": objects.getvalue()}),
        "8 TB claimed by an array": archive({"split.npy": npy((1 << 41,))}),
        "a zip bomb": archive({"split.npy": npy((1 << 26,)) + bytes(1 << 28)}, compression=zipfile.ZIP_DEFLATED),
        "a name above its folder": archive({"../../canary.npy": npy((1,), data=bytes(4))}),
        "a header that is code": archive({"split.npy": npy("__import__('os').system('touch canary')")}),
        "no zip": b"PK\x05\x06" + bytes(18),
    }


def sets():
    """The same under names that are looked at, and what fits the names and nothing else."""
    images, labels = io.BytesIO(), io.BytesIO()
    np.save(images, np.zeros((4, 8, 8), np.uint8))
    np.save(labels, np.arange(4) % 2)
    good = {"train_images.npy": images.getvalue(), "train_labels.npy": labels.getvalue()}
    many = npy((10**10,), "<U0")
    beyond, half = (npy((4,), "<U1", np.array([code, 65, code, 65], "<u4").tobytes()) for code in (0x110000, 0xD800))
    return npz() | {
        "images that are no array": archive(good | {"train_images.npy": b"nonsense"}),
        "images of objects": archive(good | {"train_images.npy": npy((4,), "|O", bytes(32))}),
        "8 TB of images": archive(good | {"train_images.npy": npy((1 << 33, 32, 32), "|u1")}),
        "images without pixels": archive(good | {"train_images.npy": npy((4, 0, 8), "|u1")}),
        "labels beyond the last letter": archive(good | {"train_labels.npy": beyond}),
        "labels of half a letter": archive(good | {"train_labels.npy": half}),
        "ten thousand million empty labels": archive(good | {"train_labels.npy": many}),
        "ten thousand million empty names": archive(good | {"classes.npy": many}),
        "a zip bomb of images": archive(
            good | {"train_images.npy": npy((1 << 18, 32, 32), "|u1") + bytes(1 << 28)},
            compression=zipfile.ZIP_DEFLATED,
        ),
    }


def texts():
    """For JSON and TOML alike."""
    return {
        "brackets in each other": b"[" * 100_000,
        "objects in each other": b'{"a":' * 100_000,
        "tables in each other": b"x = " + b"[" * 5_000 + b"]" * 5_000,
        "NaN": b'{"epoch": 1, "name": "x", "more": NaN}',
        "a number beyond floats": b'{"epoch": 1, "name": "x", "more": 1e999}',
        "an integer of 5,000 digits": b'{"epoch": ' + b"9" * 5_000 + b', "name": "x"}',
        "one name twice": b'{"epoch": 1, "epoch": 2, "name": "x"}',
        "no text": b"\xff\xfe\x00",
        "half a character": b'{"name": "\xed\xa0"}',
        "another type": b'{"epoch": [], "name": {}}',
        "nothing": b"",
    }


def studies():
    many = "\n".join(f"v{number} = [{', '.join(map(str, range(100)))}]" for number in range(10))
    return {
        "10^20 runs": b"[grid]\n" + many.encode(),
        "10^9 seeds": b"seeds = 1000000000\n[grid]\nepochs = [1]",
        "10^9 folds": b"folds = 1000000000\n[grid]\nepochs = [1]",
        "a name above its folder": b'name = "../../canary"\n[grid]\nepochs = [1]',
        "an absolute name": b'name = "/tmp/canary"\n[grid]\nepochs = [1]',
        "a width of 10^12": b"[grid]\nwidths = [[1000000000000, 8, 8]]",
        "10^9 layers": b"[grid]\ndepth = [1000000000]",
        "a number of 400 digits": b"[grid]\nepochs = [" + b"9" * 400 + b"]",
        "infinitely many epochs": b"[grid]\nepochs = [inf]",
        "no number of epochs": b"[grid]\nepochs = [nan]",
        "a field that runs code": b'[grid]\n__class__ = ["x"]',
        "an unknown key": b'[grid]\nepochs = [1]\n[shell]\nrun = "touch canary"',
    }


def runs():
    data = json.loads(FILES["data.json"])
    return {
        "a network of 10^9 channels": json.dumps(data | {"channels": 10**9}).encode(),
        "images of 10^6 x 10^6": json.dumps(data | {"image_size": [10**6, 10**6]}).encode(),
        "one class": json.dumps(data | {"classes": ["a"]}).encode(),
        "classes that are no names": json.dumps(data | {"classes": [1, None]}).encode(),
        "no list of classes": json.dumps(data | {"classes": "ab"}).encode(),
        "a list": b"[]",
    }


ATTACKS = {
    "CIFAR pickle": pickles,
    "CIFAR folder": pickles,
    "CIFAR archive": tars,
    "IDX": idx,
    "npz of a set": sets,
    "image": pictures,
    "checkpoint": safetensors,
    "weights": safetensors,
    "pack": safetensors,
    "predictions": npz,
    "JSON": texts,
    "config TOML": lambda: {name: content for name, content in texts().items() if content},  # an empty one is valid
    "study TOML": studies,
    "a run's data.json": runs,
    "manifest": lambda: {name: content + b"}\n" for name, content in texts().items()},
}
PASSED_OVER = {  # of the archive: members that nobody asks for are never unpacked
    "a name above its folder", "an absolute name", "a link, then a file through it", "20,000 empty members",
}  # fmt: skip
