"""A recipe that ends on time: what `train --time-budget` chooses after a few seconds of measuring the machine."""

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thumbnet.errors import UserError
from thumbnet.machine import Machine
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes import vary
from thumbnet.recipes.fitting import fitted_to, for_classes, for_side
from thumbnet.recipes.recipe import FEWEST_EPOCHS, Recipe
from thumbnet.recipes.schedule import steps_per_epoch
from thumbnet.training.deadline import Deadline, most_steps, seconds_of
from thumbnet.words import seconds_in

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

SHORTEST = 10.0  # seconds; starting, loading and measuring take half of them
RESERVE = 0.02  # of the budget: what comes after the last step may be slower than expected, too
FINISH = 1.8  # seconds to write weights, plots and summary on a slow machine


@dataclass(frozen=True)
class Rung:
    """A network with its setting, and the training images seen beyond which the next rung is the better use of time."""

    until: float
    fields: dict[str, Any]


def rung(
    until: float, model: str, widths: tuple[int, ...], *resolution: float, batch_size: int, rate: float, crop: int
) -> Rung:
    """Shorthand for the table below."""
    fields = {"model": model, "widths": widths, "batch_size": batch_size, "learning_rate": rate, "crop": crop}
    return Rung(until, {**fields, "resolution": resolution})


# From narrow and coarse to wide and sharp; chosen on held-out images of CIFAR-10 (docs/findings.md, "Time to accuracy").
LADDER = (
    rung(75e3, "speednet_slim", (32, 64, 128), 0.5, 0.75, batch_size=250, rate=0.24, crop=0),
    rung(125e3, "speednet_slim", (32, 128, 256), 0.5, 0.75, batch_size=250, rate=0.24, crop=0),
    rung(250e3, "speednet_slim", (64, 128, 256), 0.625, 0.75, 0.875, batch_size=250, rate=0.12, crop=1),
    rung(650e3, "speednet_slim", (64, 192, 384), 0.75, 0.875, 1.0, batch_size=500, rate=0.12, crop=2),
    rung(math.inf, "speednet", (128, 384, 512), 0.75, 0.875, 1.0, batch_size=500, rate=0.12, crop=4),
)


def parse_budget(text: str) -> float:
    """Seconds in `90`, `90s`, `2m`, `1.5h`. Raises `UserError` for anything else and for less than the shortest."""
    seconds = seconds_in(text, "time-budget")
    if seconds < SHORTEST:
        raise UserError(f"time-budget is {seconds:g} s; give {SHORTEST:g} s or more")
    return seconds


def plan_within(
    data: "Dataset",
    seconds: float,
    *,
    started: float | None = None,
    machine: Machine | None = None,
    recipe: str | None = None,
    changes: dict[str, Any] | None = None,
) -> tuple[Recipe, Deadline]:
    """The recipe whose training of `data` ends `seconds` after `started` (`time.time()`, now by default) on this machine.

    With `recipe`, that named recipe with its number of epochs alone chosen; else the network, resolutions and batch size are
    chosen too. `changes` to other fields are kept. The deadline, given to `train`, keeps the run to its time where the machine
    becomes slower or faster. Raises `UserError` where the budget is over before anything is learned.
    """
    from thumbnet.backend import prepare
    from thumbnet.training.preparation import check_fits
    from thumbnet.training.timing import step_seconds, validation_steps

    started, changes = started or time.time(), changes or {}
    ends = time.monotonic() + started - time.time() + seconds * (1 - RESERVE) - FINISH
    backend = prepare(machine or Machine())
    rungs = [Rung(math.inf, {})] if recipe else list(LADDER)
    for place in rungs:
        chosen = fitted(named_recipe(recipe or "general"), data, place, changes)
        cut = data.with_validation(**chosen.cut)  # as training will cut them
        check_fits(chosen, cut)
        deadline = Deadline(ends, step_seconds(chosen, cut, backend, steps=3), validation_steps(chosen, cut))
        steps = steps_per_epoch(chosen, len(cut.train))
        planned = (chosen, steps, deadline.seconds, deadline.checks)
        total = most_steps(ends - time.monotonic(), *planned)
        if total * chosen.batch_size <= place.until:
            break
    fewest = max(1, math.ceil(FEWEST_EPOCHS * steps))
    if seconds_of(fewest, *planned) > ends - time.monotonic():
        raise UserError(
            f"time-budget is {seconds:g} s, and {time.time() - started:.0f} s are over before the first step, which takes "
            f"{min(deadline.seconds.values()):.1f} s; give more time"
        )
    return vary(chosen, epochs=max(total / steps, FEWEST_EPOCHS)), deadline


def fitted(base: Recipe, data: "Dataset", place: Rung, changes: dict[str, Any]) -> Recipe:
    """The recipe of a rung for these data: resolutions that leave the network enough pixels, batches that leave it steps."""
    chosen = vary(vary(base, **place.fields), **changes)
    if not place.fields:  # a recipe that was named stays as it is
        return chosen
    if "head_rate" not in changes:
        chosen = for_classes(chosen, len(data.classes))
    if "resolution" not in changes:
        chosen = for_side(chosen, min(data.image_size))
    if "batch_size" not in changes:
        chosen = vary(chosen, batch_size=fitted_to(chosen, len(data.train)).batch_size)
    return chosen


def expected_accuracy(flops: float, dataset: str) -> float | None:
    """The accuracy that recorded runs of this ladder had for so many operations, or None where none are recorded.

    Between two records it is read off a straight line over the logarithm of the operations; beyond them nothing is said.
    """
    from thumbnet.measuring.results import recorded

    points = sorted(
        (point["training_flops"], point["accuracy"])
        for result in recorded()
        if result["kind"] == "frontier" and result["dataset"] == dataset
        for point in result["points"]
    )
    for (less, low), (more, high) in zip(points, points[1:], strict=False):
        if less <= flops <= more:
            return low + (high - low) * math.log(flops / less) / math.log(more / less)
    return None
