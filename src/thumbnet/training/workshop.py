"""What a run leaves behind for the next one of the same recipe with another seed or length, in one process.

For statistics over many short runs: on a GPU the recordings of graphs.py may cost more than a run of a second does, and they are
of these very tensors. So network, optimiser and weights of the classes are kept, and take the next run's numbers in place.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thumbnet.backend import Backend
from thumbnet.recipes.recipe import Recipe, vary
from thumbnet.training.graphs import Recordings
from thumbnet.training.optimize import build_optimizer

if TYPE_CHECKING:
    from thumbnet.models.preprocessed import Preprocessed


@dataclass
class Workshop:
    """A network with its optimiser and what was recorded of them; empty before the first run."""

    made_for: Any = None
    model: "Preprocessed | None" = None
    optimizer: torch.optim.Optimizer | None = None
    weights: Tensor | None = None  # K, of the classes in the loss; None where they are alike
    recordings: Recordings = field(default_factory=Recordings)

    def set_up(
        self, model: "Preprocessed", recipe: Recipe, backend: Backend, weights: Tensor | None
    ) -> "tuple[Preprocessed, torch.optim.Optimizer, Tensor | None]":
        """The network to train, as `model` is now, its optimiser, which has made no step, and `weights`: those kept that fit.

        Of code of the user's own nothing is kept: how its optimiser begins is not ours to know.
        """
        shapes = [tuple(tensor.shape) for tensor in model.state_dict().values()]
        purpose = (vary(recipe, seed=0, epochs=1.0, validation=0.0, folds=0, fold=0, start_from=""), shapes, backend)
        if recipe.own_code or self.made_for != purpose or self.model is None or self.optimizer is None:
            self.made_for, self.recordings = purpose, Recordings()
            self.model, self.optimizer, self.weights = model, build_optimizer(model, recipe, backend.dtype), weights
        else:
            renew(self.model, model, self.optimizer)
            if self.weights is not None and weights is not None:
                self.weights.copy_(weights)
        return self.model, self.optimizer, self.weights


@torch.no_grad()
def renew(kept: "Preprocessed", model: "Preprocessed", optimizer: torch.optim.Optimizer) -> None:
    """Give a trained network the numbers of a new one, in place, and its optimiser those before the first step."""
    for tensor, new in zip(kept.state_dict().values(), model.state_dict().values(), strict=True):
        tensor.copy_(new)
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()
