"""A machine made ready for computing: device, precision, threads and memory settled, and what to record of them."""

import ctypes
import os
import platform
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from thumbnet.errors import UserError
from thumbnet.kernels.library import library
from thumbnet.kernels.pool_norm_activate import gpu_module
from thumbnet.machine import Device, Machine, Precision
from thumbnet.own_code import is_in_usual_order
from thumbnet.processes import look_for_garbage_as_usual
from thumbnet.words import counted

# Numbers below 1e-38 count as zero, as they do in TensorFlow. Weights that only the L2 penalty reaches fade to such
# numbers, on which a CPU computes many times slower. Set on import, since worker threads inherit it when they are made.
torch.set_flush_denormal(True)


Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Backend:
    """A machine made ready: every choice settled, so that it can be recorded."""

    device: torch.device
    precision: Literal["fp32", "bf16"]
    threads: int

    @property
    def dtype(self) -> torch.dtype:
        """Of convolutions and matrix products; weights and statistics are float32 always."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute convolutions and matrix products in bf16 where that is the precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def describe(self) -> str:
        """For people: `cpu, 2 threads, bf16`."""
        threads = f", {counted(self.threads, 'thread')}" if self.device.type == "cpu" else ""
        return f"{self.device}{threads}, {self.precision}"


def prepare(machine: Machine) -> Backend:
    """Settle device, precision and threads for this process. Raises `UserError` for a device that is not there."""
    look_for_garbage_as_usual()
    device = choose_device(machine.device)
    precision = choose_precision(machine.precision, device)
    THREADS.use(machine.threads)
    if device.type == "cpu":
        keep_freed_memory()
    if machine.gpu_memory_limit is not None:
        limit_gpu_memory(machine.gpu_memory_limit, device)
    return Backend(device, precision, torch.get_num_threads())


@dataclass
class Threads:
    """How many threads this process computes with when nobody asks for a number, and the number last set here."""

    of_process: int
    set_here: int

    def use(self, wanted: int | None) -> None:
        """Compute with `wanted` threads, or as many as before any were wanted."""
        if torch.get_num_threads() != self.set_here:
            self.of_process = torch.get_num_threads()  # somebody else's choice, which stands
        self.set_here = wanted or self.of_process
        torch.set_num_threads(self.set_here)


THREADS = Threads(torch.get_num_threads(), torch.get_num_threads())


def place(model: Model, device: torch.device) -> Model:
    """Move a network to the device, on a GPU with its kernels channels last, as convolutions want them, but a user's own.

    On a CPU the images alone are channels last: oneDNN reorders kernels in any case, and torch's fused optimisers copy
    every tensor that is not contiguous, which cost the classic network a third of a step.
    """
    if device.type == "cpu" or is_in_usual_order(model):
        return model.to(device)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def choose_device(wanted: Device) -> torch.device:
    """The device asked for, or the best there is."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[wanted]:
        found = ", ".join(name for name, present in there.items() if present)
        raise UserError(
            f"device {wanted} is not available here (torch {torch.__version__} finds: {found}); use --device cpu"
        )
    return torch.device(wanted)


def choose_precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where the hardware multiplies it natively; emulated it would be slower than fp32."""
    if wanted == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    return wanted


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions (AVX-512 BF16 on x86, tensor cores on CUDA)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities: dict[str, Any] = getattr(
            torch.cpu, "get_capabilities", dict
        )()  # younger than the oldest torch we accept
        return bool(capabilities.get("avx512_bf16") or capabilities.get("bf16"))
    return False


def limit_gpu_memory(mebibytes: int, device: torch.device) -> None:
    """Let this process take at most so much of the GPU's memory; more raises torch's out-of-memory error."""
    if device.type != "cuda":
        raise UserError(
            f"--gpu-memory-limit {mebibytes}MB needs a CUDA device, and the run is on {device}; leave it out"
        )
    total = torch.cuda.get_device_properties(device).total_memory
    if not 0 < mebibytes * 2**20 <= total:
        raise UserError(f"--gpu-memory-limit {mebibytes}MB; the GPU has {total // 2**20} MB, give 1 to that")
    torch.cuda.set_per_process_memory_fraction(mebibytes * 2**20 / total, device.index or 0)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library


def keep_freed_memory() -> None:
    """Tell the GNU C library to keep freed memory for reuse instead of giving it back to the system.

    By default every large tensor is mapped afresh and each of its pages faults once, which costs a training step of the
    classic network up to half its time. Elsewhere (macOS, musl) this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def environment(backend: Backend) -> dict[str, Any]:
    """What a reader needs to judge or repeat a run: versions, hardware, settings, the command. JSON."""
    return {
        "command": sys.argv,
        "thumbnet": version("thumbnet"),
        "commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "device": str(backend.device),
        "gpu": torch.cuda.get_device_name(backend.device) if backend.device.type == "cuda" else None,
        "threads": backend.threads,
        "precision": backend.precision,
        "kernels": "compiled" if uses_kernels(backend) else "plain",
    }


def uses_kernels(backend: Backend) -> bool:
    """Whether the parts written in C, or on a GPU in Triton, are used: where a compiler was found."""
    if backend.device.type == "cuda":
        return gpu_module() is not None
    return backend.device.type == "cpu" and library(backend.dtype) is not None


def processor_name() -> str:
    """The CPU's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@cache
def git_commit() -> str | None:
    """The commit of the source tree thumbnet runs from, `+` appended where files differ from it; None when installed."""
    here = Path(__file__).parent
    if not (here.parent.parent / ".git").exists():
        return None
    try:
        dirty = bool(git("status", "--porcelain", "--untracked-files=no", folder=here))
        return git("rev-parse", "HEAD", folder=here) + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None


def git(*words: str, folder: Path) -> str:
    """What a git command prints."""
    result = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return result.stdout.strip()


def peak_gpu_memory_mb(device: torch.device) -> int | None:
    """The most memory of a CUDA GPU that this process's tensors held so far, in MB (10^6 bytes); None for another device."""
    return round(torch.cuda.max_memory_allocated(device) / 1e6) if device.type == "cuda" else None


def peak_memory_mb() -> int:
    """The most memory this process held so far, in MB (10^6 bytes)."""
    try:  # Linux: ru_maxrss would count the memory of the process that started this one, too
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6)
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)  # macOS counts bytes
