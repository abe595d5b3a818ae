"""Seconds of judging a run on this machine: corrupted images, and the page; writes results/judging.json.

    python benchmarks/judging.py [--data-dir DIR] [--out results] [--datasets cifar10 cifar100] [--rounds 3]

Trains a twentieth of an epoch of the default recipes of CIFAR-10 and CIFAR-100, whose networks take as long as well trained ones,
then times the commands as they are typed: `evaluate --robustness` (1,000 images, 15 kinds, 5 levels) and `report`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from thumbnet.files import write_json
from thumbnet.recipes import default_for, vary
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe_file import as_toml, recipe_table
from thumbnet.runs.run import Run

RESULTS = Path(__file__).parents[1] / "results"
EPOCHS = 0.05


def seconds_of(*words: object) -> float:
    """Of a command, from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "thumbnet.cli.main", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def judged(dataset: str, folder: Path, data: list[object], rounds: int) -> tuple[dict[str, Any], Run]:
    """The commands' seconds for the default recipe's network, and the run."""
    config, out = folder / f"{dataset}.toml", folder / dataset
    made = vary(named_recipe(default_for(dataset)), epochs=EPOCHS)
    config.write_text(as_toml(recipe_table(made), "as short as it can be"))
    seconds_of("--config", config, "train", dataset, "--out", out, "--no-report", *data)
    found = {
        "recipe": made.name,
        "robustness_seconds": [seconds_of("evaluate", out, "--robustness") for _ in range(rounds)],
        "report_seconds": [seconds_of("report", out) for _ in range(rounds)],
        "report_bytes": (out / "report.html").stat().st_size,
    }
    return found, Run.open(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--datasets", nargs="+", choices=("cifar10", "cifar100"), default=["cifar10", "cifar100"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data: list[object] = ["--data-dir", arguments.data_dir] if arguments.data_dir else []
    with tempfile.TemporaryDirectory() as folder:
        rows = [judged(dataset, Path(folder), data, arguments.rounds) for dataset in arguments.datasets]
        about = rows[0][1].environment
    record = {
        "kind": "judging",
        "command": [
            "python",
            "benchmarks/judging.py",
            "--datasets",
            *arguments.datasets,
            "--rounds",
            str(arguments.rounds),
        ],
        "rows": [row for row, _ in rows],
        **{key: about[key] for key in ("processor", "threads", "precision")},
        "versions": {key: about[key] for key in ("thumbnet", "commit", "torch")},
    }
    write_json(arguments.out / "judging.json", record)
    print(record)


if __name__ == "__main__":
    main()
