"""On a GPU, an update of the weights as a CUDA graph: recorded once, then replayed without Python between its kernels.

A small network's step is hundreds of kernels of some microseconds each, and launching them one by one takes longer than they do.
"""
# Shapes: B batch, C channels, H and W height and width, K classes.

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

Update: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # x B C H W, targets -> loss, logits B K
Replay: TypeAlias = Callable[[], None]

WARM_UP = 3  # calls before recording: libraries choose their algorithms, the optimiser makes its buffers


@dataclass
class Recordings:
    """How often each kind of update was called, and what was recorded: the inputs, what replays it, the results."""

    calls: Counter[Hashable] = field(default_factory=Counter)
    made: dict[Hashable, tuple[tuple[Tensor, Tensor], Replay, tuple[Tensor, Tensor]]] = field(default_factory=dict)


class RecordedUpdate:
    """Does what `update` does, after `WARM_UP` calls by replaying a recording of it.

    What is recorded holds for one kind of call: `kind()` says which (the resolution, what is trained), with shapes and types of
    the inputs. Addresses are part of it, so inputs are copied to where they lay when it was recorded, and the results lie where
    they lay then: read them before the next call. Nothing in `update` may wait for the GPU, and the learning rate must be read
    from the GPU's memory.
    """

    def __init__(self, update: Update, kind: Callable[[], Hashable], recordings: Recordings):
        self.update, self.kind, self.recordings = update, kind, recordings

    def __call__(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        key = (self.kind(), x.shape, targets.shape, targets.dtype)
        calls, made = self.recordings.calls, self.recordings.made
        calls[key] += 1
        if calls[key] <= WARM_UP:
            return self.update(x, targets)
        if key not in made:
            inputs = (x.clone(), targets.clone())  # `clone` keeps channels last
            made[key] = (inputs, *record(self.update, inputs))
        inputs, replay, results = made[key]
        inputs[0].copy_(x)
        inputs[1].copy_(targets)
        replay()
        return results


def record(update: Update, inputs: tuple[Tensor, Tensor]) -> tuple[Replay, tuple[Tensor, Tensor]]:
    """Record `update` of these inputs, which is not carried out; what replays it, and where its results will lie."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = update(*inputs)
    return graph.replay, results
