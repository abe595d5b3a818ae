"""One run of a campaign: trained and measured inside one clock, in a fresh process or in this one.

The order for it and its row are plain values, so that they can be handed to another process, and kept.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.errors import Interrupted, ThumbnetError, TrainingFailed, UserError
from thumbnet.files import write_json
from thumbnet.machine import Machine
from thumbnet.processes import look_for_garbage_seldom, python
from thumbnet.reading import read_json
from thumbnet.recipes import named, vary
from thumbnet.recipes.recipe import FEWEST_EPOCHS, Recipe
from thumbnet.runs.run import Run
from thumbnet.signals import StopSignals

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset
    from thumbnet.training.workshop import Workshop

ROW = "bench.json"  # in the folder of a measured run: what `--resume` keeps
SECONDS_BETWEEN_LOOKS = 0.5
WARM_UP_SEED = 1_000_000  # added to the first seed: no campaign has as many
WARM_UP_STEPS = 100  # of a run that is thrown away: some at every resolution, and with the stem trained or not
MACHINE = ("processor", "gpu", "threads", "precision", "kernels")  # what the runs of a campaign must share


def recipe_of(order: dict[str, Any]) -> Recipe:
    """The recipe that is ordered. What has an effect was asked when somebody typed the changes; an order may have more."""
    return vary(named(order["recipe"]), **order["changes"])


def ordered_data(order: dict[str, Any]) -> "Dataset":
    """The data set that is ordered, whole."""
    from thumbnet.data.datasets import load_dataset

    return load_dataset(order["dataset"], data_dir=order["data_dir"], validation=0, **order["decoding"])


def one_run(order: dict[str, Any], workshop: "Workshop | None" = None) -> dict[str, Any]:
    """Train and measure one seed. The train clock runs from images in memory to the last accuracy.

    For a run that was interrupted it is the sum over its processes. What one view gives is measured off the clock, and kept in
    the run folder as `evaluate` keeps it: the test set is open once.
    """
    from thumbnet.backend import peak_gpu_memory_mb, peak_memory_mb
    from thumbnet.judging.evaluation import load_for_evaluation, predict_logits, predictions_of, record_scores, score
    from thumbnet.training.loop import train

    recipe, machine = recipe_of(order), Machine(**order["machine"])
    data = ordered_data(order).with_validation(**recipe.cut).in_memory()
    began = time.perf_counter()
    options: dict[str, Any] = {"machine": machine, "resume": order["resume"], "workshop": workshop}
    run = train(recipe, data, order["out"], plots=False, latest=False, **options)
    trained = time.perf_counter()
    seconds_before = max(0.0, run.summary["wall_seconds"] - (trained - began))  # in the processes of an interrupted run
    model, chosen, backend = load_for_evaluation(run, data, order["split"], machine)
    labels = chosen.labels[chosen.rows]
    logits = predict_logits(model, chosen, backend, views=recipe.test_views, uncertain=recipe.uncertain)
    scores = score(logits, labels, data.classes, split=order["split"], views=recipe.test_views)
    clock = seconds_before + time.perf_counter() - began
    said = predictions_of(chosen, predict_logits(model, chosen, backend), data, split=order["split"])
    single = record_scores(run, said, backend)
    return {
        "seed": recipe.seed,
        "accuracy": scores.accuracy,
        "accuracy_1_view": single.accuracy,
        "top5": scores.top5,
        "top5_1_view": single.top5,
        "loss": scores.loss,
        "views": scores.views,
        "images": scores.images,
        "train_clock": round(clock, 3),
        "evaluation_seconds": round(clock - seconds_before - (trained - began), 3),
        "seconds_before": round(seconds_before, 3),
        "images_per_second": run.summary["images_per_second"],
        "peak_memory_mb": max(peak_memory_mb(), run.summary["peak_memory_mb"]),
        "peak_gpu_memory_mb": max(
            known((peak_gpu_memory_mb(backend.device), run.summary.get("peak_gpu_memory_mb"))), default=None
        ),
        "test_openings": run.test_openings,
        "environment": run.environment,
    }


def in_fresh_process(order: dict[str, Any]) -> dict[str, Any]:
    """Run one seed in a new interpreter; its row, with the cold wall from before the process began to after its last line.

    Raises `TrainingFailed` where it fails, `UserError` where it is refused, and `Interrupted` after a signal to stop: the
    process has then written a checkpoint, or its row.
    """
    began = time.perf_counter()
    with StopSignals() as stop:
        process = subprocess.Popen(
            python("-m", "thumbnet.measuring.measured_run"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on once
        )
        printed = answer_of(process, json.dumps(order), stop)
    wall = time.perf_counter() - began
    row: dict[str, Any] = json.loads(printed.splitlines()[-1]) if printed else {}
    if process.returncode == 0:
        row["cold_wall"] = round(wall + row["seconds_before"], 3)
        write_json(Path(order["out"]) / ROW, {"order": order, "row": row})
    if stop.received:
        raise stopped(stop)
    if process.returncode:
        reason = row.get("error", f"exit code {process.returncode}")
        kind = UserError if process.returncode == UserError.exit_code else TrainingFailed
        raise kind(f"the run with seed {order['changes']['seed']} failed ({reason}); --resume keeps the others")
    return row


def answer_of(process: subprocess.Popen[str], question: str, stop: StopSignals) -> str:
    """What the process prints until it ends. It is told to stop when a signal came, or something went wrong here."""
    waiting: str | None = question
    try:
        while True:
            try:
                return process.communicate(waiting, timeout=SECONDS_BETWEEN_LOOKS)[0]
            except subprocess.TimeoutExpired:
                waiting = None  # communicate goes on with the first
            if stop.received:
                process.terminate()
                return process.communicate()[0]
    except BaseException:
        process.terminate()
        process.wait()
        raise


class InThisProcess:
    """Runs one seed after the other here, the first after one that warms up, with what that left behind."""

    def __init__(self) -> None:
        from thumbnet.training.workshop import Workshop

        self.workshop = Workshop()
        self.warm = False

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        with StopSignals() as stop:
            if not self.warm:
                self.warm_up(order)
            if stop.received:  # while images were loaded or the warm run was measured
                raise stopped(stop)
            row = one_run(order, self.workshop) | {"cold_wall": None}
            write_json(Path(order["out"]) / ROW, {"order": order, "row": row})
        if stop.received:  # while it was measured, which is ended: the test set is open
            raise stopped(stop)
        return row

    def warm_up(self, order: dict[str, Any]) -> None:
        """Train and measure once what nobody counts."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                one_run(warming_up(order, folder), self.workshop)
            except Interrupted:  # it tells how to go on in the folder that is removed now
                raise Interrupted(
                    "stopped in the run that warms up, which is not kept; the same command with --resume begins with it again"
                ) from None
        self.warm = True


def warming_up(order: dict[str, Any], folder: str) -> dict[str, Any]:
    """The same with another seed and few steps, measured on images held out from training."""
    from thumbnet.recipes.schedule import steps_per_epoch

    held_out = {"validation": 0.1, "folds": 0, "fold": 0}
    changes = {**order["changes"], "start_from": "", "seed": order["changes"]["seed"] + WARM_UP_SEED, **held_out}
    recipe = recipe_of(order | {"changes": changes})
    data = ordered_data(order).with_validation(**recipe.cut)
    enough = WARM_UP_STEPS / steps_per_epoch(recipe, len(data.train))
    changes["epochs"] = min(recipe.epochs, max(enough, FEWEST_EPOCHS))
    return {**order, "changes": changes, "split": "validation", "out": str(Path(folder) / "run"), "resume": False}


def stopped(stop: StopSignals) -> Interrupted:
    """What to raise when a seed is kept and no other is to follow."""
    return Interrupted(f"stopped by {stop.received}; the same command with --resume goes on with the campaign")


def measured_before(order: dict[str, Any]) -> dict[str, Any] | None:
    """The row of a seed that a stopped campaign had measured already, or None.

    Raises `UserError` where it was another campaign's: other data, recipe or machine, the one asked for or the one it ran on.
    """
    from thumbnet.backend import environment, prepare

    path = Path(order["out"]) / ROW
    if not path.is_file():
        return None
    kept, same = read_json(path, {"order": dict, "row": dict}), json.loads(json.dumps(order))
    differing = [key for key in ("changes", "dataset", "split", "machine") if kept["order"].get(key) != same[key]]
    had = kept["order"].get("decoding", {})  # older ones lack it
    differing += [key for key in {**had, **order["decoding"]} if had.get(key) != order["decoding"].get(key)]
    if Run.open(order["out"]).recipe != recipe_of(order):
        differing.append("fields of the recipe")
    if differing:
        raise UserError(f"{order['out']} was measured with other {differing[0]}; give another --runs")
    there, here = kept["row"]["environment"], environment(prepare(Machine(**order["machine"])))
    if elsewhere := [key for key in MACHINE if there.get(key) != here[key]]:
        key = elsewhere[0]
        raise UserError(
            f"{order['out']} was measured with {key} {there.get(key)}, and this machine has {here[key]}; give another --runs"
        )
    return dict(kept["row"])


def known(values: Iterable[float | None]) -> list[float]:
    """Those that were measured."""
    return [value for value in values if value is not None]


if __name__ == "__main__":
    look_for_garbage_seldom()
    try:
        with StopSignals():  # beyond training, a measurement that was begun is ended: the test set is open
            print(json.dumps(one_run(json.loads(sys.stdin.read()))))
    except ThumbnetError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(error.exit_code)
