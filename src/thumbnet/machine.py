"""What a user asks of the machine: where and how to compute. What is computed is the recipe's business."""

from dataclasses import dataclass, field
from typing import Literal

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The defaults take the fastest device and precision that there are; `backend.prepare` settles them."""

    device: Device = field(default="auto", metadata={"help": "where to compute"})
    threads: int | None = field(default=None, metadata={"help": "CPU threads; one per core by default"})
    precision: Precision = field(
        default="auto", metadata={"help": "bf16 multiplies in bfloat16 and keeps weights and sums in fp32"}
    )
    gpu_memory: int | None = field(default=None, metadata={"help": "MiB of CUDA memory to stay within"})
    checkpoint_seconds: float = field(
        default=60.0, metadata={"help": "time between checkpoints: at most so much work is lost to a kill"}
    )
