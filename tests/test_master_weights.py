"""Copies of weights in bf16: what is computed with them, and that their gradients reach the weights."""

import pytest
import torch
from torch import nn

from thumbnet.training.master_weights import Copies


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1, bias=False),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def step(model: nn.Module, images: torch.Tensor, *, copied: bool) -> torch.Tensor:
    copies = Copies(model, torch.bfloat16) if copied else None
    with torch.autocast("cpu", torch.bfloat16):
        y = copies.compute(images) if copies else model(images)
    y.float().square().sum().backward()
    if copies:
        copies.hand_over_gradients()
    return y


@pytest.mark.parametrize("steps", [1, 2])
def test_copies_give_what_autocast_gives_and_gradients_add_up_in_float(steps):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for copied in (False, True):
        model = network()
        outputs = [step(model, images + k, copied=copied) for k in range(steps)]
        found.append([*outputs, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_gradients_handed_over_are_not_handed_over_again():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for copied in (False, True):
        model = network().eval()
        copies = Copies(model, torch.bfloat16) if copied else None
        for part in images.split(2):  # as micro-batches, with one set of copies
            with torch.autocast("cpu", torch.bfloat16):
                y = copies.compute(part) if copies else model(part)
            y.float().square().sum().backward()
            if copies:
                copies.hand_over_gradients()
        found.append(model[0].weight.grad)
    assert torch.equal(*found)


def test_a_layer_in_two_places_and_a_weight_of_two_layers_keep_their_weights():
    twice, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = twice.weight
    model = nn.Sequential(twice, nn.ReLU(), twice, tied)
    step(model, torch.rand(3, 4, generator=torch.Generator().manual_seed(1)), copied=True)
    assert twice.weight is tied.weight is model[2].weight and isinstance(twice.weight, nn.Parameter)
    found, model[0].weight.grad = twice.weight.grad, None
    step(model, torch.rand(3, 4, generator=torch.Generator().manual_seed(1)), copied=False)
    torch.testing.assert_close(found, twice.weight.grad, atol=1e-2, rtol=1e-2)


def test_a_frozen_layer_is_not_copied_and_gets_no_gradient():
    model = network()
    model[0].requires_grad_(False)
    assert not [name for name in Copies(model, torch.bfloat16).by_name if name.startswith("0.")]
    step(model, torch.rand(2, 3, 8, 8), copied=True)
    assert model[0].weight.grad is None
    assert model[3].weight.grad is not None


def test_a_network_without_convolutions_and_dense_layers_has_no_copies():
    copies = Copies(nn.BatchNorm2d(3), torch.bfloat16)
    copies.hand_over_gradients()
    assert copies.by_name == {}
