"""Convolutions in tile registers (Intel AMX) against torch's own: values, gradients, pooling, threads, memory."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from conftest import ONE_THREAD
from kernels import distance, maps
from thumbnet.kernels.tile_convolution import TileConvolution
from thumbnet.kernels.tiles import tiles_allowed
from thumbnet.kernels.weight_gradient import weight_gradient
from thumbnet.models import convolution
from thumbnet.models.speednet import speednet

tiles = pytest.mark.skipif(not tiles_allowed(), reason="needs the tile registers of Intel AMX")
SHAPES = [  # B C D H W S padding: channels short of a block and beyond one, chunks of several images, more parts than images
    (5, 32, 32, 7, 7, 3, 1),
    (40, 64, 96, 15, 15, 3, 1),
    (7, 40, 50, 6, 9, 2, 0),
    (9, 17, 33, 5, 5, 3, 1),
    (2, 32, 300, 11, 13, 5, 2),
    (1, 16, 16, 3, 3, 3, 0),
    (20, 64, 64, 40, 70, 3, 1),
    (600, 16, 16, 6, 6, 3, 1),
    (260, 16, 16, 6, 6, 3, 1),  # lines of images that are not full
    (3, 200, 40, 4, 4, 4, 3),
    (2, 16, 32, 1, 90, 3, 1),
    (6, 33, 32, 5, 7, 2, 1),
    (4, 16, 48, 6, 5, 4, 1),
]
POOLABLE = [shape for shape in SHAPES if min(shape[3:5]) + 2 * shape[6] - shape[5] + 1 >= 2]
BF16 = 2**-8  # half of its last place, twice on the way


def a_convolutions_past(batch, channels, channels_out, height, width, side, padding):
    """Its input and the gradient of its output."""
    rows, columns = height + 2 * padding - side + 1, width + 2 * padding - side + 1
    return maps((batch, channels, height, width)), maps((batch, channels_out, rows, columns), seed=1)


def distances(shape, *, pool):
    """Of a convolution and its three gradients from torch's in float64, whose inputs are rounded to bf16, too."""
    batch, channels, channels_out, height, width, side, padding = shape
    random = torch.Generator().manual_seed(3)
    inputs = [
        maps((batch, channels, height, width)),
        torch.randn(channels_out, channels, side, side, generator=random),
        torch.randn(channels_out, generator=random),
    ]
    exact = [inputs[0].double(), inputs[1].bfloat16().double(), inputs[2].double()]
    for tensor in (*inputs, *exact):
        tensor.requires_grad_()
    y, whole = TileConvolution.apply(*inputs, padding, pool), F.conv2d(*exact, padding=padding)
    expected = F.max_pool2d(whole, 2) if pool else whole
    assert y.shape == expected.shape and y.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(expected.shape, generator=random).bfloat16()
    if pool:  # where rounding may decide which of four is the largest, nothing comes back
        four = F.unfold(whole.flatten(0, 1)[:, None], 2, stride=2)  # B*D 4 pixels
        first, second = four.topk(2, dim=1).values.unbind(1)
        gradient *= (first - second > 1e-3 * whole.abs().max()).view(expected.shape)
    found = torch.autograd.grad(y, inputs, gradient)
    assert found[1].is_contiguous()
    wanted = torch.autograd.grad(expected, exact, gradient.double())
    return [distance(one, other) for one, other in zip((y, *found), (expected, *wanted), strict=True)]


@tiles
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_convolution_in_tiles_is_torchs_with_all_gradients(shape):
    y, of_x, of_kernel, of_bias = distances(shape, pool=False)
    assert max(y, of_x) < BF16 and max(of_kernel, of_bias) < 1e-5


@tiles
@pytest.mark.parametrize("shape", POOLABLE, ids=str)
def test_a_convolution_in_tiles_pools_as_torch_does_with_all_gradients(shape):
    y, of_x, of_kernel, of_bias = distances(shape, pool=True)
    assert max(y, of_x) < BF16 and max(of_kernel, of_bias) < 1e-5


@tiles
def test_pooling_in_tiles_takes_the_first_of_equals_and_keeps_a_nan_wherever_it_is():
    x, kernel = maps((2, 32, 6, 6)), torch.zeros(32, 32, 3, 3, requires_grad=True)  # so that all outputs are equal
    [found] = torch.autograd.grad(TileConvolution.apply(x, kernel, None, 0, True).sum(), kernel)
    exact = kernel.detach().requires_grad_()
    [expected] = torch.autograd.grad(F.max_pool2d(F.conv2d(x.float(), exact), 2).sum(), exact)
    assert distance(found, expected) < 1e-5
    for row, column in ((0, 0), (0, 5), (5, 0), (5, 5)):  # of the outputs of 2 x 2, one sees it
        broken = x.clone()
        broken[1, 3, row, column] = torch.nan
        y = TileConvolution.apply(broken, torch.ones_like(kernel), None, 0, True)
        seen = torch.zeros(2, 2, dtype=torch.bool)
        seen[row // 3, column // 3] = True
        assert not y[0].isnan().any() and torch.equal(y[1].isnan(), seen.expand(32, 2, 2))


@tiles
def test_a_network_that_pools_in_its_convolutions_is_the_same_network(monkeypatch):
    torch.manual_seed(0)
    model = speednet(classes=5, widths=(32, 48), depth=2).train()
    images, results = torch.randn(24, 3, 18, 18), []
    for pools in (True, False):
        if not pools:
            monkeypatch.setattr(convolution.Conv2d, "pools", lambda *_: False)
        changed = copy.deepcopy(model)
        with torch.autocast("cpu", torch.bfloat16):
            logits = changed(images)
        logits.float().square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in changed.parameters() if parameter.requires_grad)])
    # Rounding chooses another of four pixels where two are equal in bf16; a wrong gradient is off by about itself.
    assert all(distance(one, other) < 0.2 for one, other in zip(*results, strict=True))


@tiles
@pytest.mark.parametrize("pool", [True, False])
def test_a_convolution_in_tiles_does_not_depend_on_threads_or_on_the_order_of_its_input(pool):
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        x, _ = a_convolutions_past(*SHAPES[1])
        kernel = torch.randn(96, 64, 3, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
        x.requires_grad_()
        y = TileConvolution.apply(x if threads < 3 else x.contiguous(), kernel, None, 1, pool)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), (x, kernel))))
    assert all(torch.equal(one, other) for result in results[1:] for one, other in zip(results[0], result, strict=True))


@tiles
def test_one_image_is_convolved_as_it_is_among_others():
    x, kernel = maps((9, 64, 15, 15)), torch.randn(160, 64, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.set_num_threads(2)  # so that the two share the output channels of one image
    for pool in (False, True):
        alone = [TileConvolution.apply(image[None], kernel, None, 1, pool) for image in x]
        assert torch.equal(torch.cat(alone), TileConvolution.apply(x, kernel, None, 1, pool))


@tiles
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)], ids=str)
def test_what_needs_no_gradient_gets_none_and_changes_no_other(wanted):
    x, gradient = a_convolutions_past(*SHAPES[0])
    inputs = [x, torch.randn(32, 32, 3, 3, generator=torch.Generator().manual_seed(1)), torch.ones(1).expand(32)]
    found = []
    for needed in ((0, 1, 2), wanted):
        leaves = [tensor.detach().requires_grad_(k in needed) for k, tensor in enumerate(inputs)]
        y = TileConvolution.apply(*leaves, 1)
        found.append(
            dict(zip(needed, torch.autograd.grad(y, [leaves[k] for k in needed], gradient), strict=True)) | {"y": y}
        )
    assert all(torch.equal(value, found[0][key]) for key, value in found[1].items())
    assert torch.equal(found[0]["y"], TileConvolution.apply(inputs[0], inputs[1], torch.ones(32), 1))


@tiles
@pytest.mark.parametrize("pool", [True, False])
def test_an_output_that_no_cache_holds_is_what_its_parts_are(pool):
    x, kernel = (
        maps((300 if pool else 80, 16, 30, 30)),
        torch.randn(128, 16, 3, 3, generator=torch.Generator().manual_seed(1)),
    )
    bias = torch.randn(128, generator=torch.Generator().manual_seed(2))
    whole = TileConvolution.apply(x, kernel, bias, 1, pool)
    parts = [TileConvolution.apply(part, kernel, bias, 1, pool) for part in x.chunk(4)]
    assert whole.numel() >= 2**23 > parts[0].numel()  # the C writes past the caches from there on
    assert torch.equal(whole, torch.cat(parts))


@tiles
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_of_a_kernel_is_torchs(shape):
    x, gradient = a_convolutions_past(*shape)
    *_, side, padding = shape
    kernel = (gradient.shape[1], x.shape[1], side, side)
    expected = torch.nn.grad.conv2d_weight(x.float(), kernel, gradient.float(), padding=padding)
    found = weight_gradient(x, gradient, side, padding)
    assert found.shape == kernel and found.is_contiguous() and distance(found, expected) < 1e-5


@tiles
def test_what_was_worked_on_before_leaves_nothing_behind():
    """The allocator gives the same memory again: zeros between images are written anew where others lay."""
    x, gradient = a_convolutions_past(*SHAPES[0])
    kernel = torch.randn(32, 32, 3, 3, generator=torch.Generator().manual_seed(1))
    before = TileConvolution.apply(x, kernel, None, 1), weight_gradient(x, gradient, 3, 1)
    others = [torch.full_like(tensor, torch.nan) for tensor in a_convolutions_past(50, 96, 96, 12, 12, 3, 1)]
    TileConvolution.apply(others[0], torch.ones(96, 96, 3, 3), None, 1), weight_gradient(*others, 3, 1)
    after = TileConvolution.apply(x, kernel, None, 1), weight_gradient(x, gradient, 3, 1)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@tiles
@pytest.mark.parametrize(
    "way", ["weight_gradient(x, x, 3, 1)", "TileConvolution.apply(x, torch.zeros(16, 16, 3, 3), None, 1)"]
)
def test_a_convolution_without_memory_is_an_error_and_not_a_wrong_number(way):
    code = f"""
import resource, torch
from thumbnet.kernels.tile_convolution import TileConvolution
from thumbnet.kernels.tiles import tiles_allowed
from thumbnet.kernels.weight_gradient import weight_gradient
assert tiles_allowed()
x = torch.zeros(1, 16, 900, 900, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, resource.RLIM_INFINITY))
try:
    {way}
except MemoryError as error:
    print("told:", error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | ONE_THREAD)
    words = "no memory for the gradient of a convolution" if "gradient" in way else "no memory for a convolution"
    assert result.stdout == f"told: {words}\n", result.stderr


def test_without_tiles_convolutions_in_bf16_are_torchs(monkeypatch):
    layer, x = convolution.Conv2d(32, 32, 3, padding=1), maps((4, 32, 7, 7))
    monkeypatch.setattr(convolution, "tiles_allowed", lambda: False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), torch.nn.Conv2d.forward(layer, x)) and not layer.pools(x)


@tiles
def test_other_channels_and_negative_padding_are_refused_by_torch():
    layer = convolution.Conv2d(32, 40, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="channels"):
        layer(torch.zeros(2, 64, 7, 7))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="negative padding"):
        convolution.Conv2d(32, 40, 3, padding=-1)(torch.zeros(2, 32, 7, 7))


@tiles
def test_no_images_are_convolved_to_none():
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution.Conv2d(32, 40, 3, padding=1)(torch.zeros(0, 32, 7, 7)).shape == (0, 40, 7, 7)
