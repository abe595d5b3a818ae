"""Training: one visible loop from batch to weight update, and what frames it."""
# Shapes: B batch, C channels, H and W height and width, K classes.

import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.augment import augment
from thumbnet.backend import Backend, environment, place, prepare
from thumbnet.data.batches import Split, epoch_order
from thumbnet.errors import Interrupted, TrainingFailed, UserError
from thumbnet.evaluation import Scores, predict_logits, score
from thumbnet.machine import Machine
from thumbnet.optimize import build_optimizer, l2_penalty
from thumbnet.progress import Reporter, duration
from thumbnet.randomness import generator, global_draws
from thumbnet.recipes.recipe import Recipe, differences
from thumbnet.runs import Run, build_model, new_run_path, point_latest
from thumbnet.schedule import learning_rate
from thumbnet.signals import StopRequested, StopSignals

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

CHECKPOINT_SECONDS = (
    60.0  # at most so much work is lost to a kill; a checkpoint of the classic network takes half a second
)
GPU_READS_EVERY = 50  # steps between looks at the loss on a GPU, where each look waits for the device


def train(
    recipe: Recipe,
    data: "Dataset",
    out: "str | Path | None" = None,
    *,
    machine: Machine | None = None,
    resume: bool = True,
    reporter: Reporter | None = None,
    started: float | None = None,
) -> Run:
    """Fit `recipe` on `data.train` and write the run folder `out` (a new one under runs/ by default).

    Never opens the test split. With `resume`, an interrupted run in `out` is continued and a finished one returned; the
    result is, bit for bit on a CPU, that of a run never interrupted. `started` is the `time.time()` from which wall time
    is counted. Raises `UserError` for a taken folder or data that do not fit the recipe, `TrainingFailed` when the loss
    is no longer finite, `Interrupted` after SIGINT or SIGTERM, with a checkpoint written.
    """
    started = started or time.time()
    data = data.with_validation(recipe.validation, seed=recipe.seed)
    if recipe.batch_size > len(data.train):
        raise UserError(
            f"batch_size {recipe.batch_size} is larger than the {len(data.train)} training images of {data.name}"
        )
    path = Path(out) if out is not None else new_run_path(data.name, recipe)
    machine, run = machine or Machine(), existing_run(path, recipe, data, resume)
    if run is not None:
        machine = as_before(run, machine)
    backend = prepare(machine)
    reporter = reporter or Reporter()
    if run is None:
        run = Run.create(path, recipe, data, environment(backend))
    elif run.finished:
        reporter.say(f"{run.path} is finished already")
        return run
    reporter.say(
        f"{recipe.name} on {data.name}: {len(data.train):,} training images, {backend.describe()}, into {run.path}"
    )
    with run.locked(), StopSignals() as stop:
        point_latest(run.path)
        model, validation, seconds = fit(run, data, backend, reporter, stop)
        summary = summarize(run, data, backend, model, validation, seconds)
        draw_curves(run)
        run.finish(model, summary | {"wall_seconds": round(time.time() - started, 3)})
    return run


def fit(
    run: Run, data: "Dataset", backend: Backend, reporter: Reporter, stop: StopSignals
) -> tuple[nn.Module, Scores | None, float]:
    """The loop. Gives the model after the last epoch, its validation scores, and the seconds on the training clock."""
    recipe, device = run.recipe, backend.device
    began = time.perf_counter()
    images_to_train, images_to_validate = data.train.to(device), data.validation and data.validation.to(device)
    model = build_model(recipe, channels=data.channels, classes=len(data.classes), **normalization(recipe, data.train))
    model = place(model, device)
    optimizer = build_optimizer(model, recipe)
    position = restore(run, model, optimizer, device, began)
    steps = len(images_to_train) // recipe.batch_size  # per epoch; the ragged last batch is left out
    scores = None

    with saving_when_stopped(run, model, optimizer, position):
        for epoch in range(position.epoch, recipe.epochs):
            order = epoch_order(len(images_to_train), seed=recipe.seed, epoch=epoch).to(device)
            epoch_clock = time.perf_counter()
            model.train()

            for step in range(position.step, steps):
                stop.check()
                images, labels = images_to_train.take(order[step * recipe.batch_size :][: recipe.batch_size])
                x = augment(images, recipe, generator(device, recipe.seed, "augment", epoch, step))  # B C H W in [0, 1]
                with global_draws(device, recipe.seed, "dropout", epoch, step), backend.autocast():
                    logits = model(x.contiguous(memory_format=torch.channels_last)).float()  # B K
                loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
                if device.type == "cpu" or step % GPU_READS_EVERY == 0:
                    refuse_non_finite(loss, recipe, epoch, step)
                set_learning_rate(optimizer, learning_rate(recipe, epoch, step, steps))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

                position.count(loss, logits, labels)
                position.step = step + 1
                reporter.step(epoch * steps + step + 1, recipe.epochs * steps, position.line(recipe, steps))
                if position.seconds_since_save() > CHECKPOINT_SECONDS:
                    refuse_non_finite(loss, recipe, epoch, step)
                    save(run, model, optimizer, position)

            position.training_seconds += time.perf_counter() - epoch_clock
            refuse_non_finite(position.totals[0], recipe, epoch, steps - 1)
            if images_to_validate is not None:
                logits = predict_logits(model, images_to_validate, backend, poll=stop.check)
                labels = images_to_validate.labels[images_to_validate.rows]
                scores = score(logits, labels, data.classes, split="validation")
            row = position.row(recipe, steps, l2_penalty(model, recipe), scores)
            run.log_epoch(row)
            reporter.epoch(row, recipe.epochs)
            position.next_epoch()

    return model, scores, position.seconds_before + time.perf_counter() - position.began


@dataclass
class Position:
    """Where training stands, and the sums of the epoch so far. With weights and optimiser it is the whole state."""

    totals: Tensor  # float64 4, on the device: sums of loss, hits, hits among the five likeliest; number of images
    epoch: int = 0  # epochs finished
    step: int = 0  # steps of the running epoch finished
    training_seconds: float = 0.0  # of the running epoch, in earlier parts of a resumed run too
    seconds_before: float = 0.0  # on the training clock before this process
    saved: float = 0.0
    began: float = 0.0
    first: tuple[int, int] = (0, 0)  # epoch and step at which this process began, for its speed

    def count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch; stays on the device."""
        likeliest = logits.detach().topk(min(5, logits.shape[1]), dim=1).indices  # B 5
        hits = likeliest == labels[:, None]
        batch = torch.stack(
            (loss.detach() * len(labels), hits[:, 0].sum(), hits.any(1).sum(), labels.new_tensor(len(labels)))
        )
        self.totals += batch.to(self.totals.dtype)

    def next_epoch(self) -> None:
        self.epoch, self.step, self.training_seconds = self.epoch + 1, 0, 0.0
        self.totals.zero_()

    def seconds_since_save(self) -> float:
        return time.perf_counter() - self.saved

    def line(self, recipe: Recipe, steps: int) -> str:
        """Epoch, loss, accuracy, speed and time left, for people."""
        loss, hits, _, images = self.totals.tolist()
        done = (self.epoch - self.first[0]) * steps + self.step - self.first[1]
        seconds = time.perf_counter() - self.began
        left = seconds / done * ((recipe.epochs - self.epoch) * steps - self.step)
        return (
            f"epoch {self.epoch + 1}/{recipe.epochs}  loss {loss / images:.4f}  accuracy {hits / images:.4f}  "
            f"{done * recipe.batch_size / seconds:,.0f} images/s  {duration(left)} left"
        )

    def row(self, recipe: Recipe, steps: int, penalty: float, scores: Scores | None) -> dict[str, Any]:
        """One row of metrics.jsonl. Training figures are means over the epoch's augmented batches."""
        loss, hits, hits5, images = self.totals.tolist()
        return {
            "epoch": self.epoch + 1,
            "learning_rate": learning_rate(recipe, self.epoch, 0, steps),
            "train_loss": loss / images,
            "train_accuracy": hits / images,
            "train_top5": hits5 / images,
            "validation_loss": scores and scores.loss,
            "validation_accuracy": scores and scores.accuracy,
            "validation_top5": scores and scores.top5,
            "l2_penalty": penalty,
            "training_seconds": round(self.training_seconds, 3),
            "images_per_second": round(images / self.training_seconds, 1),
        }


# ---------------------------------------------------------------------------------------------- around the loop


def normalization(recipe: Recipe, split: Split) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel over the training images, or 0 and 1 where the recipe wants none."""
    channels = split.images.shape[1]
    if recipe.normalize == "none":
        return {"mean": [0.0] * channels, "std": [1.0] * channels}
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for rows in split.rows.split(5_000):  # by histogram: exact, and without a float copy of the whole set
        images = split.images[rows]
        for channel in range(channels):
            counts[channel] += torch.bincount(images[:, channel].flatten().int(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    weights = counts / counts.sum(1, keepdim=True)
    mean = weights @ values
    variance = weights @ values.square() - mean.square()
    return {"mean": mean.tolist(), "std": variance.clamp(min=1e-6).sqrt().tolist()}  # 1e-6: a constant channel


def refuse_non_finite(loss: Tensor, recipe: Recipe, epoch: int, step: int) -> None:
    """Stop at the first loss that is not a number, before it reaches the weights (on a GPU: before a checkpoint)."""
    if not math.isfinite(loss.item()):
        raise TrainingFailed(
            f"the loss is {loss.item()} in epoch {epoch + 1}, step {step + 1}: the weights diverged; try "
            f"--learning-rate {recipe.learning_rate / 2:g} (now {recipe.learning_rate:g}), or --precision fp32"
        )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def save(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Write the whole state of training as a checkpoint."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{key}.{name}"] = value
    tensors["totals"] = position.totals
    now = time.perf_counter()
    place = {"epoch": position.epoch, "step": position.step, "training_seconds": position.training_seconds}
    run.save_checkpoint(tensors, place | {"seconds": position.seconds_before + now - position.began})
    position.saved = time.perf_counter()


def restore(
    run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, began: float
) -> Position:
    """Put the last checkpoint into model and optimiser; a run without one begins at the beginning."""
    position = Position(torch.zeros(4, dtype=torch.float64, device=device), saved=began, began=began)
    if (checkpoint := run.load_checkpoint()) is None:
        return position
    tensors, place = checkpoint
    weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights)
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, key, parameter = name.split(".", 2)
            like = parameters[parameter] if tensor.ndim else tensor  # the step counter is a scalar
            optimizer.state[parameters[parameter]][key] = torch.empty_like(like, requires_grad=False).copy_(tensor)
    return replace(
        position,
        totals=tensors["totals"].to(device),
        epoch=place["epoch"],
        step=place["step"],
        training_seconds=place["training_seconds"],
        seconds_before=place["seconds"],
        first=(place["epoch"], place["step"]),
    )


@contextmanager
def saving_when_stopped(
    run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position
) -> Iterator[None]:
    """Turn a stop between two steps into a checkpoint and an `Interrupted` that says how to go on."""
    try:
        yield
    except StopRequested as signal:
        save(run, model, optimizer, position)
        raise Interrupted(
            f"stopped by {signal} in epoch {position.epoch + 1} after step {position.step}; "
            f"continue with: thumbnet train {run.data['name']} --out {run.path} --resume"
        ) from None


def existing_run(path: Path, recipe: Recipe, data: "Dataset", resume: bool) -> Run | None:
    """The run to continue in `path`, or None where a new one may be made there."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    if not resume:
        raise UserError(f"{path} is taken; choose another --out, or add --resume to continue the run in it")
    run = Run.open(path)
    if changed := differences(recipe, run.recipe):
        told = ", ".join(f"{name} {now!r} (there {then!r})" for name, (now, then) in changed.items())
        raise UserError(f"the recipe differs from that of {path}: {told}; use the same, or another --out")
    run.check_data(data)
    return run


def as_before(run: Run, machine: Machine) -> Machine:
    """Device, threads and precision of the interrupted run where nothing else is asked for: they change the last bits."""
    before = run.environment
    return replace(
        machine,
        device=before["device"].split(":")[0] if machine.device == "auto" else machine.device,
        precision=before["precision"] if machine.precision == "auto" else machine.precision,
        threads=machine.threads or before["threads"],
    )


def summarize(
    run: Run, data: "Dataset", backend: Backend, model: nn.Module, validation: Scores | None, seconds: float
) -> dict[str, Any]:
    """The outcome of a run, as it stands in summary.json and as `train --json` prints it."""
    rows = run.metrics
    measured = [row for row in rows if row["validation_accuracy"] is not None]
    training_seconds = sum(row["training_seconds"] for row in rows)
    steps = len(data.train) // run.recipe.batch_size
    return {
        "run": str(run.path),
        "dataset": data.name,
        "recipe": run.recipe.name,
        "model": run.recipe.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": run.recipe.seed,
        "device": str(backend.device),
        "precision": backend.precision,
        "epochs": run.recipe.epochs,
        "train_images": len(data.train),
        "train_accuracy": rows[-1]["train_accuracy"],
        "train_loss": rows[-1]["train_loss"],
        "validation_images": validation.images if validation else 0,
        "validation_accuracy": validation.accuracy if validation else None,
        "validation_top5": validation.top5 if validation else None,
        "validation_loss": validation.loss if validation else None,
        "validation_interval95": list(validation.interval95) if validation else None,
        "best_epoch": max(measured, key=lambda row: row["validation_accuracy"])["epoch"] if measured else None,
        "l2_penalty": rows[-1]["l2_penalty"],
        "train_seconds": round(seconds, 3),
        "images_per_second": round(steps * run.recipe.batch_size * len(rows) / training_seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
    }


def peak_memory_mb() -> int:
    """The most memory this process held so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)  # macOS counts bytes, Linux KiB


def draw_curves(run: Run) -> None:
    """Write the plots of the run folder."""
    from thumbnet.plots import save_run_plots

    save_run_plots(run)
