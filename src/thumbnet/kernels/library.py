"""The C of this folder, compiled for this processor on first use and kept in the cache; None where that cannot be done.

Once for each type of number that maps hold. Everything works without it, from torch's own operations.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from thumbnet.files import cache_folder

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
WIDE = "-mprefer-vector-width=512"  # gcc's and clang's default is half of what these processors have
NUMBERS: dict[torch.dtype, tuple[str, ...]] = {torch.bfloat16: (), torch.float32: ("-DFLOAT",)}  # number.h
COMPILE_SECONDS = 60  # then something is wrong with the compiler


@cache
def library(number: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions for maps of bf16 or float.

    None for other types, where THUMBNET_KERNELS=plain switches it off, without Linux, compiler or a place to keep it.
    """
    if number not in NUMBERS or os.environ.get("THUMBNET_KERNELS") == "plain" or not sys.platform.startswith("linux"):
        return None
    compiler = shutil.which("gcc") or shutil.which("cc")
    try:
        threads = next(Path(torch.__file__).parent.glob("lib/libgomp*"), None) or next(
            Path(torch.__file__).parent.parent.glob("torch.libs/libgomp*")
        )
        # torch's own team of threads does the work: a second one would fight it for the cores.
        ctypes.CDLL(str(threads), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(compiled(compiler, number))) if compiler else None
    except (OSError, StopIteration, subprocess.SubprocessError):
        return None


def compiled(compiler: str, number: torch.dtype) -> Path:
    """The shared library for this source, these flags and this processor, made where it is absent."""
    flags = (*FLAGS, *NUMBERS[number])
    source = [path.read_bytes() for path in SOURCES]
    key = hashlib.sha256(repr((source, flags, compiler, processor())).encode()).hexdigest()[:16]
    folder = cache_folder() / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_private(folder)
    path = folder / f"kernels-{key}.so"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            compile_into(Path(place) / "new.so", compiler, flags)
            os.replace(Path(place) / "new.so", path)
    check_private(path)
    return path


def check_private(path: Path) -> None:
    """Raise `OSError` where another user could have written what is about to run."""
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or stat.S_ISLNK(status.st_mode):
        raise OSError(f"{path} is not this user's alone")


def compile_into(path: Path, compiler: str, flags: Sequence[str]) -> None:
    """Two steps, so that the threads' library is not linked: its functions are torch's, loaded already."""
    wide = [WIDE] if platform.machine() == "x86_64" else []
    sources = [source for source in SOURCES if source.suffix == ".c"]
    objects = [path.parent / f"{source.stem}.o" for source in sources]
    commands = [
        [compiler, *flags, *wide, "-c", str(source), "-o", str(made)]
        for source, made in zip(sources, objects, strict=True)
    ]
    for command in (*commands, [compiler, "-shared", *map(str, objects), "-o", str(path)]):
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
    path.chmod(0o700)


def processor() -> str:
    """What -march=native depends on: the processor's model and abilities."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU "))}))
    return platform.processor()
