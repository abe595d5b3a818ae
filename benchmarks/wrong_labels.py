"""What `doctor --labels` finds of wrong labels, and what leaving those images out is worth; writes results/wrong-labels.json.

    python benchmarks/wrong_labels.py [--data-dir DIR] [--out results]

CIFAR-10 as it is, and with training labels (the held-out ones among them) made wrong: some of all classes, to any other, or
30 % of five classes, to one that is like it. Measured on the 10,000 test images, whose labels stay as they are.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thumbnet.data.datasets import Dataset, load_dataset
from thumbnet.doctor import check_labels
from thumbnet.files import write_json, write_text
from thumbnet.judging.evaluation import evaluate
from thumbnet.machine import Machine
from thumbnet.recipes import recipe
from thumbnet.runs.run import Run
from thumbnet.training.loop import train

RESULTS = Path(__file__).parents[1] / "results"
RECIPE, EPOCHS = "cifar10-83", 4  # four, since in its own 1.4 no label is learnt by heart
ALIKE = {
    "cat": "dog",
    "dog": "cat",
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
}  # of Patrini et al. 2017
KINDS = {"none": 0.0, "2 % at random": 0.02, "20 % at random": 0.2, "30 % of five classes": 0.3}
SEEDS, FOLDS = 3, 4
MACHINE = Machine(threads=2)


def with_wrong_labels(kind: str, seed: int, folder: Path, data_dir: Path | None) -> tuple[Dataset, Tensor]:
    """CIFAR-10 in a file of its own, with such training labels wrong, and which these are (int64)."""
    cifar = load_dataset("cifar10", data_dir=data_dir, validation=0)
    assert cifar.test is not None
    test, labels = cifar.test.unlock(), cifar.development.labels.numpy().copy()
    random = np.random.default_rng(seed)
    if kind.endswith("classes"):
        others = {cifar.classes.index(one): cifar.classes.index(other) for one, other in ALIKE.items()}
        wrong = np.flatnonzero(np.isin(labels, list(others)) & (random.random(len(labels)) < KINDS[kind]))
        labels[wrong] = [others[label] for label in labels[wrong]]
    else:
        wrong = np.sort(random.choice(len(labels), round(KINDS[kind] * len(labels)), replace=False))
        labels[wrong] = (labels[wrong] + random.integers(1, 10, len(wrong))) % 10
    path = folder / f"{kind}-{seed}.npz"
    arrays = {"x_train": cifar.development.images.numpy(), "y_train": labels}
    np.savez(path, **arrays, x_test=test.images.numpy(), y_test=test.labels.numpy())
    return load_dataset(path, validation=0), torch.from_numpy(wrong)


def measured(data: Dataset, left_out: Tensor, folder: Path, seed: int) -> tuple[float, Run]:
    """Accuracy on the test images of a run without some training images, and the run."""
    folder.mkdir()
    write_text(folder / "left-out.txt", "".join(f"{row}\n" for row in left_out.tolist()))
    chosen = recipe(RECIPE, epochs=EPOCHS, seed=seed, leave_out=str(folder / "left-out.txt"))
    run = train(chosen, data, folder / "run", machine=MACHINE, plots=False)
    return evaluate(run, split="test", machine=MACHINE).accuracy, run


def case(kind: str, seed: int, folder: Path, data_dir: Path | None) -> tuple[dict[str, Any], Run]:
    """One data set: what the doctor doubts, and runs on all images, without those, and without those that are wrong."""
    data, wrong = with_wrong_labels(kind, seed, folder, data_dir)
    checked = check_labels(
        data, recipe(RECIPE, seed=seed), folder / f"check-{kind}-{seed}", folds=FOLDS, machine=MACHINE
    )
    doubted = torch.tensor([suspect.place.row for suspect in checked.suspects], dtype=torch.int64)
    row: dict[str, Any] = {"kind": kind, "seed": seed, "wrong": len(wrong), "expected": checked.expected_wrong}
    row |= {"doubted": len(doubted), "found": int(torch.isin(doubted, wrong).sum())}
    arms = {"all": doubted[:0], "without_doubted": doubted} | ({"without_wrong": wrong} if len(wrong) else {})
    for name, left_out in arms.items():
        row[name], run = measured(data, left_out, folder / f"{name}-{kind}-{seed}", seed)
    return row, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for seed in range(SEEDS):
                row, run = case(kind, seed, Path(folder), arguments.data_dir)
                rows.append(row)
                print(row, flush=True)
        about = run.environment
    record = {
        "kind": "wrong-labels",
        "command": ["python", "benchmarks/wrong_labels.py"],
        "trained": {"recipe": RECIPE, "epochs": EPOCHS, "validation": 0.1, "views": 1},
        "doubted_by": {"recipe": RECIPE, "folds": FOLDS},
        "rows": rows,
        **{key: about[key] for key in ("processor", "threads", "precision")},
        "versions": {key: about[key] for key in ("thumbnet", "torch")},
    }
    write_json(arguments.out / "wrong-labels.json", record)


if __name__ == "__main__":
    main()
