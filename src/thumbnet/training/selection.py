"""Which images a step trains on: the next of a random order, or the hardest of a longer stretch of it.

Hardness is an image's loss when it was last trained on: nothing is computed for it alone. After Loshchilov & Hutter 2015,
https://arxiv.org/abs/1511.06343, and the stale losses of Jiang et al. 2019, https://arxiv.org/abs/1910.00762. Here an image that
was not among the hardest of its stretch comes before all others the next time, which long runs need (docs/findings.md).
Those that chance passes over, before `hardest_after` and at the ragged end of a round, keep the loss they had.
"""
# Shapes: N training images, S stretch, B batch, K classes.

import torch
from torch import Tensor
from torch.nn import functional as F

from thumbnet.augment import mirrored_in_epoch
from thumbnet.data.batches import epoch_order
from thumbnet.recipes.recipe import Recipe

UNKNOWN = torch.finfo(torch.float32).max  # the loss of an image that was not trained on lately: harder than any


def stretch_length(recipe: Recipe, images: int) -> int:
    """How many images a step chooses its batch from."""
    return min(round(recipe.batch_size / recipe.hardest), images)


class Rounds:
    """Round after round through the images, each in a random order of its own, cut into the stretches that steps choose from.

    Where all images are trained on, a stretch is a batch and a round an epoch. Where only the hardest are, a round is over
    after about `hardest` of an epoch's steps. Which stretch is a step's follows from its number alone.
    """

    def __init__(self, recipe: Recipe, images: int, device: torch.device):
        self.seed, self.images, self.device = recipe.seed, images, device
        self.length = stretch_length(recipe, images)
        self.number, self.order, self.mirrored = -1, torch.empty(0), torch.empty(0)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """int64 S: what the `step` of the run, from 0, chooses from; bool N: which of all images its round mirrors."""
        number, place = divmod(step, self.images // self.length)  # the ragged last stretch of a round is left out
        if number != self.number:
            self.number = number
            self.order = epoch_order(self.images, seed=self.seed, epoch=number).to(self.device)
            self.mirrored = mirrored_in_epoch(self.images, seed=self.seed, epoch=number).to(self.device)
        return self.order[place * self.length :][: self.length], self.mirrored


def hardest(stretch: Tensor, losses: Tensor, recipe: Recipe, progress: float) -> Tensor:
    """int64 B: the batch to train on of a stretch (int64 S), where the part `progress` of the run lies behind.

    Those with the largest of the `losses` (N), in the order of the stretch; before `hardest_after`, the first ones. The losses
    of those that are then passed over are forgotten, so that they come first the next time: a loss that is old does not tell
    what was unlearnt.
    """
    size = recipe.batch_size
    if len(stretch) == size or progress < recipe.hardest_after:
        return stretch[:size]
    by_loss = losses[stretch].argsort(descending=True, stable=True)  # stable: equal ones as they come
    losses[stretch[by_loss[size:]]] = UNKNOWN
    return stretch[by_loss[:size].sort().values]  # in the random order again, so that micro-batches are alike


def hardness(logits: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    """B: each image's loss, labels not smoothed, by logits B K and targets B, or B K where a recipe mixes images.

    What a mixed image costs says little of it: it keeps what it had `before` (B).
    """
    losses = F.cross_entropy(logits.detach(), targets, reduction="none")
    return losses if targets.ndim == 1 else torch.where(targets.amax(1) == 1, losses, before)
