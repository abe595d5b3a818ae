"""The C of this folder, compiled for this processor on first use and kept in the cache; None where that cannot be done.

Once for each type of number that maps hold, and once for bytes: what is done with images before a network sees them. Everything
works without it, from torch's own operations.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import torch

from thumbnet.cache import cache_folder, check_private

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
WIDE = "-mprefer-vector-width=512"  # gcc's and clang's default is half of what these processors have
IMAGES = torch.uint8
OF_IMAGES = {"augment", "preprocess"}  # sources; apart, since every run needs them, and their compilation takes no time
NUMBERS: dict[torch.dtype, tuple[str, ...]] = {torch.bfloat16: (), torch.float32: ("-DFLOAT",), IMAGES: ()}  # number.h
COMPILE_SECONDS = 60  # then something is wrong with the compiler


@cache
def library(number: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions for maps of bf16 or float, or for `IMAGES`.

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
    except (OSError, RuntimeError, StopIteration, subprocess.SubprocessError):  # also where no thread can be begun
        return None


def compiled(compiler: str, number: torch.dtype) -> Path:
    """The shared library for this source, these flags and this processor, made where it is absent."""
    flags = (*FLAGS, *NUMBERS[number])
    source = [path.read_bytes() for path in SOURCES]
    key = hashlib.sha256(repr((source, str(number), flags, compiler, processor())).encode()).hexdigest()[:16]
    folder = cache_folder() / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_private(folder)
    path = folder / f"kernels-{key}.so"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            compile_into(Path(place) / "new.so", compiler, flags, sources_of(number))
            os.replace(Path(place) / "new.so", path)
    check_private(path)
    return path


def sources_of(number: torch.dtype) -> list[Path]:
    """The files that are compiled for maps of a type, or for `IMAGES`."""
    return [path for path in SOURCES if path.suffix == ".c" and (path.stem in OF_IMAGES) == (number == IMAGES)]


def compile_into(path: Path, compiler: str, flags: Sequence[str], sources: Sequence[Path]) -> None:
    """Two steps, so that the threads' library is not linked: its functions are torch's, loaded already."""
    wide = [WIDE] if platform.machine() == "x86_64" else []
    objects = [path.parent / f"{source.stem}.o" for source in sources]
    run = partial(subprocess.run, check=True, capture_output=True, timeout=COMPILE_SECONDS)
    with ThreadPoolExecutor(os.cpu_count()) as side_by_side:
        commands = [
            [compiler, *flags, *wide, "-c", str(source), "-o", str(made)]
            for source, made in zip(sources, objects, strict=True)
        ]
        list(side_by_side.map(run, commands))
    run([compiler, "-shared", *map(str, objects), "-o", str(path)])
    path.chmod(0o700)


def processor() -> str:
    """What -march=native depends on: the processor's model and abilities."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU "))}))
    return platform.processor()
