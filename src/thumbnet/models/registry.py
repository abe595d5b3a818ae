"""Every architecture by name. The name is that of a function in the module given here; nothing is imported until asked for."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thumbnet.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import nn

MODELS = {
    "small_resnet": "thumbnet.models.small_resnet",
    "preact_resnet50_classic": "thumbnet.models.classic",
    "resnet50_classic": "thumbnet.models.classic",
    "resnet18": "thumbnet.models.resnet",
    "preact_resnet18": "thumbnet.models.preact_resnet",
}

# How many dropout rates a model takes, where it is not one, before the dense layer. The classic ones: after stage 2, after
# stage 3, before the dense layer.
DROPOUT_PLACES = {"preact_resnet50_classic": 3, "resnet50_classic": 3}


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return list(MODELS)


def check_model(name: str, dropout: Sequence[float] = ()) -> None:
    """Raise `UserError` where `name` is no model, naming the nearest, or takes another number of dropout rates."""
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    places = DROPOUT_PLACES.get(name, 1)
    if dropout and len(dropout) != places:
        raise UserError(f"dropout has {len(dropout)} rates for model {name!r}, which takes {places}")


def create_model(
    name: str, *, classes: int, channels: int = 3, dropout: Sequence[float] = (), seed: int = 0
) -> "nn.Module":
    """A plain network: float B C H W in, logits B K out. The same seed gives the same initial weights.

    `dropout` is passed on to the architecture; the classic networks take three rates, the others one. Raises `UserError`
    on an unknown name or a wrong number of rates.
    """
    check_model(name, dropout)
    from thumbnet.randomness import global_draws

    build = getattr(importlib.import_module(MODELS[name]), name)
    rates = {"dropout": tuple(dropout)} if dropout else {}
    with global_draws("cpu", seed, "weights"):
        return build(classes=classes, channels=channels, **rates)


def describe_model(name: str) -> str:
    """First line of the architecture's docstring."""
    function = getattr(importlib.import_module(MODELS[name]), name)
    return (function.__doc__ or "").strip().split("\n")[0]
