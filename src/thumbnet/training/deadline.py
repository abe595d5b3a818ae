"""A run that ends on time although its machine does not keep its speed: the epochs are planned again while it runs."""

import math
import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace

from thumbnet.recipes.recipe import FEWEST_EPOCHS, Recipe
from thumbnet.recipes.schedule import resolution, resolution_at

WARM_UP = 5  # steps that say nothing of the others: memory is laid out, kernels made; on a GPU the fourth is recorded
STALL = 100  # times its due that no working machine takes for a step; a GPU is waited for once in 50 (loop.py)
PATIENCE = 0.1  # of what is left, after which a plan is made anew: ever less, so that the last one is exact


@dataclass
class Deadline:
    """When training must be over, and what its parts took when they were timed; what they take now is learned from the run."""

    ends: float  # on time.monotonic()'s clock, the last validation included
    seconds: Mapping[float, float]  # of a step at each resolution
    checks: float  # steps that take as long as a validation
    counted: int = 0  # steps begun in this process
    began: float = 0.0  # when the first step was begun that counts, on time.monotonic()'s clock
    expected: float = 0.0  # seconds that the steps and validations since then should have taken, by `seconds`
    pending: float = 0.0  # the same for the step that is being made
    asked: float = 0.0  # when `replanned` was called last
    look_at: float = 0.0  # when to plan again, on time.monotonic()'s clock
    look_after: float = 0.0  # or at which `expected`: a plan that one long stall made too short is seen before it ends

    def replanned(self, recipe: Recipe, epoch: int, step: int, steps: int) -> Recipe:
        """The recipe with the epochs that fit the time left; to be asked before each `step` of an `epoch` of `steps`, from 0."""
        now = time.monotonic()
        if self.counted <= WARM_UP:
            self.began = now
        else:
            self.expected += self.pending
            if now - self.asked > STALL * self.pending:
                self.began += now - self.asked  # time that is gone, and says nothing of the steps to come
        self.asked = now
        if self.expected and (now >= self.look_at or self.expected >= self.look_after):
            recipe = self.planned(recipe, epoch * steps + step, steps, now)
        here = self.seconds[resolution(recipe, epoch, step, steps)]
        self.counted, self.pending = self.counted + 1, here * (1 + self.checks if step == steps - 1 else 1)
        return recipe

    def planned(self, recipe: Recipe, done: int, steps: int, now: float) -> Recipe:
        """The recipe with the epochs that fit after `done` steps, by what the steps have taken on average."""
        left = self.ends - now
        taken = max(now - self.began, 1e-3 * self.expected)
        worth = left * self.expected / taken  # what is left, were the machine as fast as when it was timed
        self.look_at, self.look_after = now + PATIENCE * left, self.expected + PATIENCE * worth
        total = most_steps(worth, recipe, steps, self.seconds, self.checks, done=done)
        return replace(recipe, epochs=max(FEWEST_EPOCHS, total / steps))


def most_steps(
    left: float, recipe: Recipe, steps: int, seconds: Mapping[float, float], checks: float, *, done: int = 0
) -> int:
    """Steps of the longest run that takes no more than `left` seconds from step `done` on; one more than `done` at the least."""
    least, most = done + 1, done + 1 + max(0, math.floor(left / min(seconds.values())))
    fitting = bisect_right(
        range(least, most + 1),
        left,
        key=lambda total: seconds_of(total, recipe, steps, seconds, checks, done=done),
    )
    return least + max(0, fitting - 1)


def seconds_of(
    total: int, recipe: Recipe, steps: int, seconds: Mapping[float, float], checks: float, *, done: int = 0
) -> float:
    """What a run of `total` steps, `steps` to the epoch, takes from step `done` on; epochs that end early are validated, too."""
    parts, found = len(recipe.resolution), 0.0
    for place, part in enumerate(recipe.resolution):
        found += seconds[part] * max(0.0, total * (place + 1) / parts - max(done, total * place / parts))
    for epoch in range(done // steps, math.ceil(total / steps)):
        last = min((epoch + 1) * steps, total) - 1
        found += checks * seconds[resolution_at(recipe, last / total)]
    return found
