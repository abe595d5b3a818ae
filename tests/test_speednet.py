"""The whitened network: what its layers compute, and convolution on narrow maps against torch's own."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from thumbnet.backend import has_fast_bf16, place
from thumbnet.errors import UserError
from thumbnet.kernels.pool_norm_activate import bias_activate
from thumbnet.machine import Machine
from thumbnet.models import convolution, speednet, whitening
from thumbnet.models.convolution import Conv2d, TileConvolution
from thumbnet.models.preprocessed import Preprocessed, Resize, sampled
from thumbnet.models.registry import create_model
from thumbnet.models.whitening import EPSILON, Whitening, fit_whitening, train_stem
from thumbnet.recipes import recipe
from thumbnet.training.loop import train

# Relative, of bf16. Without its instructions torch sums in it, too, and is off by some percent; a mistake would be by 100.
ROUNDING = 2**-8 if has_fast_bf16(torch.device("cpu")) else 0.1


def pictures(batch=200, side=16):
    """Smooth coloured noise: neighbouring pixels and channels go together, as in photographs."""
    noise = torch.rand(batch, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    mixed = torch.einsum("dc,bchw->bdhw", torch.tensor([[1, 0.5, 0.2], [0.5, 1, 0.5], [0.2, 0.5, 1]]), noise)
    return F.interpolate(mixed, scale_factor=4, mode="bilinear")


@pytest.mark.parametrize("part", [0.5, 0.75, 0.875])
@pytest.mark.parametrize("bf16", [False, True])
def test_images_are_shrunk_for_a_gpu_as_they_are_for_a_cpu_also_where_products_are_in_bf16(part, bf16):
    images = pictures(batch=5, side=32)[:, :, :28]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        shrunk = sampled(images, [round(28 * part), round(32 * part)])
    torch.testing.assert_close(shrunk, Resize(part)(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_bias_and_an_activation_in_one_are_the_two_in_the_type_of_autocast(bf16):
    images, bias = pictures(batch=5), torch.tensor([0.5, -1, 2])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = bias_activate(images, bias, "silu")
    assert y.dtype == (torch.bfloat16 if bf16 else torch.float32)
    expected = F.silu(images + bias[:, None, None])
    torch.testing.assert_close(y.float(), expected, atol=0.02 if bf16 else 1e-6, rtol=0)


def test_whitening_filters_do_not_hang_on_how_many_images_are_unfolded_at_once(monkeypatch):
    images = pictures()
    at_once = whitening.whitening_filters(images, 2)
    monkeypatch.setattr(whitening, "PIXELS_AT_ONCE", 7 * 16**2)
    in_parts = whitening.whitening_filters(images, 2)
    torch.testing.assert_close(in_parts.abs(), at_once.abs(), atol=1e-4, rtol=1e-4)


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


def without_a_channel(images):
    """Of colours C one is blank, as in pictures of a microscope: the last."""
    return torch.cat((images[:, :-1], torch.zeros_like(images[:, -1:])), 1)


def grey(images):
    """Three equal channels, as grey pictures in a folder are read."""
    return images[:, :1].repeat(1, 3, 1, 1)


@pytest.mark.parametrize(("change", "kinds"), [(grey, 4), (without_a_channel, 8), (lambda images: images, 12)])
def test_in_place_of_directions_in_which_images_do_not_vary_the_others_come_again(change, kinds):
    images = pictures()
    images = change((images - images.mean()) / images.std())
    filters = whitening.whitening_filters(images, 2).flatten(1)
    patches = F.unfold(images, 2).transpose(0, 1).flatten(1)
    assert (filters @ patches).square().mean(1).min() > 0.2  # none shows nothing
    assert len({tuple(filter.tolist()) for filter in filters}) == kinds
    assert filters[-1].sum() ** 2 == filters.sum(1).square().max()  # the strongest is last, as ever


@pytest.mark.parametrize("change", [grey, without_a_channel])
def test_such_images_are_learnt_in_bf16_and_no_shift_runs_away(tiny, tmp_path, change):
    def changed(split):
        return replace(split, images=change(split.images.repeat(1, 3, 1, 1)))

    data = replace(tiny, train=changed(tiny.train), development=changed(tiny.development))
    made = recipe("general", widths=(8, 16, 16), epochs=3, batch_size=20)
    run = train(made, data, tmp_path / "run", machine=Machine(device="cpu", threads=1, precision="bf16"), plots=False)
    weights = load_file(run.path / "model.safetensors")
    shifts = torch.cat([tensor for name, tensor in weights.items() if name.endswith("bias")])
    assert 0.001 < shifts.abs().max() < 5


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


@pytest.mark.parametrize(("kernel", "padding"), [((3, 5), (1, 2)), ((3, 3), (1, 0)), ((3, 1), (1, 0)), (3, "same")])
def test_convolutions_that_are_not_square_are_torchs(kernel, padding):
    layer, x = Conv2d(16, 16, kernel, padding=padding), torch.rand(2, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x), nn.Conv2d.forward(layer, x))


def test_convolutions_go_to_the_tiles_in_bf16_where_the_processor_has_them(monkeypatch):
    calls = []
    in_tiles = lambda x, weight, bias, padding: calls.append(x.shape) or F.conv2d(x, weight, bias, padding=padding)  # noqa: E731
    monkeypatch.setattr(TileConvolution, "apply", in_tiles)
    layer, x = Conv2d(16, 16, 3, padding=1, bias=False), torch.rand(8, 16, 7, 7)
    for tiles, precision, expected in ((True, torch.bfloat16, 1), (False, torch.bfloat16, 1), (True, None, 1)):
        monkeypatch.setattr(convolution, "tiles_allowed", lambda tiles=tiles: tiles)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
            layer(x)
        assert len(calls) == expected


@pytest.mark.parametrize("name", ["speednet", "small_resnet", "resnet18"])
def test_grey_images_go_through_a_network_with_channels_last(name):
    """Torch cannot tell the two orders of one channel apart; in the other one the kernels in C are left out."""
    model = place(create_model(name, classes=10, channels=1), torch.device("cpu"))
    orders = []
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, Whitening)):
            layer.register_forward_hook(
                lambda layer, x, y: orders.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    model(torch.rand(2, 1, 28, 28))
    assert len(orders) >= 5 and all(orders)


def test_a_convolution_takes_a_map_with_empty_channels_as_it_takes_one_without():
    layer = convolution.Conv2d(12, 8, 3, padding=1)
    images = torch.randn(2, 12, 6, 6, generator=torch.Generator().manual_seed(0))
    filled_up = F.pad(images, (0, 0, 0, 0, 0, 4))
    torch.testing.assert_close(layer.of_filled_up(filled_up), layer(images))
    with pytest.raises(RuntimeError):
        layer(filled_up)  # nobody else's channels are left out
    taking = speednet.SpeedNet(classes=3, channels=3, widths=(8, 8), kernels=((3, 3), (3, 3))).groups
    assert [conv.takes_filled_up for group in taking for conv in group.convs] == [True, False, False, False]
    layer.takes_filled_up = True
    torch.testing.assert_close(layer(filled_up), layer(images))
    exported = torch.export.export(layer, (filled_up,)).module()
    torch.testing.assert_close(exported(filled_up), layer(images))
    layer.of_filled_up(filled_up).square().sum().backward()
    found, layer.weight.grad = layer.weight.grad.clone(), None
    layer(images).square().sum().backward()
    torch.testing.assert_close(found, layer.weight.grad, atol=1e-4, rtol=1e-4)
