"""The whitened network: what its layers compute, and convolution on narrow maps against torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thumbnet.errors import UserError
from thumbnet.models import convolution
from thumbnet.models.convolution import Conv2d
from thumbnet.models.preprocessed import Preprocessed
from thumbnet.models.registry import create_model
from thumbnet.models.whitening import EPSILON, Whitening, fit_whitening, train_stem


def pictures(batch=200, side=16):
    """Smooth coloured noise: neighbouring pixels and channels go together, as in photographs."""
    noise = torch.rand(batch, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    mixed = torch.einsum("dc,bchw->bdhw", torch.tensor([[1, 0.5, 0.2], [0.5, 1, 0.5], [0.2, 0.5, 1]]), noise)
    return F.interpolate(mixed, scale_factor=4, mode="bilinear")


def test_whitened_patches_are_uncorrelated_and_come_with_both_signs():
    layer, images = Whitening(channels=3), pictures() - pictures().mean(dim=(0, 2, 3), keepdim=True)
    fit_whitening(nn.Sequential(layer), images)
    y = layer(images)  # B 24 H W
    assert y.shape == (200, 24, 15, 15)
    torch.testing.assert_close(y[:, :12], -y[:, 12:])  # the bias begins at zero
    rows = y[:, :12].permute(1, 0, 2, 3).flatten(1)
    second_moments = rows @ rows.T / rows.shape[1]
    off_diagonal = second_moments - second_moments.diag().diag()
    assert off_diagonal.abs().max() < 1e-3
    kept = second_moments.diag()  # variance / (variance + EPSILON)
    assert kept.max() <= 1 + 1e-4 and kept.max() > 0.99
    assert EPSILON > 0


def test_the_whitening_layer_is_not_trained_and_is_saved_with_the_weights():
    model = create_model("speednet", classes=4, widths=(8, 8, 8))
    assert "whitening.filters" in model.state_dict()
    assert "whitening.filters" not in dict(model.named_parameters())


def test_once_the_stem_is_not_trained_no_gradient_goes_through_its_map():
    model = create_model("speednet", classes=4, widths=(8, 8, 8))
    train_stem(model, False)
    seen = []
    model.whitening.register_forward_hook(lambda layer, inputs, output: seen.append(output.requires_grad))
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    train_stem(model, True)
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    assert seen == [False, True]
    assert model.whitening.bias.grad.any()


def test_the_first_filters_of_every_kernel_begin_as_the_identity():
    model = create_model("speednet", classes=4, widths=(32, 48, 48))
    for group in model.groups:
        for conv in group.convs:
            side = torch.zeros_like(conv.weight[: conv.in_channels])
            nn.init.dirac_(side)
            assert torch.equal(conv.weight[: conv.in_channels], side[: conv.out_channels])


def test_widths_and_depth_shape_the_groups_and_are_refused_where_the_model_has_its_own():
    model = create_model("speednet", classes=4, widths=(8, 16), depth=3)
    assert [[conv.out_channels for conv in group.convs] for group in model.groups] == [[8] * 3, [16] * 3]
    slim = create_model("speednet_slim", classes=4, widths=(8, 16, 32))
    assert [[conv.kernel_size[0] for conv in group.convs] for group in slim.groups] == [[3, 1], [3, 3], [2, 3]]
    with pytest.raises(UserError, match="widths and depth of its own"):
        create_model("resnet18", classes=4, widths=(8, 8))


def test_depth_three_adds_the_first_activation_of_a_group_to_its_last():
    torch.manual_seed(0)
    group = create_model("speednet", classes=4, widths=(24,), depth=3).groups[0].eval()
    for conv in group.convs[1:]:
        nn.init.zeros_(conv.weight)
    x = torch.randn(2, 24, 8, 8)
    norm = group.norms[0]
    pooled = F.max_pool2d(group.convs[0](x), 2)
    first = F.gelu(F.batch_norm(pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias))
    torch.testing.assert_close(group(x), F.gelu(first))


@pytest.mark.parametrize("part", [0.5, 0.75, 1.0])
def test_a_network_sees_its_images_at_the_part_of_their_size_that_was_set(part):
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(x.shape[2:])
            return x.mean(dim=(2, 3))

    Preprocessed(Look(), [0.0] * 3, [1.0] * 3, part)(torch.rand(2, 3, 32, 28))
    assert seen == [(32 * part, 28 * part)]


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (2, 0), (3, 0), (2, 1), (5, 2)])
@pytest.mark.parametrize("side", [3, 5, 8])
@pytest.mark.parametrize("batch", [12, 7])
def test_images_side_by_side_give_the_same_convolution_and_gradients(monkeypatch, kernel, padding, side, batch):
    if side + 2 * padding < kernel:
        return
    layer = Conv2d(6, 10, kernel, padding=padding, bias=False)
    ours, reference = (torch.randn(batch, 6, side, side, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    ours.requires_grad_(), reference.requires_grad_()
    y, expected = layer.side_by_side(ours), F.conv2d(reference, layer.weight, padding=padding)
    torch.testing.assert_close(y, expected)
    gradient = torch.randn_like(expected)
    of_kernel, of_x = torch.autograd.grad(y, (layer.weight, ours), gradient)
    expected_of_kernel, expected_of_x = torch.autograd.grad(expected, (layer.weight, reference), gradient)
    torch.testing.assert_close(of_kernel, expected_of_kernel, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_x, expected_of_x, rtol=1e-4, atol=1e-4)


def test_narrow_maps_are_put_side_by_side_in_bf16_where_the_processor_has_tiles(monkeypatch):
    calls = []
    monkeypatch.setattr(Conv2d, "side_by_side", lambda self, x: calls.append(x.shape) or nn.Conv2d.forward(self, x))
    layer, x = Conv2d(4, 4, 3, padding=1, bias=False), torch.rand(8, 4, 7, 7)
    for tiles, precision, expected in ((True, torch.bfloat16, 1), (False, torch.bfloat16, 1), (True, None, 1)):
        monkeypatch.setattr(convolution, "has_tiles", lambda tiles=tiles: tiles)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
            layer(x)
        assert len(calls) == expected
