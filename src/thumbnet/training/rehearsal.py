"""What a run with code of the user's own does before it begins: steps that nobody keeps.

A fault is told before anything is written, and so is what would make a resumed run another one.
"""

import dataclasses
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from thumbnet.backend import Backend, place
from thumbnet.data.datasets import Dataset
from thumbnet.errors import UserError
from thumbnet.own_code import (
    blame,
    has,
    in_one_line,
    in_words,
    lacks_memory,
    last_line_in_own_code,
    of_one_line,
    run_anew,
    shown,
)
from thumbnet.randomness import global_draws
from thumbnet.recipes.network import build_model
from thumbnet.recipes.recipe import Recipe
from thumbnet.training.graphs import Recordings
from thumbnet.training.optimize import build_optimizer, set_learning_rate
from thumbnet.training.preparation import class_weights, normalization
from thumbnet.training.state import put_back, whole_state
from thumbnet.training.step import augmented, updating
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.models.preprocessed import Preprocessed

SLIGHTLY = 0.02  # what sums of probabilities in bf16, and a resampling beyond the range, may be off by


def rehearse(recipe: Recipe, data: Dataset, backend: Backend) -> list[str]:
    """Two steps, and the second one again from what a checkpoint holds after the first; a note where that gives other numbers.

    On a GPU, whose sums may differ by themselves, they are not compared. Raises `UserError` for a fault in the user's code.
    """
    with in_one_line(in_words(recipe.own_code)):
        model, optimizer = made_anew(recipe, data, backend)
        try:
            x, loss, logits = make_step(model, optimizer, recipe, data, backend, 0)
        except RuntimeError as error:
            if told := told_by_torch(error, recipe, data, backend):
                raise UserError(told) from error
            raise
        if not loss.isfinite():
            raise UserError(
                f"{in_words(recipe.own_code)}: the first loss is {loss.item()}, before any weight was moved"
            )
        notes = [*oddities(model, x, logits), *unused_functions(recipe), *hidden_layers(model)]
        kept = copied(whole_state(model, optimizer, recipe))
        make_step(model, optimizer, recipe, data, backend, 1)
        resumed, its_optimizer = made_anew(recipe, data, backend)
        put_back(kept, resumed, its_optimizer, backend.device)
        make_step(resumed, its_optimizer, recipe, data, backend, 1)
        pair = whole_state(model, optimizer, recipe), whole_state(resumed, its_optimizer, recipe)
    run_anew()
    if backend.device.type != "cpu" or same_numbers(*pair):
        return notes
    return [
        *notes,
        f"stopped and resumed, this run would end in other bits: {in_words(recipe.own_code)} keeps or draws something that a "
        "checkpoint does not hold",
    ]


def told_by_torch(error: RuntimeError, recipe: Recipe, data: Dataset, backend: Backend) -> str | None:
    """What torch finds out of a first step's error in a gradient, which has no line in the user's file; None of others."""
    if blame(error) or lacks_memory(error):
        return None
    if "does not require grad" in str(error):
        where = in_words(recipe.own_code)
        return f"{where}: the loss depends on no weight of the network; look for torch.no_grad, detach, item or NumPy on its way"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with suppress(RuntimeError), torch.autograd.detect_anomaly(check_nan=False):
            make_step(*made_anew(recipe, data, backend), recipe, data, backend, 0)
    line = last_line_in_own_code("".join(str(warning.message) for warning in told))
    if line and "inplace operation" in str(error):
        return f"{line}: what it gives is changed in place later, and gradients need it as it was; write y = y + 1, not y += 1"
    return line and f"{line}, whose gradient fails: {of_one_line(error)}"


def oddities(model: "Preprocessed", x: Tensor, logits: Tensor) -> list[str]:
    """Notes on what is probably not meant, of images B C H W and logits B K of a step that was made."""
    notes = []
    if x.min() < -SLIGHTLY or x.max() > 1 + SLIGHTLY:
        notes.append(f"augmented images go from {x.min():.3g} to {x.max():.3g}; as they are stored they go from 0 to 1")
    if logits.min() >= 0 and (logits.sum(1) - 1).abs().max() < SLIGHTLY:
        notes.append(
            "what the network gives are probabilities, which sum to 1; a loss of logits wants them before softmax"
        )
    idle = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    if idle:
        named = ", ".join(name.removeprefix("network.") for name in idle[:3]) + (", ..." if len(idle) > 3 else "")
        notes.append(f"{counted(len(idle), 'parameter')} of the network took no part in the step: {named}")
    return notes


def unused_functions(recipe: Recipe) -> list[str]:
    """Notes on functions in the user's files that would be used behind another flag."""
    return [
        f"{shown(file)} has a function {name}, which is used with --{field.name} {shown(file)} alone"
        for file in sorted(set(recipe.own_code))
        for field in dataclasses.fields(recipe)
        for name in field.metadata.get("own", ())
        if has(file, name) and getattr(recipe, field.name) != file
    ]


def hidden_layers(model: nn.Module) -> list[str]:
    """Notes on layers in plain lists and the like, which torch does not see: they are neither trained nor kept."""
    known, notes = set(model.modules()), []
    for module in known:
        for name, value in vars(module).items():
            kept = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            if not name.startswith("_") and any(isinstance(one, nn.Module) and one not in known for one in kept):
                where = f"self.{name} of {type(module).__name__}"
                notes.append(
                    f"layers in {where} are neither trained nor kept; make it an nn.ModuleList or nn.ModuleDict"
                )
    return sorted(notes)


def made_anew(recipe: Recipe, data: Dataset, backend: Backend) -> "tuple[Preprocessed, torch.optim.Optimizer]":
    """The network and its optimiser, and whatever the user's files keep in variables of their own, as in a fresh process."""
    run_anew()
    model = build_model(recipe, channels=data.channels, classes=len(data.classes), **normalization(recipe, data.train))
    model = place(model, backend.device).train()
    return model, build_optimizer(model, recipe, backend.dtype)


def make_step(
    model: "Preprocessed",
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    data: Dataset,
    backend: Backend,
    step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """A step of the loop in loop.py; its images B C H W, loss and logits B K."""
    weights = class_weights(recipe, data.train, len(data.classes))
    update = updating(model, optimizer, recipe, backend, lambda loss: None, Recordings(), weights)
    images, labels = (part.to(backend.device) for part in data.train.take(torch.arange(recipe.batch_size)))
    x, targets = augmented(images, labels, labels % 2 == 0, data, recipe, 0, step, 0.0)
    set_learning_rate(optimizer, 1.0)
    with global_draws(backend.device, recipe.seed, "dropout", 0, step):
        loss, logits = update(x, targets)
    return x, loss, logits


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a checkpoint holds them, whatever happens to them afterwards."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same_numbers(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states are equal in every number."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
