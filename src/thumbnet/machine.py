"""What a user asks of the machine: where and how to compute. What is computed is the recipe's business."""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from thumbnet.errors import UserError
from thumbnet.words import counted

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]


def mebibytes(text: str) -> int:
    """`3072`, `3072MB` or `3GB`, units of 1024 as TensorFlow's `memory_limit` has them. Raises `ValueError` on others."""
    amount = re.fullmatch(r"(\d+) ?(|M|MB|MiB|G|GB|GiB)", text, re.IGNORECASE)
    if amount is None:
        raise ValueError(f"{text!r} is no amount of memory; give it as 3072MB or 3GB")
    return int(amount[1]) * (1024 if amount[2][:1] in ("G", "g") else 1)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The defaults take the fastest device and precision that there are; `backend.prepare` settles them.

    Raises `UserError` for no threads, or far more than there are cores.
    """

    device: Device = field(default="auto", metadata={"help": "where to compute"})
    threads: int | None = field(default=None, metadata={"help": "CPU threads; one per core by default"})
    precision: Precision = field(
        default="auto", metadata={"help": "bf16 multiplies in bfloat16 and keeps weights and sums in fp32"}
    )
    gpu_memory_limit: int | None = field(
        default=None, metadata={"help": "CUDA memory to stay within, as 3072MB or 3GB", "read": mebibytes}
    )
    checkpoint_seconds: float = field(
        default=60.0, metadata={"help": "time between checkpoints: about the most work that a kill can cost"}
    )

    def __post_init__(self) -> None:
        cores = os.cpu_count() or 1
        if self.threads is not None and not 1 <= self.threads <= 4 * cores:  # more would only crawl
            raise UserError(
                f"threads is {self.threads}, and this machine has {counted(cores, 'core')}; give 1 to {cores}"
            )


@dataclass(frozen=True)
class Moment:
    """When it was, and the seconds that all programs of this machine had computed by then, and this one."""

    when: float
    by_all: float
    by_this: float


def moment() -> Moment | None:
    """Now; None where Linux does not tell."""
    try:
        user, nice, system, _, _, interrupts, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    except (OSError, ValueError):
        return None
    ticks = user + nice + system + interrupts + soft
    return Moment(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]))


SLOWED = "training will be several times slower; --threads 1 may be faster"


def others_note(before: Moment | None, now: Moment | None, cores: int) -> str | None:
    """A line where other programs have computed on a quarter of the cores or more between two moments, else None."""
    if before is None or now is None or now.when <= before.when:
        return None
    busy = (now.by_all - before.by_all - now.by_this + before.by_this) / (now.when - before.when)
    if busy < cores / 4:
        return None
    return f"note: other programs keep {busy:.1f} of {cores} cores busy: {SLOWED}"
