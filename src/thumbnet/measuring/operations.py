"""Floating-point operations: how many a run computes, and how many a second this machine can."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from thumbnet.backend import prepare
from thumbnet.machine import Machine
from thumbnet.models.convolution import Conv2d
from thumbnet.randomness import generator
from thumbnet.recipes.network import build_model
from thumbnet.recipes.recipe import Recipe
from thumbnet.recipes.schedule import steps_per_epoch, total_steps

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

CEILING_SECONDS = 2.0  # of trying how fast a convolution can be


class OperationCounter(TorchDispatchMode):
    """Adds up what torch's table says of every convolution and matrix product computed within, forward and backward.

    torch's own counter does the same, but its first use imports the compiler, which takes a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import the compiler to tell it to keep out

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if count := flop_registry.get(operation._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def training_flops(recipe: Recipe, data: "Dataset") -> int:
    """Floating-point operations of the convolutions and matrix products of a whole run, forward and backward.

    Counted on two images at each resolution; a multiplication and an addition are two operations. In float64, which no faster
    way of ours takes: what a convolution is counts, not how it is computed here.
    """
    model = build_model(recipe, channels=data.channels, classes=len(data.classes)).double().train()
    images = total_steps(recipe, steps_per_epoch(recipe, len(data.train))) * recipe.batch_size
    total = 0.0
    for part in recipe.resolution:
        model.resize.part = part
        with OperationCounter() as counter:
            model(torch.zeros(2, data.channels, *data.image_size, dtype=torch.float64)).sum().backward()
        total += counter.total / 2 * images / len(recipe.resolution)
    return round(total)


def convolution_ceiling(machine: Machine) -> float:
    """FLOP/s of a large 3x3 convolution, forward, in the run's precision: what this machine can do at best for a network.

    The faster of torch's way and the networks' own as they are trained, which may multiply less than it counts
    (kernels/winograd.py).
    """
    backend = prepare(machine)
    images, channels, side, kernel = 128 if backend.device.type == "cpu" else 1_024, 256, 16, 3
    like: dict[str, Any] = {"device": backend.device, "dtype": backend.dtype}
    x = torch.empty(images, channels, side, side, memory_format=torch.channels_last, **like)
    x.uniform_(
        generator=generator(backend.device, "ceiling")
    )  # equal numbers take less power, and a GPU is faster with them
    own = Conv2d(channels, channels, kernel, padding=1, bias=False).to(**like)
    ways: tuple[Callable[[Tensor], Tensor], ...] = (lambda x: F.conv2d(x, own.weight, padding=1), own)
    fastest, started = math.inf, time.perf_counter()
    while fastest == math.inf or time.perf_counter() < started + CEILING_SECONDS:
        for way in ways:
            began = time.perf_counter()
            way(x)[0, 0, 0, 0].item()  # waits for the device
            fastest = min(fastest, time.perf_counter() - began)
    return 2 * images * (channels * kernel * side) ** 2 / fastest
