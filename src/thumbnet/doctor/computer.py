"""The state of the machine and its installation: what would make training slow, wrong or impossible."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from thumbnet.machine import SLOWED, Machine
from thumbnet.words import counted

LEAST_MEMORY = 2  # GiB; the classic recipe on CIFAR-10 takes 2 GB at most
LEAST_DISK = 1  # GiB in the cache: two published sets with their archives

Finding = tuple[str, str]  # "ok", "note" or "fault", and a sentence


def examine_computer(machine: Machine | None = None) -> list[Finding]:
    """Every check, in words. One that fails in an unforeseen way is itself a fault, with the error's name."""
    found: list[Finding] = []
    for check in (python_and_packages, processor, device, memory_and_disk, cache, data_folder, arithmetic):
        found += guarded(check, machine or Machine())
    return found


def guarded(check: Callable[[Machine], Iterator[Finding]], machine: Machine) -> list[Finding]:
    """What a check finds, or that it broke."""
    try:
        return list(check(machine))
    except Exception as error:  # whatever is broken here is what the user wants to hear of
        return [("fault", f"{check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}")]


def python_and_packages(machine: Machine) -> Iterator[Finding]:
    """Versions, held against what the package asks for."""
    yield "ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    from packaging.requirements import Requirement

    for text in requires("thumbnet") or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            yield "fault", f"{wanted.name} is missing; install thumbnet again"
            continue
        fits = wanted.specifier.contains(installed, prereleases=True)
        hint = (
            ""
            if fits
            else f", where {wanted.specifier} is asked for; install thumbnet again in an environment of its own"
        )
        yield ("ok" if fits else "fault"), f"{wanted.name} {installed}{hint}"


def processor(machine: Machine) -> Iterator[Finding]:
    """Cores, whether bf16 is multiplied natively, and whether the C is used."""
    import torch

    from thumbnet.backend import has_fast_bf16, processor_name
    from thumbnet.kernels.library import library

    cores, threads = os.cpu_count() or 1, machine.threads or torch.get_num_threads()
    yield "ok", f"{processor_name()}, {counted(cores, 'core')}, {counted(threads, 'thread')}"
    load = os.getloadavg()[0]
    busy = load > cores / 2
    if os.environ.get("OMP_NUM_THREADS") and threads < cores and not busy:
        yield (
            "note",
            f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} leaves {counted(cores - threads, 'core')} idle; unset it, "
            "or give --threads",
        )
    if busy:
        yield "note", f"other programs keep this machine busy (load {load:.1f}): {SLOWED}"
    if has_fast_bf16(torch.device("cpu")):
        yield "ok", "the processor multiplies bf16 natively; it is used"
    else:
        yield "note", "the processor has no native bf16, so fp32 is used: two to four times slower than on one that has"
    if library(torch.float32) is not None:
        yield "ok", "the parts written in C are compiled for this processor"
    else:
        yield (
            "note",
            "the parts written in C are not used (they need Linux and gcc): the fast recipes take 15 to 40 % more time",
        )


def device(machine: Machine) -> Iterator[Finding]:
    """A GPU that could be used, or could not."""
    import torch

    if torch.cuda.is_available():
        from thumbnet.kernels.pool_norm_activate import gpu_module

        yield "ok", f"GPU {torch.cuda.get_device_name(0)}"
        if gpu_module() is None:
            yield (
                "note",
                "the parts written in Triton are not used (they need its package, a card that it knows, a C compiler and "
                "Python's headers): the fast recipes take a half more time",
            )
    elif torch.backends.mps.is_available():
        yield "ok", "Apple's GPU can be used"
    elif torch.version.cuda and shutil.which("nvidia-smi"):
        yield (
            "fault",
            f"there is an NVIDIA driver, but this build of torch (CUDA {torch.version.cuda}) cannot use it; update the driver",
        )
    elif shutil.which("nvidia-smi"):
        yield "fault", "there is an NVIDIA driver, but torch is a CPU build; install torch with CUDA (pytorch.org)"
    else:
        yield "ok", "no GPU, none needed"


def memory_and_disk(machine: Machine) -> Iterator[Finding]:
    """What is free."""
    from thumbnet.cache import cache_folder

    free = shutil.disk_usage(existing_parent(cache_folder())).free / 2**30
    yield ("ok" if free >= LEAST_DISK else "fault"), f"{free:.1f} GiB free for the cache in {cache_folder()}"
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        rows = dict(line.split(":") for line in meminfo.read_text().splitlines())
        available = int(rows["MemAvailable"].split()[0]) / 2**20
        yield ("ok" if available >= LEAST_MEMORY else "fault"), f"{available:.1f} GiB of memory available"


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def cache(machine: Machine) -> Iterator[Finding]:
    """Whether converted sets can be kept."""
    from thumbnet.cache import cache_folder

    folder = existing_parent(cache_folder())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield (
            "fault",
            f"the cache {cache_folder()} cannot be written ({error.strerror}): data are converted at every start; "
            "set THUMBNET_CACHE",
        )


def data_folder(machine: Machine) -> Iterator[Finding]:
    """Whether THUMBNET_DATA points somewhere."""
    named = os.environ.get("THUMBNET_DATA")
    if named is None:
        yield "ok", "THUMBNET_DATA is not set; published sets are looked for in the cache, then downloaded"
    elif not Path(named).is_dir():
        yield "fault", f"THUMBNET_DATA is {named}, which is no folder"
    else:
        yield "ok", f"THUMBNET_DATA is {named}"


def arithmetic(machine: Machine) -> Iterator[Finding]:
    """One training step of the fast network on made-up images: forward, backward and update give finite numbers."""
    import torch

    from thumbnet.backend import place, prepare
    from thumbnet.recipes import recipe
    from thumbnet.recipes.network import build_model
    from thumbnet.training.optimize import build_optimizer

    chosen = recipe("general", widths=(8, 16, 16))
    backend = prepare(machine)
    model = place(build_model(chosen, channels=3, classes=10), backend.device).train()
    optimizer = build_optimizer(model, chosen, backend.dtype)
    images = torch.linspace(0, 1, 32 * 3 * 32 * 32, device=backend.device).view(32, 3, 32, 32)
    with backend.autocast():
        loss = torch.nn.functional.cross_entropy(model(images).float(), torch.arange(32, device=backend.device) % 10)
    loss.backward()
    optimizer.step()
    finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    said = f"a training step on {backend.describe()} gives {'finite' if finite else 'non-finite'} weights"
    yield ("ok" if finite and bool(loss.isfinite()) else "fault"), said
