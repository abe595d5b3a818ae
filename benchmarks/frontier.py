"""Accuracy against seconds: CIFAR-10 under one time budget after the other, written to results/cifar10-frontier.json and drawn.

    python benchmarks/frontier.py [--budgets 10 15 30 60 120 240] [--seed 0] [--out FOLDER] [--peer NAME SECONDS ACCURACY]...
    python benchmarks/frontier.py --draw        # the picture only, from the recorded points

--out is another folder for another machine, results/without-bf16 say; the picture has a line for every machine recorded.

Every point is one run of `thumbnet train cifar10 --time-budget` on all training images, and one opening of the test set with
the six views that the fast recipes state. --peer adds points of other programs, measured by whoever gives them, in seconds of
wall time.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from thumbnet.data.datasets import load_dataset
from thumbnet.files import write_json
from thumbnet.measuring.operations import training_flops
from thumbnet.measuring.results import recorded
from thumbnet.plots.style import TRAINING, VALIDATION, save
from thumbnet.runs.run import Run

ROOT = Path(__file__).parents[1]
NAME = "cifar10-frontier.json"
PICTURE = ROOT / "docs" / "images" / "cifar10-frontier.png"
SECONDS = (5, 10, 20, 60, 120, 300, 600)  # of the picture
STYLES = (("-", TRAINING), ("--", "white"), (":", "#bdd7ea"))  # of the machines: line, and what fills its marks
VIEWS, UNCERTAIN = "6", "0.25"


def thumbnet(*words: str) -> dict[str, Any]:
    """The JSON that a command prints."""
    command = [sys.executable, "-m", "thumbnet.cli.main", *words, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def point(budget: float, seed: int, folder: Path) -> dict[str, Any]:
    """One run under a budget, and its accuracy."""
    out = str(folder / f"{budget:g}")
    began = time.perf_counter()
    options = ["--time-budget", f"{budget:g}s", "--validation", "0", "--seed", str(seed), "--out", out]
    summary = thumbnet("train", "cifar10", *options)
    seconds = time.perf_counter() - began
    scores = thumbnet("evaluate", out, "--split", "test", "--views", VIEWS, "--uncertain", UNCERTAIN)
    recipe = Run.open(out).recipe
    return {
        "budget": budget,
        "seconds": round(seconds, 2),
        "accuracy": scores["accuracy"],
        "model": recipe.model,
        "widths": recipe.widths,
        "resolution": recipe.resolution,
        "epochs": recipe.epochs,
        "training_flops": training_flops(recipe, load_dataset("cifar10", validation=0)),
        "train_seconds": summary["train_seconds"],
    }


def machine_of(record: dict[str, Any]) -> str:
    """Where a result was measured, in short."""
    return f"{record['processor']}, {record['precision']}"


def name_point(axes: Any, name: str, seconds: float, accuracy: float, *, below: bool = False) -> None:
    """A point's name above it, or below."""
    offset, side = ((0, -8), "top") if below else ((0, 7), "bottom")
    place = {"xytext": offset, "textcoords": "offset points", "ha": "center", "va": side}
    axes.annotate(name, (seconds, accuracy), fontsize=8, **place)


def draw(records: list[dict[str, Any]]) -> Figure:
    """Accuracy on a scale of odds, so that 83 to 84 and 94 to 94.5 are comparable steps; seconds on a logarithmic one.

    A line of time budgets for every machine, and beside it the means of the named recipes' campaigns.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    frontiers = [record for record in records if record["kind"] == "frontier"]
    accuracies = [row["accuracy"] for record in frontiers for row in record["points"]]
    for record, (line, filling) in zip(frontiers, STYLES, strict=False):
        look = {"color": TRAINING, "markerfacecolor": filling}
        seconds, reached = zip(*((row["seconds"], row["accuracy"]) for row in record["points"]), strict=True)
        axes.plot(seconds, reached, "o" + line, **look, label=f"time budgets, {machine_of(record)}")
        for peer in record["peers"]:
            axes.plot(peer["seconds"], peer["accuracy"], "s", color=VALIDATION)
            name_point(axes, peer["name"].replace(", ", ",\n"), peer["seconds"], peer["accuracy"], below=True)
        campaigns = [row for row in records if row["kind"] == "campaign" and row["dataset"] == "cifar10"]
        campaigns = [row for row in campaigns if not row["changes"]]  # of recipes as they are
        for row in campaigns:
            if machine_of(row) == machine_of(record) and (row["cold_wall"] or math.inf) < SECONDS[-1]:
                axes.plot(row["cold_wall"], row["accuracy"], "D", **look)
                accuracies.append(row["accuracy"])
                if record is frontiers[0]:  # the others stand at the same height
                    name_point(axes, row["recipe"], row["cold_wall"], row["accuracy"])
    axes.plot([], [], "D", color=TRAINING, label="the named recipes there")
    axes.set_xscale("log")
    axes.set_yscale("logit")
    low = np.floor(min(accuracies) * 20) / 20
    ticks = [tick for tick in (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96) if tick >= low]
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_xlim(SECONDS[0], SECONDS[-1])
    axes.set_xticks(SECONDS, [f"{mark} s" for mark in SECONDS])
    axes.set_xticks([], minor=True)
    axes.set(
        xlabel="seconds, from the start of the command to its end", ylabel="test accuracy, 6 views of the least certain"
    )
    axes.set_title("CIFAR-10: time budgets (one run a point) and named recipes (mean of n)", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def without_folder(words: list[str]) -> list[str]:
    """A command without --out and the folder behind it: where its file was written says nothing of how it was made."""
    return words[: words.index("--out")] + words[words.index("--out") + 2 :] if "--out" in words else words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=float, nargs="+", default=[10, 15, 30, 60, 120, 240])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    parser.add_argument("--peer", nargs=3, action="append", default=[], metavar=("NAME", "SECONDS", "ACCURACY"))
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    if not arguments.draw:
        with tempfile.TemporaryDirectory() as folder:
            points = [point(budget, arguments.seed, Path(folder)) for budget in arguments.budgets]
            about = Run.open(Path(folder) / f"{arguments.budgets[0]:g}").environment
        record = {
            "kind": "frontier",
            "dataset": "cifar10",
            "command": ["python", *without_folder(sys.argv)],
            "seed": arguments.seed,
            "views": int(VIEWS),
            "uncertain": float(UNCERTAIN),
            "points": points,
            "peers": [
                {"name": name, "seconds": float(seconds), "accuracy": float(accuracy)}
                for name, seconds, accuracy in arguments.peer
            ],
            **{key: about[key] for key in ("processor", "threads", "precision")},
            "versions": {key: about[key] for key in ("thumbnet", "commit", "python", "torch", "numpy")},
        }
        write_json(arguments.out / NAME, record)
    save(draw(recorded()), PICTURE)


if __name__ == "__main__":
    main()
