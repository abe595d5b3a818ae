"""Which images a step trains on: the next of a random order, or the hardest of a longer stretch of it.

Hardness is an image's loss when it was last trained on: nothing is computed for it alone. After Loshchilov & Hutter 2015,
https://arxiv.org/abs/1511.06343, and the stale losses of Jiang et al. 2019, https://arxiv.org/abs/1910.00762.
"""
# Shapes: N training images, S stretch, B batch, K classes.

import torch
from torch import Tensor

from thumbnet.augment import mirrored_in_epoch
from thumbnet.data.batches import epoch_order
from thumbnet.recipes.recipe import Recipe

UNKNOWN = torch.finfo(torch.float32).max  # the loss of an image that was not trained on: harder than any


class Rounds:
    """Round after round of the images, each in a random order of its own, cut into the stretches that the steps choose from.

    A stretch is a batch, or where only the hardest are trained on as many images as give one. So a round is an epoch, or then
    ends before its epoch does; which images a step chooses from depends on its number and the recipe alone.
    """

    def __init__(self, recipe: Recipe, images: int, device: torch.device):
        self.seed, self.images, self.device = recipe.seed, images, device
        self.stretch = min(round(recipe.batch_size / recipe.hardest), images)
        self.stretches = images // self.stretch  # the ragged last one is left out
        self.number: int | None = None

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """int64 S: what the `step` of the run, from 0, chooses from; bool N: which of all images its round mirrors."""
        number, place = divmod(step, self.stretches)
        if number != self.number:
            self.number = number
            self.order = epoch_order(self.images, seed=self.seed, epoch=number).to(self.device)
            self.mirrored = mirrored_in_epoch(self.images, seed=self.seed, epoch=number).to(self.device)
        return self.order[place * self.stretch :][: self.stretch], self.mirrored


def hardest(stretch: Tensor, losses: Tensor, recipe: Recipe, progress: float) -> Tensor:
    """int64 B: the batch to train on of a stretch (int64 S), where the part `progress` of the run lies behind.

    Those with the largest of the `losses` (N) in the order of the stretch; before `hardest_after`, the first ones.
    """
    if len(stretch) == recipe.batch_size or progress < recipe.hardest_after:
        return stretch[: recipe.batch_size]
    places = losses[stretch].argsort(descending=True, stable=True)[
        : recipe.batch_size
    ]  # stable: no choice is left open
    return stretch[places.sort().values]  # hard and easy ones in turn, for micro-batches that are alike
