"""The C against torch's own operations, and everything that makes it unavailable."""

import copy
import os
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kernels import compiled, distance, maps
from thumbnet.kernels import library as home
from thumbnet.kernels.dense_matrix import DenseMatrix, PlainDenseMatrix, dense_matrix
from thumbnet.kernels.library import NUMBERS, compile_into, library
from thumbnet.kernels.map_maximum import map_maximum
from thumbnet.kernels.pool_norm_activate import ACTIVATIONS, activate, has_kernel, plain, pool_norm_activate
from thumbnet.models import preprocessed, whitening

ROUNDING = {
    torch.bfloat16: 2**-8,
    torch.float32: 1e-5,
}  # relative, once or twice on the way; of float that of GELU's tails
each_number = pytest.mark.parametrize("number", ROUNDING, ids=["bf16", "fp32"])


def batch_norm(channels):
    layer = nn.BatchNorm2d(channels, momentum=0.3)
    nn.init.uniform_(layer.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(4))
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.running_mean, generator=torch.Generator().manual_seed(2))
    return layer


@compiled
@each_number
@pytest.mark.parametrize("shape", [(5, 24, 7, 9), (3, 17, 8, 8), (40, 64, 15, 15), (9, 1, 6, 4)], ids=str)
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_fused_operation_is_torchs_forward_backward_and_in_evaluation(shape, pool, activation, number):
    fused, reference, rounding = batch_norm(shape[1]), batch_norm(shape[1]), ROUNDING[number]
    x = maps(shape, number=number).requires_grad_()
    exact = x.detach().float().requires_grad_()
    assert has_kernel(x)
    y, expected = pool_norm_activate(x, fused, activation, pool=pool), plain(exact, reference, activation, pool=pool)
    assert "PoolNormActivate" in str(y.grad_fn)
    gradient = maps(y.shape, seed=3, number=number)
    y.backward(gradient)
    expected.backward(gradient.float())
    assert distance(y, expected) < rounding
    kinked = (
        1e-3 if "relu" in activation else 0
    )  # a last bit may put a number on its other side, which moves its channel's sums
    assert distance(x.grad, exact.grad, but=4) < max(2 * rounding, kinked)
    assert distance(fused.bias.grad, reference.bias.grad) < 1e-3
    assert distance(fused.weight.grad, reference.weight.grad) < 1e-3
    torch.testing.assert_close(fused.running_mean, reference.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused.running_var, reference.running_var, rtol=1e-3, atol=1e-4)
    assert fused.num_batches_tracked == reference.num_batches_tracked == 1
    fused.eval(), reference.eval()
    found = pool_norm_activate(x.detach(), fused, activation, pool=pool)
    assert distance(found, plain(exact.detach(), reference, activation, pool=pool)) < 2 * rounding


@compiled
@each_number
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_what_is_added_is_activated_with_what_is_normalised(activation, pool, number):
    fused, reference, rounding = batch_norm(17), batch_norm(17), ROUNDING[number]
    shapes = (9, 17, 8, 6), ((9, 17, 4, 3) if pool else (9, 17, 8, 6))
    inputs = [maps(shape, seed=seed, number=number).requires_grad_() for seed, shape in enumerate(shapes)]
    exact = [x.detach().float().requires_grad_() for x in inputs]
    y = pool_norm_activate(inputs[0], fused, activation, pool=pool, added=inputs[1])
    expected = plain(exact[0], reference, activation, pool=pool, added=exact[1])
    assert "PoolNormActivate" in str(y.grad_fn) and distance(y, expected) < rounding
    gradient = maps(y.shape, seed=3, number=number)
    y.backward(gradient)
    expected.backward(gradient.float())
    for x, wanted in zip(inputs, exact, strict=True):
        assert distance(x.grad, wanted.grad, but=4) < max(2 * rounding, 1e-3 if activation == "relu" else 0)
    assert distance(fused.bias.grad, reference.bias.grad) < 1e-3
    assert distance(fused.weight.grad, reference.weight.grad) < 1e-3
    fused.eval(), reference.eval()
    found = pool_norm_activate(inputs[0], fused, activation, pool=pool, added=inputs[1].detach())
    assert distance(found, plain(exact[0], reference, activation, pool=pool, added=exact[1])) < 2 * rounding
    for x in inputs:
        x.grad = None
    found.backward(gradient)
    assert inputs[0].grad is not None and inputs[1].grad is None


@compiled
@pytest.mark.parametrize("added", [(9, 17, 1, 1), (1, 17, 8, 6)], ids=str)
def test_what_is_added_may_have_another_shape(added):
    norm, x, other = batch_norm(17).eval(), maps((9, 17, 8, 6)), maps(added, seed=1)
    expected = plain(x.float(), norm, "gelu", pool=False, added=other.float())
    assert distance(pool_norm_activate(x, norm, "gelu", pool=False, added=other), expected) < 0.01
    with pytest.raises(RuntimeError, match="must match the size"):
        pool_norm_activate(x, norm, "gelu", pool=True, added=x)


@compiled
@each_number
def test_a_nan_stays_one_whatever_its_bits(number):
    bits = torch.tensor([0x7FC00000, 0x7FFFFFFF, 0x7F800001, -1], dtype=torch.int32)
    norm = batch_norm(4).eval()
    norm.bias.data = bits.view(torch.float32).clone()
    assert pool_norm_activate(maps((2, 4, 3, 3), number=number), norm, "none", pool=False).isnan().all()


@compiled
@each_number
@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize(("channels_out", "channels"), [(5, 3), (16, 300), (64, 256)])
def test_the_dense_matrix_is_that_of_torchs_operations_and_computes_the_convolution(
    side, channels_out, channels, number
):
    kernel = torch.randn(channels_out, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    ours, plain_one = kernel.clone().requires_grad_(), kernel.clone().requires_grad_()
    matrix, expected = DenseMatrix.apply(ours, side, number), PlainDenseMatrix.apply(plain_one, side, number)
    assert torch.equal(matrix, expected)
    assert torch.equal(dense_matrix(kernel, side, number), expected)
    images = torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(1))
    rows = images.permute(0, 2, 3, 1).flatten(1) @ matrix.float().T
    convolved = F.conv2d(images, kernel.to(number).float(), padding=1).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(rows, convolved, rtol=1e-4, atol=1e-3)
    gradient = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(2)).to(number)
    matrix.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours.grad, plain_one.grad, rtol=1e-6, atol=1e-6)
    assert ours.grad.stride() == kernel.stride()


@compiled
@each_number
def test_a_gradient_goes_to_the_first_of_equal_pixels_as_in_torch(number):
    x = torch.zeros(1, 2, 2, 2).to(number).contiguous(memory_format=torch.channels_last).requires_grad_()
    norm = batch_norm(2).eval()
    pool_norm_activate(x, norm, "relu", pool=True).sum().backward()
    assert x.grad[:, :, 0, 1:].abs().sum() == x.grad[:, :, 1].abs().sum() == 0


@compiled
@each_number
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_hold_over_all_numbers(activation, number):
    values = torch.cat((torch.linspace(-30, 30, 4001), torch.tensor([-1e30, -1e4, 0.0, 1e-30, 1e4, 1e30])))
    x = values.to(number).view(1, -1, 1, 1)[:, :4000].clone(memory_format=torch.channels_last).requires_grad_()
    y = activate(x, activation)
    y.sum().backward()
    exact = x.detach().double().requires_grad_()
    expected = ACTIVATIONS[activation](exact)
    expected.sum().backward()
    torch.testing.assert_close(y.double(), expected, rtol=ROUNDING[number], atol=1e-5)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=ROUNDING[number], atol=1e-5)


@compiled
@each_number
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_number_that_is_none_is_not_lost_on_the_way(value, place, number):
    x = maps((2, 3, 4, 4), number=number)
    x[0, 1, place // 2, place % 2] = value
    y = pool_norm_activate(x, batch_norm(3), "gelu", pool=True)
    assert not y[:, 1].isfinite().all() and y[:, 0].isfinite().all()


@compiled
@each_number
def test_the_number_of_threads_changes_no_bit(number):
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        x, norm = maps((33, 24, 9, 9), number=number).requires_grad_(), batch_norm(24)
        pool_norm_activate(x, norm, "gelu", pool=True).square().sum().backward()
        results.append((x.grad, norm.bias.grad, norm.running_var))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(4, 8, 6, 6),
        torch.randn(4, 8, 6, 6).bfloat16(),
        torch.randn(4, 8, 6, 6).double().contiguous(memory_format=torch.channels_last),
    ],
    ids=["fp32, channels first", "bf16, channels first", "fp64"],
)
def test_what_the_c_cannot_take_is_computed_by_torch(x):
    assert not has_kernel(x)
    norm = batch_norm(8).to(x.dtype if x.dtype == torch.float64 else torch.float32)
    expected = F.silu(copy.deepcopy(norm)(F.max_pool2d(x, 2)))
    assert torch.equal(pool_norm_activate(x, norm, "silu", pool=True), expected)


@compiled
@each_number
@pytest.mark.parametrize("shape", [(5, 17, 3, 4), (40, 64, 7, 7), (2, 3, 1, 2)], ids=str)
def test_the_maximum_over_a_map_is_torchs_and_equals_share_its_gradient(shape, number):
    x = maps(shape, number=torch.float32).mul(2).round().to(number).requires_grad_()  # in halves: many are equal
    exact = x.detach().clone().requires_grad_()
    y, expected = map_maximum(x), exact.amax(dim=(2, 3))
    assert "MapMaximum" in str(y.grad_fn) and torch.equal(y, expected)
    gradient = maps((*shape[:2], 1, 1), seed=3, number=number).flatten(1)
    y.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(x.grad, exact.grad, rtol=ROUNDING[number], atol=0)


@compiled
@each_number
def test_the_maximum_of_a_map_with_a_nan_is_one_and_so_are_its_gradients(number):
    x = maps((1, 2, 3, 3), number=number)
    x[0, 0, 1, 2] = float("nan")
    y = map_maximum(x.requires_grad_())
    y.sum().backward()
    assert y.isnan().tolist() == [[True, False]]
    assert x.grad.isnan().flatten(2).all(2).tolist() == [[True, False]] and not x.grad[0, 1].isnan().any()


@compiled
@each_number
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(
    ("channels", "height", "width", "side"), [(3, 16, 11, 2), (1, 7, 30, 2), (2, 9, 8, 3), (3, 2, 2, 2)]
)
def test_a_whitened_stem_in_one_pass_is_torchs(channels, height, width, side, activation, number, monkeypatch):
    random, found = torch.Generator().manual_seed(5), []
    layer = whitening.Whitening(channels, side, activation)
    layer.filters.copy_(torch.randn(layer.filters.shape, generator=random))
    nn.init.normal_(layer.bias, generator=random)
    images = torch.randn(6, channels, height, width, generator=random)
    assert whitening.has_whiten(images, layer.filters, layer.bias, number)
    for dtype in (number, torch.float32):
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            y = layer(images)
        assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
        y.backward(maps(y.shape, seed=3, number=number).to(dtype))
        found += [y, layer.bias.grad]
        layer.bias.grad = None
        monkeypatch.setattr(whitening, "has_whiten", lambda *given: False)
    assert distance(found[0], found[2]) < ROUNDING[number]
    assert distance(found[1], found[3]) < 1e-5


@compiled
def test_numbers_on_another_device_are_left_to_torch():
    images, filters, bias = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 2, 2), torch.rand(4)
    mean, std = torch.rand(3), torch.rand(3)
    assert whitening.has_whiten(images, filters, bias, torch.bfloat16)
    assert not whitening.has_whiten(images, filters.to("meta"), bias, torch.bfloat16)
    assert not whitening.has_whiten(images, filters, bias.to("meta"), torch.bfloat16)
    assert preprocessed.has_preprocess(images, (4, 4), mean, std)
    assert not preprocessed.has_preprocess(images, (4, 4), mean.to("meta"), std)
    assert not preprocessed.has_preprocess(images, (4, 4), mean, std.to("meta"))


@compiled
def test_through_a_whitened_stem_a_gradient_reaches_the_pixels():
    layer, images = whitening.Whitening(3, activation="gelu"), torch.rand(2, 3, 8, 8).requires_grad_()
    layer(images).sum().backward()
    assert images.grad.abs().sum() > 0


@compiled
@pytest.mark.parametrize("part", [1.0, 0.75, 0.4, 2.0])
@pytest.mark.parametrize("shape", [(6, 3, 32, 32), (5, 1, 9, 14), (3, 4, 20, 7)], ids=str)
def test_images_are_resized_and_normalised_in_one_pass_as_by_torch(shape, part, monkeypatch):
    random = torch.Generator().manual_seed(7)
    model = preprocessed.Preprocessed(
        nn.Identity(), [0.4, 0.5, 0.3, 0.2][: shape[1]], [0.2, 0.3, 0.4, 0.5][: shape[1]], part
    )
    images = torch.rand(shape, generator=random)
    in_one = model(images)
    monkeypatch.setattr(preprocessed, "has_preprocess", lambda *given: False)
    torch.testing.assert_close(in_one, model(images), atol=0 if part == 1 else 2e-6, rtol=0)
    assert in_one.is_contiguous(memory_format=torch.channels_last)


@compiled
def test_preprocessing_hands_a_gradient_to_the_pixels():
    model = preprocessed.Preprocessed(nn.Identity(), [0.5] * 3, [0.25] * 3, 0.5)
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    model(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.ones_like(images))  # a quarter of the pixels, each worth four


def where_library(tmp_path, **environment):
    """What a new process finds."""
    code = "import torch; from thumbnet.kernels.library import library; print(library(torch.float32) is not None)"
    words = {"THUMBNET_CACHE": str(tmp_path / "cache"), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


@pytest.mark.skipif(
    shutil.which("gcc") is None or not sys.platform.startswith("linux"), reason="the C is compiled by gcc, under Linux"
)
@pytest.mark.parametrize("processor", ["this", "without AVX512", "without AVX", "with pairs", "with tiles"])
@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_gcc_takes_the_c_without_a_warning(number, processor, tmp_path):
    """Where it does not, everything works from torch's operations, and nothing tells."""
    if processor != "this" and platform.machine() != "x86_64":
        pytest.skip("has no AVX to be without")
    if processor.startswith("with ") and number != torch.bfloat16:
        pytest.skip("the same as others")
    flags = [*home.FLAGS, *NUMBERS[number], "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-psabi"]
    without = {"this": [], "without AVX512": ["-march=haswell"], "without AVX": ["-march=x86-64"]}
    beside = {"with pairs": ["-march=cooperlake"], "with tiles": ["-march=sapphirerapids"]}  # of bf16, AMX
    compile_into(tmp_path / "made.so", "gcc", flags + (without | beside)[processor], home.sources_of(number))
    assert (tmp_path / "made.so").stat().st_size > 0


@compiled
def test_it_is_compiled_once_into_the_cache_for_its_owner_alone(tmp_path):
    assert where_library(tmp_path) == "True"
    [made] = (tmp_path / "cache" / "kernels").iterdir()
    before = made.stat().st_mtime_ns
    assert where_library(tmp_path) == "True"
    assert made.stat().st_mtime_ns == before
    assert made.stat().st_mode & 0o077 == 0
    made.chmod(0o722)  # another user could have written it
    assert where_library(tmp_path) == "False"


@pytest.mark.parametrize("environment", [{"THUMBNET_KERNELS": "plain"}, {"PATH": "/nowhere"}], ids=str)
def test_without_it_everything_works(tmp_path, environment):
    assert where_library(tmp_path, **environment) == "False"


def test_a_compiler_that_fails_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path))
    monkeypatch.setattr(home, "FLAGS", ("--no-such-flag",))
    home.library.cache_clear()
    try:
        assert library(torch.bfloat16) is None
        assert list((tmp_path / "kernels").iterdir()) == []  # nothing half-made
    finally:
        home.library.cache_clear()


@compiled
@each_number
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_slope_of_no_number_is_none(activation, number):
    x = torch.full((1, 8, 2, 2), float("nan")).to(number).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().float().requires_grad_()
    activate(x, activation).sum().backward()
    ACTIVATIONS[activation](exact).sum().backward()
    assert torch.equal(x.grad.isnan(), exact.grad.isnan())


@compiled
def test_second_derivatives_are_refused_and_not_left_out():
    x = maps((2, 8, 4, 4)).requires_grad_()
    [gradient] = torch.autograd.grad(activate(x, "gelu").float().square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
