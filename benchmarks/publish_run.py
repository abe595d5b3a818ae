"""Write a finished, tested run to results/, so that `thumbnet list recipes` and the README show it, and its
curve in the original report's form to docs/images/.

    thumbnet evaluate RUN --split test
    python benchmarks/publish_run.py RUN NAME [--not-timed]

Everything is read from the run folder. --not-timed leaves the times out, for runs on a machine that was not idle.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from thumbnet.files import write_json
from thumbnet.recipes import base_of
from thumbnet.recipes.recipe import differences
from thumbnet.runs.run import Run

ROOT = Path(__file__).parents[1]


def published(run: Run, *, timed: bool) -> dict[str, Any]:
    """What results/ says of one run."""
    rows = [json.loads(line) for line in (run.path / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()]
    tested = [row for row in rows if row["split"] == "test" and row["views"] == 1]
    if not tested:
        raise SystemExit(f"{run.path} was not tested yet: thumbnet evaluate {run.path} --split test")
    test, summary, about = tested[0], run.summary, run.environment
    changes = {name: new for name, (new, _) in differences(run.recipe, base_of(run.recipe)).items() if name != "seed"}
    return {
        "kind": "accuracy",
        "recipe": run.recipe.name,
        "dataset": run.data["name"],
        "changes": changes,
        "command": ["thumbnet", *without_place(about["command"][1:])],
        "seeds": [run.recipe.seed],
        "n": 1,
        "epochs": run.recipe.epochs,
        "train_images": summary["train_images"],
        "test_accuracy": test["accuracy"],
        "test_top5": test["top5"],
        "test_loss": test["loss"],
        "test_loss_with_l2": test["loss"] + summary["l2_penalty"],
        "test_interval95": test["interval95"],
        "test_openings": run.test_openings,
        "validation_accuracy": summary["validation_accuracy"],
        "train_accuracy": summary["train_accuracy"],
        "train_seconds": summary["train_seconds"] if timed else None,
        "images_per_second": summary["images_per_second"] if timed else None,
        "peak_memory_mb": summary["peak_memory_mb"],
        "peak_gpu_memory_mb": summary.get("peak_gpu_memory_mb"),
        "processor": about.get("gpu") or about["processor"],
        "threads": about["threads"],
        "precision": summary["precision"],
        "versions": {key: about[key] for key in ("thumbnet", "commit", "python", "torch", "numpy")},
    }


def without_place(command: list[str]) -> list[str]:
    """Without `--out FOLDER` or `--out=FOLDER`, which changes nothing."""
    kept = [word for word, before in zip(command, ["", *command], strict=False) if before != "--out"]
    return [word for word in kept if word != "--out" and not word.startswith("--out=")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="file in results/, without .json; h100/NAME for one of its folders")
    parser.add_argument("--not-timed", action="store_true")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    write_json(ROOT / "results" / f"{arguments.name}.json", published(run, timed=not arguments.not_timed))
    picture = ROOT / "docs" / "images" / f"{arguments.name.replace('/', '-')}.png"
    shutil.copy(run.path / "plots" / "classic.png", picture)


if __name__ == "__main__":
    main()
