"""Optimisers: torch's, with parameters grouped by what the recipe's penalties apply to, and Muon for convolutions."""
# Shapes: D filters (rows), C S S their inputs (columns); for any matrix R rows, N columns.

import math
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from thumbnet.errors import UserError
from thumbnet.kernels.muon import all_have_passes, look_ahead, take_step
from thumbnet.kernels.symmetric_product import has_products, newton_schulz, symmetric_product
from thumbnet.own_code import call_own, is_own, shown
from thumbnet.recipes.recipe import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe, compute: torch.dtype = torch.float32) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that are trained; `compute` is the type of Muon's matrix products.

    Adam, AdamW and SGD have two groups: parameters with a penalty, and those without (biases, normalisation, the rest); one of
    the user's own has those it wants. Every group holds its peak rate as `peak`; `set_learning_rate` moves all of them along the
    schedule.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    if is_own(recipe.optimizer):
        return with_peaks(own_optimizer(model, recipe), recordable=False)
    if recipe.optimizer == "muon":
        leave_compiler_out()
        return with_peaks(build_muon(model, recipe, compute), recordable=on_gpu)
    penalized = dict(penalized_parameters(model, recipe))
    free = [p for name, p in model.named_parameters() if name not in penalized and p.requires_grad]
    groups = [
        {"params": list(penalized.values()), "weight_decay": decay_of(recipe)},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (recipe.beta1, recipe.beta2)
    common: dict[str, Any] = {"lr": recipe.learning_rate, "fused": True}
    if recipe.optimizer == "adam":
        adam = torch.optim.Adam(groups, **common, betas=betas, eps=recipe.epsilon, capturable=on_gpu)
        return with_peaks(adam, recordable=on_gpu)
    if recipe.optimizer == "adamw":
        adamw = torch.optim.AdamW(groups, **common, betas=betas, eps=recipe.epsilon, capturable=on_gpu)
        return with_peaks(adamw, recordable=on_gpu)
    nesterov = recipe.momentum > 0
    sgd = torch.optim.SGD(groups, **common, momentum=recipe.momentum, nesterov=nesterov)
    return with_peaks(sgd, recordable=on_gpu)


def own_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """What the function `optimizer` in a file of the user's makes of the network and the recipe."""
    optimizer = call_own(recipe.optimizer, "optimizer", model, recipe, own=recipe.own)
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise UserError(f"{shown(recipe.optimizer)}: optimizer(model, recipe) gave {kind}, not a torch.optim.Optimizer")
    if not all(isinstance(group.get("lr"), int | float | Tensor) for group in optimizer.param_groups):
        raise UserError(
            f"{shown(recipe.optimizer)}: a group of the optimizer has no number as its lr; give one to each"
        )
    return optimizer


def leave_compiler_out() -> None:
    """Keep Muon from importing torch's compiler, which takes most of a second and is not used here.

    torch imports it on the first call of these methods of any optimiser, only to wrap them so that they are never compiled.
    That it has done so it notes in an attribute of theirs; where another version does otherwise, this changes nothing. Its
    own optimisers import it in every `step` besides.
    """
    if "torch._dynamo" in sys.modules:  # somebody uses it
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            plain.__dynamo_disable = plain


def with_peaks(optimizer: torch.optim.Optimizer, *, recordable: bool) -> torch.optim.Optimizer:
    """Note each group's rate as its `peak`; where `recordable`, the rate itself lies on the device, for graphs.py."""
    for group in optimizer.param_groups:
        group["peak"] = float(group["lr"])
        if recordable:
            group["lr"] = torch.tensor(group["peak"], device=group["params"][0].device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's rate becomes its peak times the schedule's factor."""
    for group in optimizer.param_groups:
        rate = group.setdefault("peak", group["lr"]) * factor  # the user's own may add groups later
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def build_muon(model: nn.Module, recipe: Recipe, compute: torch.dtype) -> "Muon":
    """Muon for kernels of convolutions; plain Nesterov SGD, with rates of their own, for biases, shifts and dense layers."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # The rates of the two SGD groups are for a loss summed over the batch (as in airbench), the loop's loss is its mean.
    rates = {4: recipe.learning_rate, 2: recipe.head_rate * recipe.batch_size, 1: recipe.bias_rate * recipe.batch_size}
    groups = [
        {"params": [p for p in trained if p.ndim == ndim], "lr": rate, "orthogonalize": ndim == 4}
        for ndim, rate in rates.items()
    ]
    groups = [group for group in groups if group["params"]]
    return Muon(groups, momentum=recipe.momentum, sgd_momentum=SGD_MOMENTUM, compute=compute)


SGD_MOMENTUM = 0.85  # airbench's, for what Muon leaves to SGD
# What biases and shifts are held within. They move features of unit variance, and beyond this an activation is linear or off
# anyway. Where most of an image is one colour, rounding to bf16 is the same at all of its pixels and adds up in their gradients,
# which carried them into the thousands (docs/findings.md). In images without such a ground they stay below 6.
LARGEST_SHIFT = 16.0
TINY = 1e-7  # keeps a gradient of zeros from becoming 0 / 0


class Muon(torch.optim.Optimizer):
    """Nesterov SGD whose step for a kernel D C S S is the orthogonal matrix D x C S S nearest to it.

    Jordan 2024, https://kellerjordan.github.io/posts/muon/. Before each step a kernel is scaled to the norm sqrt(D), as in
    airbench: with normalisation behind every convolution only its direction matters, and the rate is then an angle. Groups
    have `orthogonalize`; those without take plain steps, after which biases and shifts are held within `LARGEST_SHIFT`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float, sgd_momentum: float, compute: torch.dtype):
        self.compute = compute  # of the matrix products
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "sgd_momentum": sgd_momentum, "orthogonalize": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                buffers = [self.buffer(parameter) for parameter in moved]
                gradients = [parameter.grad for parameter in moved]
                momentum = group["momentum"] if group["orthogonalize"] else group["sgd_momentum"]
                compute = self.compute if group["orthogonalize"] else None
                move(moved, gradients, buffers, group["lr"], momentum, compute)
                for shift in moved:
                    if shift.ndim == 1:
                        hold(shift)

    def buffer(self, parameter: Tensor) -> Tensor:
        """The decaying sum of the parameter's gradients."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]  # type: ignore[no-any-return]


def hold(shift: Tensor) -> None:
    """Keep biases or shifts within `LARGEST_SHIFT`; an infinite one stays, so that it is found and ends the run."""
    shift.copy_(torch.where(shift.isinf(), shift, shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)))


def move(
    parameters: list[Tensor],
    gradients: list[Tensor],
    buffers: list[Tensor],
    rate: float | Tensor,
    momentum: float,
    compute: torch.dtype | None,
) -> None:
    """A step of Nesterov SGD; for kernels D C S S made orthogonal by matrix products in `compute`, unless that is None."""
    if compute is not None and not isinstance(rate, Tensor) and all_have_passes(parameters, buffers, compute):
        for kernel, gradient, buffer in zip(parameters, gradients, buffers, strict=True):
            move_kernel(kernel, gradient, buffer, rate, momentum, compute)
        return
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, gradients)
    updates = list(torch._foreach_add(gradients, buffers, alpha=momentum))  # looked up one step ahead
    if compute is not None:
        for kernel, norm in zip(parameters, torch._foreach_norm(parameters), strict=True):
            kernel.mul_(len(kernel) ** 0.5 / norm)
        norms = torch._foreach_add(torch._foreach_norm(updates), TINY)
        directions = [divided(update, norm, compute) for update, norm in zip(updates, norms, strict=True)]
        orthogonal = orthogonalized(directions, together=directions[0].device.type == "cuda")
        updates = [found.view_as(kernel) for found, kernel in zip(orthogonal, parameters, strict=True)]
    for parameter, update in zip(parameters, updates, strict=True):
        if isinstance(rate, Tensor):
            parameter.addcmul_(update, rate, value=-1)  # read when the step runs, not when it is recorded
        else:
            parameter.add_(update, alpha=-rate)


def move_kernel(
    kernel: Tensor, gradient: Tensor, buffer: Tensor, rate: float, momentum: float, compute: torch.dtype
) -> None:
    """`move` for one kernel on a CPU, in C. Not the direction is divided by its norm, but its Gram matrix and the rate are."""
    direction, norm, norm_of_kernel = look_ahead(kernel, gradient, buffer, momentum, compute)
    found = nearest_orthogonal(direction, norm=norm + TINY)
    take_step(kernel, found, len(kernel) ** 0.5 / (norm_of_kernel or math.nan), rate / (norm + TINY))


def divided(kernel: Tensor, norm: Tensor, dtype: torch.dtype) -> Tensor:
    """D C S S divided by a number -> D x C S S in `dtype`, in one pass, whatever the order of the kernel in memory."""
    found = torch.empty(kernel.shape, dtype=dtype, device=kernel.device)
    return torch.div(kernel, norm, out=found).flatten(1)


def orthogonalized(matrices: list[Tensor], *, together: bool) -> list[Tensor]:
    """For each R x N, its singular values in [0, 1], the orthogonal matrix nearest to it.

    With `together` those whose smaller sides agree are iterated in one product: on a GPU, hardly longer than one of them.
    """
    if not together:
        return [nearest_orthogonal(matrix) for matrix in matrices]
    wide = [matrix if len(matrix) <= matrix.shape[1] else matrix.T for matrix in matrices]
    factors: dict[int, Tensor] = {}
    for side in {len(matrix) for matrix in wide}:
        places = [i for i, matrix in enumerate(wide) if len(matrix) == side]
        products = newton_schulz_factor(torch.stack([wide[i] @ wide[i].T for i in places]))
        factors |= dict(zip(places, products, strict=True))
    found = [factors[i] @ matrix for i, matrix in enumerate(wide)]
    return [x if len(x) == len(matrix) else x.T for x, matrix in zip(found, matrices, strict=True)]


# Quintic p(s) = a s + b s^3 + c s^5 whose iteration carries singular values from (0, 1] near 1; Jordan 2024, as above.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3  # airbench's; more steps cost time and gain no accuracy there


def nearest_orthogonal(matrix: Tensor, steps: int = NEWTON_SCHULZ_STEPS, *, norm: float = 1.0) -> Tensor:
    """norm U V' of the singular value decomposition U S V' of R x N, where S / norm is in [0, 1]; approximately.

    The singular values end near `norm`.
    """
    if len(matrix) > matrix.shape[1]:
        return nearest_orthogonal(matrix.T, steps, norm=norm).T
    return newton_schulz_factor(symmetric_product(matrix, matrix, alpha=norm**-2), steps) @ matrix


def newton_schulz_factor(gram: Tensor, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """What carries X to its nearest orthogonal matrix, from its Gram matrix G = X X', R R; or from several, M R R.

    Every iterate of Newton-Schulz is Z X with the same X and a polynomial Z of G, which is symmetric as G is, so that only the
    first and the last product are as wide as X.
    """
    if gram.ndim == 2 and has_products(gram):
        return newton_schulz(gram, NEWTON_SCHULZ, steps)
    multiplied = symmetric_product if gram.ndim == 2 else torch.matmul
    product = factor = quintic_factor(gram)
    for _ in range(steps - 1):
        gram = multiplied(multiplied(factor, gram), factor)
        factor = quintic_factor(gram)
        product = multiplied(factor, product)
    return product


def quintic_factor(gram: Tensor) -> Tensor:
    """a + b G + c G^2 for the Gram matrix G = X X': times X, it is the quintic of X."""
    a, b, c = NEWTON_SCHULZ
    if gram.ndim == 2:
        return symmetric_product(gram, gram, alpha=c, added=gram, beta=b, gamma=a)
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


def decay_of(recipe: Recipe) -> float:
    """torch's `weight_decay`. For adam and sgd it adds `weight_decay * w` to the gradient: the derivative of l2 * w^2."""
    return recipe.weight_decay if recipe.optimizer == "adamw" else 2 * recipe.l2


def penalized_parameters(model: nn.Module, recipe: Recipe) -> list[tuple[str, Tensor]]:
    """What l2 and weight_decay apply to: kernels (never biases or normalisation), all of them or those of the stages."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and (recipe.penalize == "kernels" or "stages." in name)
    ]


@torch.no_grad()
def l2_penalty(model: nn.Module, recipe: Recipe) -> float:
    """The penalty's part of the loss, l2 times the sum of squares, a member's mean; Keras adds it to every loss it reports."""
    if not recipe.l2:
        return 0.0
    squares = torch._foreach_norm([parameter for _, parameter in penalized_parameters(model, recipe)])
    return recipe.l2 * float(torch.stack(squares).square().sum()) / recipe.members
