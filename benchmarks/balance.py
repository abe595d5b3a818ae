"""What `--balance` does where classes are uneven; writes results/balance.json.

    python benchmarks/balance.py [--data-dir DIR] [--out results]

Of CIFAR-10's first five classes 1,000 training images each, of the others 50; measured on the 10,000 test images, which are even.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thumbnet.data.datasets import Dataset, load_dataset
from thumbnet.files import write_json
from thumbnet.judging.evaluation import evaluate
from thumbnet.machine import Machine
from thumbnet.recipes import recipe
from thumbnet.runs.run import Run
from thumbnet.training.loop import train

RESULTS = Path(__file__).parents[1] / "results"
ONE_THREAD = Machine(threads=1)
EPOCHS, SEEDS, BALANCES = 5, 3, (0.0, 0.5, 1.0)
IMAGES = [1_000] * 5 + [50] * 5  # of each class


def uneven_set(folder: Path, data_dir: Path | None) -> Dataset:
    """The first images of each class, and all test images, as a file of their own."""
    cifar = load_dataset("cifar10", data_dir=data_dir, validation=0)
    assert cifar.test is not None
    test = cifar.test.unlock()
    labels = cifar.development.labels
    rows = (
        torch.cat([(labels == label).nonzero().flatten()[:count] for label, count in enumerate(IMAGES)]).sort().values
    )
    arrays = {"x_train": cifar.development.images[rows].numpy(), "y_train": labels[rows].numpy()}
    np.savez(folder / "uneven.npz", **arrays, x_test=test.images.numpy(), y_test=test.labels.numpy())
    return load_dataset(folder / "uneven.npz")


def measured(data: Dataset, folder: Path, balance: float, seed: int) -> tuple[dict[str, Any], Run]:
    """What a run reaches, and the run."""
    chosen = recipe("general", epochs=EPOCHS, balance=balance, seed=seed)
    run = train(chosen, data, folder / f"{balance}-{seed}", machine=ONE_THREAD, plots=False)
    scores = evaluate(run, split="test", machine=ONE_THREAD)
    held_out = run.summary["validation_accuracy"]
    row = {"balance": balance, "seed": seed, "accuracy": scores.accuracy, "per_class": scores.per_class}
    row |= {
        "validation_accuracy": held_out,
        "validation_balanced_accuracy": evaluate(run, machine=ONE_THREAD).balanced_accuracy,
    }
    return row, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = uneven_set(Path(folder), arguments.data_dir)
        for balance in BALANCES:
            for seed in range(SEEDS):
                row, run = measured(data, Path(folder), balance, seed)
                rows.append(row)
                print(row, flush=True)
        about = run.environment
    record = {
        "kind": "balance",
        "command": ["python", "benchmarks/balance.py"],
        "images_by_class": IMAGES,
        "trained": {"recipe": "general", "epochs": EPOCHS},
        "rows": rows,
        **{key: about[key] for key in ("processor", "threads", "precision")},
        "versions": {key: about[key] for key in ("thumbnet", "torch")},
    }
    write_json(arguments.out / "balance.json", record)


if __name__ == "__main__":
    main()
