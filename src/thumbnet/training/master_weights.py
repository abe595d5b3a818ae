"""Mixed precision with master weights: the network computes with copies in bf16, the optimiser moves those in fp32.

Autocast does the same with one kernel for every weight, and one more for its gradient. On a GPU these were a fifth of the kernels
of the classic network, which takes longer to start them than to carry them out. Micikevicius et al. 2018,
https://arxiv.org/abs/1710.03740, section 3.1.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Copies:
    """The weights of the convolutions and dense layers within a network, copied to `dtype`.

    A layer that is to compute in float for itself, inside `autocast(enabled=False)`, must be none of these.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, dtype: torch.dtype):
        weights = {
            f"{place}.{name}": weight
            for place, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d | nn.Linear)
            for name, weight in layer.named_parameters(recurse=False)
            if weight.requires_grad
        }
        self.model = model
        self.masters: list[Tensor] = list(weights.values())
        copies = [torch.empty_like(master, dtype=dtype) for master in self.masters]
        if copies:
            torch._foreach_copy_(copies, self.masters)
        self.by_name = dict(zip(weights, (copy.requires_grad_() for copy in copies), strict=True))

    def compute(self, x: Tensor) -> Tensor:
        """What the network gives for x with the copies in place of the weights; tied ones are copied for each layer."""
        return functional_call(self.model, self.by_name, (x,), tie_weights=False)  # type: ignore[no-any-return]

    @torch.no_grad()
    def hand_over_gradients(self) -> None:
        """Add the copies' gradients to those of the masters, and forget them."""
        found = [  # of one layout but for the strides of sides of length 1, which torch's `_foreach` functions compare too
            (master, copy.grad.as_strided(master.shape, master.stride()))
            for master, copy in zip(self.masters, self.by_name.values(), strict=True)
            if copy.grad is not None
        ]
        gradients = [torch.empty_like(master) for master, _ in found]
        if found:
            torch._foreach_copy_(gradients, [gradient for _, gradient in found])
        for (master, _), gradient in zip(found, gradients, strict=True):
            master.grad = gradient if master.grad is None else master.grad + gradient
        for copy in self.by_name.values():
            copy.grad = None
