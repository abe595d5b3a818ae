"""What an optimiser of the user's own keeps beside tensors of its parameters, in a checkpoint and back."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thumbnet.errors import UserError

OF_OWN = ("number", "group")  # begin the names of what is kept here


def of_own_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, whose: str) -> dict[str, Tensor]:
    """`number.KEY.NAME` for numbers of a parameter, `group.INDEX.KEY` for numbers and tensors of a group.

    Raises `UserError` for what a checkpoint cannot hold of a parameter.
    """
    found = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(key, str) or "." in key or not can_be_kept(value):
                told = f"{value.dtype} tensor" if isinstance(value, Tensor) else f"{type(value).__name__} {value!r}"
                raise UserError(
                    f"{whose}: the optimizer keeps {key!r} as {told[:60]}, which a checkpoint cannot hold; keep finite numbers, "
                    "or tensors of numbers, under a name without dots"
                )
            if isinstance(value, int | float):
                found[f"number.{key}.{name}"] = as_tensor(value)
    for index, group in enumerate(optimizer.param_groups):
        kept = {key: value for key, value in group.items() if value is not None and can_be_kept(value)}
        found |= {f"group.{index}.{key}": as_tensor(value) for key, value in kept.items()}
    return found


def put_back_own(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Give them back to an optimiser that has made no step."""
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        first, _, last = rest.partition(".")
        if kind == "number":
            optimizer.state[parameters[last]][first] = tensor.item()
        elif kind == "group":
            group = optimizer.param_groups[int(first)]
            if isinstance(group.get(last), Tensor):
                group[last].copy_(tensor)
            else:
                group[last] = tensor.item()


def can_be_kept(value: Any) -> bool:
    """A finite number, a tensor of a type that NumPy has, or None, which is left out."""
    if isinstance(value, Tensor):
        return value.dtype not in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2) and not value.is_complex()
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def as_tensor(value: int | float | Tensor) -> Tensor:
    """A number with all its digits, of a type that tells its own; a tensor as it is."""
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
