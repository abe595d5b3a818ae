"""Every architecture by name. The name is that of a function in the module given here; nothing is imported until asked for."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from thumbnet.errors import UserError, unknown_name
from thumbnet.own_code import by_content, call_own, in_usual_order, is_own, shown

if TYPE_CHECKING:
    from torch import nn

MODELS = {
    "small_resnet": "thumbnet.models.small_resnet",
    "preact_resnet50_classic": "thumbnet.models.classic",
    "resnet50_classic": "thumbnet.models.classic",
    "speednet": "thumbnet.models.speednet",
    "speednet_slim": "thumbnet.models.speednet",
    "resnet18": "thumbnet.models.resnet",
    "resnet20": "thumbnet.models.resnet",
    "resnet50": "thumbnet.models.resnet",
    "resnet56": "thumbnet.models.resnet",
    "preact_resnet18": "thumbnet.models.preact_resnet",
    "wide_resnet16_4": "thumbnet.models.preact_resnet",
    "wide_resnet28_10": "thumbnet.models.preact_resnet",
    "vgg16": "thumbnet.models.vgg",
    "vision_transformer": "thumbnet.models.vision_transformer",
}

# How many dropout rates a model takes, where it is not one, before the dense layer. The classic ones: after stage 2, after
# stage 3, before the dense layer.
DROPOUT_PLACES = {"preact_resnet50_classic": 3, "resnet50_classic": 3}


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return list(MODELS)


# Models whose widths and depth of groups can be given.
OPEN_MODELS = ("speednet", "speednet_slim")


def dropout_places(name: str) -> int:
    """How many dropout rates a model takes."""
    return DROPOUT_PLACES.get(name, 1)


def check_model(name: str, dropout: Sequence[float] = (), widths: Sequence[int] = (), depth: int = 0) -> None:
    """Raise `UserError` where `name` is no model, naming the nearest, or does not take such rates, widths or depth.

    One of the user's own is asked when it is built.
    """
    if is_own(name):
        return
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    if (widths or depth) and name not in OPEN_MODELS:
        raise UserError(f"model {name!r} has widths and depth of its own; leave them out, or use {OPEN_MODELS[0]}")
    places = dropout_places(name)
    if dropout and len(dropout) != places:
        raise UserError(f"dropout has {len(dropout)} rates for model {name!r}, which takes {places}")


def create_model(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    widths: Sequence[int] = (),
    depth: int = 0,
    dropout: Sequence[float] = (),
    own: Sequence[str] = (),
    seed: int = 0,
) -> "nn.Module":
    """A plain network: float B C H W in, logits B K out. The same seed gives the same initial weights.

    `name` is one of `list_models()`, or what a recipe calls a Python file of the user's, whose function `network` is called, with
    those of the `own` values, `NAME=VALUE`, that it has parameters for.

    `dropout` is passed on to the architecture; the classic networks take three rates, the others one. `widths` and `depth`
    (of the groups) are for the models that leave them open. Raises `UserError` on an unknown name and on options that the
    model does not take.
    """
    check_model(name, dropout, widths, depth)
    name = by_content(name, ["network"]) if is_own(name) else name
    from thumbnet.randomness import global_draws

    given = {"dropout": tuple(dropout), "widths": tuple(widths), "depth": depth}
    options = {"classes": classes, "channels": channels} | {key: value for key, value in given.items() if value}
    with global_draws("cpu", seed, "weights"):
        if is_own(name):
            one_rate = {"dropout": dropout[0]} if len(dropout) == 1 else {}
            return own_network(name, options | one_rate, own)
        return getattr(importlib.import_module(MODELS[name]), name)(**options)  # type: ignore[no-any-return]


def own_network(name: str, options: dict[str, Any], own: Sequence[str]) -> "nn.Module":
    """What the function `network` in a file of the user's makes of the options.

    It is given images in torch's usual order, not channels last as ours are, so that `x.view(x.size(0), -1)` works as elsewhere;
    a ResNet-18 took 2 to 5 % longer for it (Zen 4, bf16).
    """
    from torch import nn

    network = call_own(name, "network", own=own, **options)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{shown(name)}: network({', '.join(options)}) gave {type(network).__name__}, not a torch.nn.Module"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            f"{shown(name)}: the network has no parameters to train; layers belong in nn.ModuleList, not in a list"
        )
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in network.parameters()):
        raise UserError(
            f"{shown(name)}: the network has lazy layers, whose sizes are not known before a step; give the sizes"
        )
    network.register_forward_pre_hook(in_usual_order)
    return network


def describe_model(name: str) -> str:
    """First line of the architecture's docstring."""
    function = getattr(importlib.import_module(MODELS[name]), name)
    return (function.__doc__ or "").strip().split("\n")[0]
