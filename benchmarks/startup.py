"""Start-up, loading and memory on this machine: results/startup.json.

    THUMBNET_DATA=folder python benchmarks/startup.py

Times the command line's `--help` (process start to exit), reading the published CIFAR-10 files, and mapping the converted
set; and takes the peak memory of one epoch of `thumbnet train cifar10` from its summary. Run it on an idle machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from thumbnet.backend import environment, prepare
from thumbnet.data.cifar import read_cifar10
from thumbnet.data.datasets import load_dataset
from thumbnet.files import write_json
from thumbnet.machine import Machine

OUT = Path(__file__).parents[1] / "results" / "startup.json"
REPEATS = 7
COMMAND = [sys.executable, "-m", "thumbnet.cli.main"]


def median_seconds(work: Callable[[], object]) -> float:
    """Median over a few repeats, after one that warms the page cache."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds), 3)


def train_one_epoch() -> dict[str, object]:
    """The summary of `thumbnet train cifar10 --epochs 1`."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*COMMAND, "train", "cifar10", "--epochs", "1", "--json"]
        result = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def main() -> None:
    files = Path(os.environ["THUMBNET_DATA"])
    about = environment(prepare(Machine(device="cpu")))
    summary = train_one_epoch()
    result = {
        "kind": "startup",
        "command": "python benchmarks/startup.py",
        "repeats": REPEATS,
        "help_seconds": median_seconds(lambda: subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)),
        "read_cifar10_files_seconds": median_seconds(lambda: read_cifar10(files)),
        "load_cifar10_mapped_seconds": median_seconds(lambda: load_dataset("cifar10", validation=0.1)),
        "train_cifar10_peak_memory_mb": summary["peak_memory_mb"],
        "train_cifar10_images_per_second": summary["images_per_second"],
        "processor": about["processor"],
        "threads": about["threads"],
        "versions": {key: about[key] for key in ("thumbnet", "commit", "python", "torch", "numpy")},
    }
    write_json(OUT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
