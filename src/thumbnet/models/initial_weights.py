"""Initial weights: how a network draws them, and networks that have none yet, to load some or only to ask for shapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

DRAWN: ContextVar[bool] = ContextVar("DRAWN", default=True)


def draw_weights(network: nn.Module, initialize: Callable[[nn.Module], None]) -> None:
    """`initialize` every layer, unless the network is made `without_weights`."""
    if DRAWN.get():
        network.apply(initialize)


@contextmanager
def without_weights(device: str = "cpu") -> Iterator[None]:
    """What is made within has whatever numbers lie in its memory; on torch's device `meta` none at all, and no memory.

    To draw them takes longer than to use a network once. And for some functions on that device torch imports its compiler, which
    takes one to two seconds, for others a part of it.
    """
    before = DRAWN.set(False)
    try:
        with torch.device(device), NothingDrawn():
            yield
    finally:
        DRAWN.reset(before)


class NothingDrawn(TorchFunctionMode):
    """Leaves out those functions of `torch.nn.init` that torch's own layers draw with; the others it does not let be replaced."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        options = options or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return arguments[0] if arguments else options["tensor"]
        return function(*arguments, **options)
