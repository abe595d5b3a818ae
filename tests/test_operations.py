"""Operations are counted as one would by hand, and without the seconds that torch's compiler takes to be imported."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from thumbnet.data.datasets import load_dataset
from thumbnet.measuring.operations import OperationCounter, training_flops
from thumbnet.recipes import recipe


def test_operations_are_those_of_convolutions_and_products_forward_and_backward():
    data = load_dataset("fashion-mini", validation=0)
    chosen = recipe("cifar10-94", model="speednet", widths=(16,), depth=1, epochs=1, batch_size=100, resolution=(0.5,))
    images, pixels = 6_000, 13**2  # 14 x 14, whitened 2 x 2
    whitening = 2 * 8 * 4 * pixels  # forward only: neither its filters nor the images are trained
    convolution = 3 * 2 * 8 * 16 * 9 * pixels
    dense = 3 * 2 * 16 * 10
    assert training_flops(chosen, data) == images * (whitening + convolution + dense)


def test_operations_grow_with_epochs_and_resolution():
    data = load_dataset("fashion-mini", validation=0)
    low, twice, high = (
        training_flops(recipe("cifar10-94", **changes), data)
        for changes in (
            {"resolution": (0.75,), "epochs": 1},
            {"resolution": (0.75,), "epochs": 2},
            {"epochs": 1, "resolution": (1.0,)},
        )
    )
    assert twice == 2 * low and high > 1.5 * low


@pytest.mark.filterwarnings("ignore")  # of what torch's compiler imports
def test_the_counter_agrees_with_torchs_own():
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, groups=1), torch.nn.Flatten(), torch.nn.Linear(32, 5)
    )
    totals = []
    for counter in (OperationCounter(), FlopCounterMode(display=False)):
        with counter:
            layers(torch.ones(7, 3, 5, 5)).sum().backward()
        totals.append(counter.total if isinstance(counter, OperationCounter) else counter.get_total_flops())
    assert totals[0] == totals[1] > 0


def test_counting_does_not_import_the_compiler():
    code = """
import sys
from thumbnet.data.datasets import load_dataset
from thumbnet.measuring.operations import training_flops
from thumbnet.recipes import recipe
assert training_flops(recipe("general", epochs=1), load_dataset("fashion-mini")) > 0
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "[]", result.stderr
