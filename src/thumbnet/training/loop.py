"""Training: one visible loop from batch to weight update, and what frames it."""
# Shapes: N images, K classes.

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from thumbnet.backend import Backend, environment, has_fast_bf16, place, prepare
from thumbnet.data import leave_out
from thumbnet.data.datasets import Dataset, load_dataset
from thumbnet.errors import Interrupted, UserError
from thumbnet.judging.evaluation import Scores, keep_validation, predict_logits, predictions_of, score
from thumbnet.machine import Machine
from thumbnet.models.whitening import fit_whitening, train_stem
from thumbnet.progress import Reporter
from thumbnet.randomness import global_draws
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes import title_of
from thumbnet.recipes.network import build_model
from thumbnet.recipes.recipe import Recipe
from thumbnet.recipes.schedule import rate_factor, resolution, steps_per_epoch, total_steps
from thumbnet.runs.paths import existing_run, new_run_path, point_latest
from thumbnet.runs.run import Run
from thumbnet.signals import StopRequested, StopSignals
from thumbnet.training.optimize import l2_penalty, set_learning_rate
from thumbnet.training.preparation import check_fits, class_weights, normalization, sample
from thumbnet.training.rehearsal import rehearse
from thumbnet.training.selection import Rounds, hardest
from thumbnet.training.start import begin_with, check_same_origin, earlier_run, origin, told_of
from thumbnet.training.state import Position, diverged, refuse_non_finite, restore, save
from thumbnet.training.step import augmented, updating
from thumbnet.training.summary import summarize
from thumbnet.training.workshop import Workshop
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.training.deadline import Deadline

GPU_READS_EVERY = 50  # steps between looks at the loss on a GPU, where each look waits for the device


def train(
    recipe: Recipe | str,
    data: Dataset | str | Path,
    out: "str | Path | None" = None,
    *,
    machine: Machine | None = None,
    resume: bool = True,
    plots: bool = True,
    reporter: Reporter | None = None,
    started: float | None = None,
    deadline: "Deadline | None" = None,
    workshop: Workshop | None = None,
    latest: bool = True,
) -> Run:
    """Fit `recipe` on `data.train` and write the run folder `out` (a new one under runs/ by default).

    A name stands for what `thumbnet.recipe` and `thumbnet.load_dataset` make of it. Never opens the test split. With `resume`,
    an interrupted run in `out` is continued and a finished one returned; the result is, bit for bit on a CPU, that of a run
    never interrupted. `started` is the `time.time()` from which wall time is counted; with `deadline` the recipe's epochs are
    moved to what fits its time, and the run's recipe, its own from then on, has those that were made; `workshop` keeps what
    the next run of the recipe in this process can use again; with `latest`, runs/latest points at a run in ./runs. Raises
    `UserError` for a taken folder or data that do not fit the recipe, `TrainingFailed` when the loss is no longer finite,
    `Interrupted` after a signal to stop, with a checkpoint written.
    """
    started = started or time.time()
    recipe = named_recipe(recipe) if isinstance(recipe, str) else recipe
    data = load_dataset(data) if isinstance(data, str | Path) else data
    if not isinstance(recipe, Recipe) or not isinstance(data, Dataset):
        given = f"{type(recipe).__name__} and {type(data).__name__}"
        raise UserError(f"train takes a recipe and a data set, or their names; received {given}")
    reporter = reporter or Reporter()
    path = Path(out) if out is not None else new_run_path(data.name, recipe)
    machine, run = machine or Machine(), existing_run(path, recipe, data, resume)
    data = data.with_validation(**(run or recipe).cut)
    if run is not None and run.finished:
        reporter.say(f"{run.path} is finished already")
        return run
    check_fits(recipe, data)
    if run is not None:
        machine = run.machine_to_resume(machine)
    backend = prepare(machine)
    about, begun = environment(backend) | origin(recipe, data), run is not None
    if run is not None:
        check_same_origin(run, about)
    if run is None and recipe.own_code:
        for note in rehearse(recipe, data, backend):
            reporter.say(f"note: {note}")
    with StopSignals() as stop:
        if run is None:
            run = Run.create(path, recipe, data, about)
        with run.locked():
            if run.finished:  # by another process, between the look above and the lock
                return run
            if begun and (changed := run.note_process(about)):
                reporter.say(f"note: continued with {changed}: the last bits will differ from those of an unbroken run")
            say_what_begins(run, data, backend, reporter, begun=begun)
            model, logits, validation, position = fit(
                run, data, backend, reporter, stop, machine.checkpoint_seconds, deadline, workshop or Workshop()
            )
            summary = summarize(
                run, recipe.epochs, data, backend, model, validation, position
            )  # before anything else takes time
            run.save_model(model)
            if deadline or begun:  # the epochs may have been moved
                run.keep_recipe()
            if logits is not None:
                assert data.validation is not None
                keep_validation(run, predictions_of(data.validation, logits, data, split="validation"))
            if plots:
                from thumbnet.plots.curves import (
                    save_run_plots,  # here, since matplotlib takes most of a second to import
                )

                save_run_plots(run)
            run.finish(summary | {"wall_seconds": round(position.seconds_before + time.time() - started, 3)})
            if latest:
                point_latest(run.path)
    if stop.received:  # after the last step, when nothing asked any more
        raise Interrupted(f"stopped by {stop.received} when the run was finished; {run.path} is whole")
    return run


def fit(
    run: Run,
    data: Dataset,
    backend: Backend,
    reporter: Reporter,
    stop: StopSignals,
    checkpoint_seconds: float,
    deadline: "Deadline | None",
    workshop: Workshop,
) -> tuple[nn.Module, Tensor | None, Scores | None, Position]:
    """The loop. Gives the model after the last epoch, its validation logits N K and scores, and the position with its clocks."""
    recipe, device = run.recipe, backend.device
    began = time.perf_counter()
    data = data.to(device)
    model = build_model(recipe, channels=data.channels, classes=len(data.classes), **normalization(recipe, data.train))
    model = place(model, device)
    if recipe.start_from:
        begin_with(model, earlier_run(recipe, data), data.classes)
    else:
        fit_whitening(model.network, model.normalize(sample(data.train)))
    weights = class_weights(recipe, data.train, len(data.classes))
    model, optimizer, weights = workshop.set_up(model, recipe, backend, weights)
    position = restore(run, model, optimizer, device, began, reporter.say)
    if position.seconds_before:
        reporter.say(f"continuing after step {position.step} of epoch {position.epoch + 1}")
    check = partial(refuse_step_that_diverged, run, position)
    update = updating(model, optimizer, recipe, backend, check, workshop.recordings, weights)
    recipe, steps = run.recipe, steps_per_epoch(recipe, len(data.train))
    rounds = Rounds(recipe, len(data.train), device)
    total = total_steps(recipe, steps)
    logits_of_validation = scores = None

    with saving_when_stopped(run, model, optimizer, position):
        while (epoch := position.epoch) * steps < total:
            position.begin_epoch()
            model.train()

            for step in range(position.step, steps):
                if epoch * steps + step >= total:
                    break
                stop.check()
                if deadline:
                    recipe = run.recipe = deadline.replanned(recipe, epoch, step, steps)
                    total = total_steps(recipe, steps)
                progress = (epoch + step / steps) / recipe.epochs
                stretch, mirrored = rounds.at(epoch * steps + step)
                batch = hardest(stretch, position.losses, recipe, progress)
                images, labels = data.train.take(batch)
                x, targets = augmented(images, labels, mirrored[batch], data, recipe, epoch, step, progress)
                model.resize.part = resolution(recipe, epoch, step, steps)
                train_stem(model.network, progress < recipe.stem_until)
                set_learning_rate(optimizer, rate_factor(recipe, epoch, step, steps))
                with global_draws(device, recipe.seed, "dropout", epoch, step):
                    loss, logits = update(x, targets)
                if device.type != "cpu" and step % GPU_READS_EVERY == 0:
                    refuse_non_finite_loss(loss, run, epoch, step)

                position.count(loss, logits, labels)
                position.keep_losses(batch, logits, targets)
                position.step = step + 1
                reporter.step(epoch * steps + step + 1, total, partial(position.line, recipe, steps))
                if position.seconds_since_save() >= checkpoint_seconds:
                    refuse_non_finite_loss(loss, run, epoch, step)
                    save(run, model, optimizer, position)

            position.end_training()
            if data.validation is not None:
                model.resize.part = resolution(recipe, epoch, position.step - 1, steps)
                if epoch * steps + position.step >= total:  # as it is used; a run of few steps made none there
                    model.resize.part = recipe.resolution[-1]
                logits_of_validation = predict_logits(model, data.validation, backend, poll=stop.check)
                labels = data.validation.labels[data.validation.rows]
                groups = data.groups_at("validation", data.validation.rows)
                scores = score(logits_of_validation, labels, data.classes, split="validation", groups=groups)
            penalty = l2_penalty(model, recipe)
            refuse_non_finite_loss(
                position.totals.sum() + penalty + (scores.loss if scores else 0), run, epoch, position.step - 1
            )
            row = position.row(recipe, steps, penalty, scores, optimizer)
            run.log_epoch(row)
            reporter.epoch(row, recipe.epochs)
            position.next_epoch()

    refuse_non_finite(model.state_dict(), run, position)
    return model, logits_of_validation, scores, position


# ---------------------------------------------------------------------------------------------- around the loop


def say_what_begins(run: Run, data: Dataset, backend: Backend, reporter: Reporter, *, begun: bool) -> None:
    """A line on what is trained and where, and what else there is to know before; `begun` by an earlier process."""
    what = f"{title_of(run.recipe)} on {run.data['name']}: {counted(len(data.train), 'training image')}"
    reporter.say(f"{what}, {backend.describe()}, into {run.path}")
    if run.recipe.leave_out:
        reporter.say(leave_out.told(data, run.recipe.leave_out))
    if run.recipe.start_from and not begun:
        reporter.say(told_of(earlier_run(run.recipe, data), data))
    if backend.precision == "bf16" and not has_fast_bf16(backend.device):
        reporter.say("note: no bf16 instructions here: bf16 is slower than --precision fp32, and its sums lose bits")


def refuse_step_that_diverged(run: Run, position: Position, loss: Tensor) -> None:
    """The check of a step's loss, where training stands."""
    refuse_non_finite_loss(loss, run, position.epoch, position.step)


def refuse_non_finite_loss(loss: Tensor, run: Run, epoch: int, step: int) -> None:
    """Stop at the first loss that is not a number, before it reaches the weights (on a GPU: before a checkpoint)."""
    if not math.isfinite(loss.item()):
        raise diverged(run, f"the loss is {loss.item()}", epoch, step + 1)


@contextmanager
def saving_when_stopped(
    run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position
) -> Iterator[None]:
    """Turn a stop between two steps into a checkpoint and an `Interrupted` that says how to go on."""
    try:
        yield
    except StopRequested as signal:
        refuse_non_finite_loss(position.totals[0], run, position.epoch, position.step - 1)
        save(run, model, optimizer, position)
        raise Interrupted(
            f"stopped by {signal} in epoch {position.epoch + 1} after step {position.step}; "
            f"continue with: {run.resume_command}"
        ) from None
