"""The outcome of a run in one table of plain values."""

from typing import Any

from torch import nn

from thumbnet.backend import Backend, peak_gpu_memory_mb, peak_memory_mb
from thumbnet.data.datasets import Dataset
from thumbnet.judging.evaluation import Scores
from thumbnet.recipes.schedule import steps_per_epoch, total_steps
from thumbnet.runs.run import Run
from thumbnet.training.state import Position


def summarize(
    run: Run,
    planned: float,
    data: Dataset,
    backend: Backend,
    model: nn.Module,
    validation: Scores | None,
    position: Position,
) -> dict[str, Any]:
    """The outcome of a run, as it stands in summary.json and as `train --json` prints it."""
    rows = run.metrics
    measured = [row for row in rows if row["validation_accuracy"] is not None]
    training_seconds = sum(row["training_seconds"] for row in rows)
    images = total_steps(run.recipe, steps_per_epoch(run.recipe, len(data.train))) * run.recipe.batch_size
    return {
        "run": str(run.path),
        "dataset": run.data["name"],  # as it was called when the run began
        "recipe": run.recipe.name,
        "model": run.recipe.model,
        "members": run.recipe.members,
        "classes": len(data.classes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": run.recipe.seed,
        "device": str(backend.device),
        "precision": backend.precision,
        "epochs": run.recipe.epochs,
        "epochs_planned": planned,  # before the run; others were made where a time budget moved them
        "train_images": len(data.train),
        "train_accuracy": rows[-1]["train_accuracy"],
        "train_loss": rows[-1]["train_loss"],
        "validation_images": validation.images if validation else 0,
        "validation_groups": validation.groups if validation else None,
        "validation_accuracy": validation.accuracy if validation else None,
        "validation_top5": validation.top5 if validation else None,
        "validation_balanced_accuracy": validation.balanced_accuracy if validation else None,
        "validation_loss": validation.loss if validation else None,
        "validation_interval95": list(validation.interval95) if validation else None,
        "best_epoch": max((row["validation_accuracy"], row["epoch"]) for row in measured)[1] if measured else None,
        "l2_penalty": rows[-1]["l2_penalty"],
        "train_seconds": round(position.seconds(), 3),
        "images_per_second": round(images / training_seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
        "peak_gpu_memory_mb": peak_gpu_memory_mb(backend.device),
    }
