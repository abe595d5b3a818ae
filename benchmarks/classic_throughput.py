"""The classic recipe's training throughput beside the same program in Keras, on this machine, in one sitting.

    python benchmarks/classic_throughput.py --peer path/to/peer/bin/python

`peer` is a virtual environment with `tensorflow-cpu` and `scipy` (see keras_peer.py). The programs take turns, each in a
fresh process, on real CIFAR-10 with batch 64; the medians go to results/classic-throughput.json with versions and
command. Run it on an idle machine. Without --peer only our side is measured and nothing is written.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "classic-throughput.json"
PEER_IMAGES = 10_000  # handed to Keras as float32; more would only cost it memory
WARM_UP, STEPS = 8, 40


def measure_ours(precision: str) -> None:
    """In a fresh process: `train` itself on real CIFAR-10, stopped after some steps; one JSON line."""
    import torch

    from thumbnet.augment import augment
    from thumbnet.backend import peak_memory_mb
    from thumbnet.data.datasets import load_dataset
    from thumbnet.errors import Interrupted
    from thumbnet.machine import Machine
    from thumbnet.randomness import generator
    from thumbnet.recipes import recipe
    from thumbnet.signals import StopRequested
    from thumbnet.training import loop

    classic, data = recipe("cifar10-classic"), load_dataset("cifar10", validation=0.2)
    moments: list[float] = []

    class Watch(loop.Reporter):
        def step(self, done: int, total: int, line: Callable[[], str]) -> None:
            moments.append(time.perf_counter())
            if done == WARM_UP + STEPS:
                raise StopRequested("the benchmark")

    with tempfile.TemporaryDirectory() as folder:
        try:
            machine = Machine(device="cpu", precision=precision)  # type: ignore[arg-type]
            loop.train(classic, data, Path(folder) / "run", machine=machine, reporter=Watch())
        except Interrupted:
            pass
    images, _ = data.train.take(torch.arange(64))
    start = time.perf_counter()
    for step in range(1000):
        augment(images, classic, generator("cpu", 0, "augment", 0, step), torch.zeros(len(images), dtype=torch.bool))
    augmented = 64 * 1000 / (time.perf_counter() - start)
    seconds = moments[-1] - moments[WARM_UP - 1]
    steps = [later - earlier for earlier, later in zip(moments[WARM_UP:], moments[WARM_UP + 1 :], strict=False)]
    result = {
        "images_per_second": round(64 * STEPS / seconds, 1),
        "median_step_seconds": round(statistics.median(steps), 4),
        "augmentation_images_per_second": round(augmented),
        "peak_memory_mb": peak_memory_mb(),
    }
    print(json.dumps(result))


def export_images(path: Path) -> None:
    """Real CIFAR-10 training images as the peer reads them."""
    import numpy as np

    from thumbnet.data.datasets import load_dataset

    data = load_dataset("cifar10", validation=0)
    images = data.development.images[:PEER_IMAGES].permute(0, 2, 3, 1).numpy()
    np.savez(path, images=images, labels=data.development.labels[:PEER_IMAGES].numpy())


def run_json(command: list[str]) -> dict[str, Any]:
    """The JSON object that a command prints last."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median of each number over the rounds, and all the rounds' throughputs."""
    numbers = {
        key: statistics.median(row[key] for row in rows) for key, value in rows[0].items() if not isinstance(value, str)
    }
    return numbers | {"rounds": [row["images_per_second"] for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="python of an environment with tensorflow-cpu and scipy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", choices=("fp32", "bf16"), help="measure one precision in this process and print it")
    arguments = parser.parse_args()
    if arguments.ours:
        measure_ours(arguments.ours)
        return
    rows: dict[str, list[dict[str, Any]]] = {"fp32": [], "bf16": [], "keras": []}
    with tempfile.TemporaryDirectory() as folder:
        export_images(Path(folder) / "images.npz")
        for _ in range(arguments.rounds):
            for precision in ("fp32", "bf16"):
                rows[precision].append(run_json([sys.executable, __file__, "--ours", precision]))
            if arguments.peer:
                peer = [
                    str(arguments.peer),
                    str(ROOT / "benchmarks" / "keras_peer.py"),
                    f"{folder}/images.npz",
                    "--steps",
                    str(STEPS),
                ]
                rows["keras"].append(run_json(peer))
    print(json.dumps({name: medians(found) for name, found in rows.items() if found}, indent=2))
    if arguments.peer:
        write_result(rows, arguments.rounds)


def write_result(rows: dict[str, list[dict[str, Any]]], rounds: int) -> None:
    """results/classic-throughput.json, with what a reader needs to repeat it."""
    from thumbnet.backend import environment, prepare
    from thumbnet.files import write_json
    from thumbnet.machine import Machine

    about = environment(prepare(Machine(device="cpu")))
    fp32, bf16, keras = (medians(rows[name]) for name in ("fp32", "bf16", "keras"))
    result = {
        "kind": "throughput",
        "what": "classic pre-activation ResNet-50, CIFAR-10, batch 64, training with augmentation",
        "command": "python benchmarks/classic_throughput.py --peer peer/bin/python",
        "rounds": rounds,
        "steps": STEPS,
        "processor": about["processor"],
        "threads": about["threads"],
        "versions": {key: about[key] for key in ("thumbnet", "commit", "python", "torch", "numpy")},
        "peer": rows["keras"][0]["peer"],
        "thumbnet_fp32": fp32,
        "thumbnet_bf16": bf16,
        "keras": keras,
        "ratio_fp32": round(fp32["images_per_second"] / keras["images_per_second"], 2),
        "ratio_bf16": round(bf16["images_per_second"] / keras["images_per_second"], 2),
        "ratio_augmentation": round(
            bf16["augmentation_images_per_second"] / keras["augmentation_images_per_second"], 1
        ),
    }
    write_json(OUT, result)
    print(OUT)


if __name__ == "__main__":
    main()
