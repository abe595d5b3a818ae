"""Python files of a user's own, and recipes that name them, for the tests of own code and of trust."""

import thumbnet
from thumbnet.recipes import recipe

NETWORK = """
from torch import nn

def network(classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.GELU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""
COUNTING = """
import torch

class optimizer(torch.optim.Optimizer):
    '''Signs of a decaying mean, smaller from step to step by a number that is no tensor; a factor of another shape.'''

    def __init__(self, model, recipe):
        super().__init__(model.parameters(), {"lr": recipe.learning_rate, "decay": 1.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["decay"] *= 0.9
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state.update(steps=0, mean=torch.zeros_like(parameter), sizes=torch.zeros(3, dtype=torch.float64))
                state["steps"] += 1
                state["mean"].lerp_(parameter.grad, 0.3)
                state["sizes"][state["steps"] % 3] = parameter.grad.norm()
                slower = group["decay"] / (state["steps"] + state["sizes"].sum().item())
                parameter.sub_(state["mean"].sign() * group["lr"] * slower)
"""


def written(folder, text, name="mine.py", *, trusted=True):
    """The path of a file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    if trusted:
        thumbnet.trust(path)
    return str(path)


def plain(**changes):
    return recipe("plain", **({"epochs": 2, "batch_size": 32} | changes))
