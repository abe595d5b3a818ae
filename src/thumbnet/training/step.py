"""A step of training: a batch is changed as the recipe says, its loss gives gradients, and the optimiser moves the weights."""
# Shapes: B batch, C channels, H and W height and width, M members of an ensemble, K classes.

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.augment import augment, changed_by_own, mix, mixed_by_own
from thumbnet.backend import Backend
from thumbnet.data.datasets import Dataset
from thumbnet.errors import UserError
from thumbnet.models.ensemble import averaged
from thumbnet.models.whitening import stem_is_trained
from thumbnet.own_code import call_own, is_own, shown
from thumbnet.randomness import generator, global_draws
from thumbnet.recipes.recipe import Recipe
from thumbnet.training.graphs import RecordedUpdate, Recordings, Update
from thumbnet.training.master_weights import Copies

if TYPE_CHECKING:
    from thumbnet.models.preprocessed import Preprocessed


def augmented(
    images: Tensor,
    labels: Tensor,
    mirrored: Tensor,
    data: Dataset,
    recipe: Recipe,
    epoch: int,
    step: int,
    progress: float,
) -> tuple[Tensor, Tensor]:
    """What the network is given of a batch uint8 B C H W: x B C H W in [0, 1], channels last, and targets B, or B K where mixed.

    Drawn for this very step; `progress` is the part of the run that lies behind.
    """
    random = generator(images.device, recipe.seed, "augment", epoch, step)
    x = augment(images, recipe, random, mirrored)  # B C H W in [0, 1]
    random = generator("cpu", recipe.seed, "mix", epoch, step)
    x, targets = mix(x, labels, len(data.classes), recipe, random, at=progress)
    if recipe.augment:
        with global_draws(images.device, recipe.seed, "own", epoch, step):  # for what draws from no generator
            x = changed_by_own(x, recipe, epoch, step)
            x, targets = mixed_by_own(x, targets, len(data.classes), recipe, epoch, step)
    return x.contiguous(memory_format=torch.channels_last), targets


def updating(
    model: "Preprocessed",
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    backend: Backend,
    check: Callable[[Tensor], None],
    recordings: Recordings,
    weights: Tensor | None = None,
) -> Update:
    """What the loop does with a batch and its targets: gradients, then the optimiser's step; gives (loss, logits B K).

    `weights` K are what images of each class count in the loss. On a GPU it is recorded and replayed. On a CPU `check` sees the
    loss before the network does, and may refuse it.
    """

    def update(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        loss, logits = gradients(model, x, targets, recipe, backend, weights)
        if backend.device.type == "cpu":
            check(loss)
        optimizer.step()
        return loss, logits

    if backend.device.type != "cuda" or recipe.own_code:  # which may wait for the GPU, or decide by what it sees
        return update
    return RecordedUpdate(update, lambda: (model.resize.part, stem_is_trained(model.network)), recordings)


def gradients(
    model: nn.Module, x: Tensor, targets: Tensor, recipe: Recipe, backend: Backend, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Add the gradients of the batch's mean loss to the parameters, one micro-batch after the other; (loss, logits B K)."""
    size = recipe.micro_batch or len(x)
    in_bf16 = backend.device.type == "cuda" and backend.precision == "bf16" and not is_own(recipe.model)
    copies = Copies(model, backend.dtype) if in_bf16 else None
    losses, outputs = [], []
    for part, part_targets in zip(x.split(size), targets.split(size), strict=True):
        with backend.autocast():
            logits = (copies.compute(part) if copies else model(part)).float()  # B K, or B M K of an ensemble
        loss = loss_of(logits, part_targets, recipe, weights) * (len(part) / len(x))
        (loss * recipe.members).backward()  # each member's own loss, not its part of the mean
        if copies:
            copies.hand_over_gradients()
        losses.append(loss.detach())
        outputs.append(averaged(logits.detach()) if logits.ndim == 3 else logits.detach())
    return torch.stack(losses).sum(), torch.cat(outputs)


def loss_of(logits: Tensor, targets: Tensor, recipe: Recipe, weights: Tensor | None = None) -> Tensor:
    """The recipe's mean loss of logits B K and targets B or B K; of an ensemble's B M K, each member's with the same targets.

    Where classes have `weights` K, an image's loss counts as its class does, and a mixed image's as its parts do.
    """
    if logits.ndim == 3:
        targets = targets.repeat_interleave(logits.shape[1], dim=0)
    logits, smoothing = logits.flatten(0, -2), recipe.label_smoothing
    if is_own(recipe.loss):
        return own_loss(recipe, logits, targets)
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    return (losses * (weights[targets] if targets.ndim == 1 else targets @ weights)).mean()


def own_loss(recipe: Recipe, logits: Tensor, targets: Tensor) -> Tensor:
    """What the function `loss` in a file of the user's makes of logits B K and targets B or B K: one number."""
    loss = call_own(recipe.loss, "loss", logits, targets, own=recipe.own)
    if not isinstance(loss, Tensor) or loss.ndim:
        given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise UserError(
            f"{shown(recipe.loss)}: loss(logits, targets) gave {given}; wanted is one number, as of .mean()"
        )
    return loss
