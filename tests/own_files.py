"""Python files of a user's own, and recipes that name them, for the tests of own code and of trust."""

import thumbnet
from thumbnet.recipes import recipe

NETWORK = """
from torch import nn

def network(classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.GELU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
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
