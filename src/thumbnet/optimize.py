"""Optimisers: torch's, with parameters grouped by what the recipe's penalties apply to."""

import torch
from torch import Tensor, nn

from thumbnet.recipes.recipe import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD with two groups: parameters with a penalty, and those without (biases, normalisation, the rest)."""
    penalized = dict(penalized_parameters(model, recipe))
    free = [parameter for name, parameter in model.named_parameters() if name not in penalized]
    groups = [
        {"params": list(penalized.values()), "weight_decay": decay_of(recipe)},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (recipe.beta1, recipe.beta2)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.epsilon, fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.epsilon, fused=True)
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True
    )


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
    """The penalty's part of the loss, l2 times the sum of squares; Keras adds it to every loss it reports."""
    if not recipe.l2:
        return 0.0
    squares = torch._foreach_norm([parameter for _, parameter in penalized_parameters(model, recipe)])
    return recipe.l2 * float(torch.stack(squares).square().sum())
