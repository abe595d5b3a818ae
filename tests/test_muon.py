"""Muon's step in C against torch's own operations, and products that are known to be symmetric against float64."""

import math

import pytest
import torch

from kernels import compiled
from thumbnet.kernels.muon import has_passes, look_ahead, take_step
from thumbnet.kernels.symmetric_product import plain, symmetric_product
from thumbnet.kernels.tiles import pairs_allowed
from thumbnet.models.registry import create_model
from thumbnet.training import optimize

in_pairs = pytest.mark.skipif(
    not pairs_allowed(), reason="the processor multiplies no pairs of bf16 (AVX-512 BF16, Intel AMX)"
)
ROUNDING = {torch.bfloat16: 2**-7, torch.float32: 1e-5}
NUMBERS = pytest.mark.parametrize("number", ROUNDING, ids=["bf16", "fp32"])
# Kernels: sides of 32 and others, one tap and nine, fewer columns than rows, less than a vector.
SHAPES = [(32, 24, 3, 3), (32, 32, 1, 1), (64, 8, 2, 2), (128, 8, 3, 3), (33, 5, 3, 3), (96, 70, 3, 3), (3, 1, 1, 1)]


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distance(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item()


def three(shape):
    """A kernel, its gradient with some directions larger than others, and the sum of those before."""
    gradient = normal(*shape, seed=1)
    gradient[: len(gradient) // 3] *= 4
    return normal(*shape, seed=0), gradient, 0.3 * normal(*shape, seed=2)


def moved(shape, number, monkeypatch, *, in_c):
    kernel, gradient, buffer = three(shape)
    assert has_passes(kernel, buffer, number)
    with monkeypatch.context() as patch:
        if not in_c:
            patch.setattr(optimize, "all_have_passes", lambda *_: False)
        optimize.move([kernel], [gradient], [buffer], 0.2, 0.6, number)
    return kernel, buffer


@compiled
@NUMBERS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_step_in_c_is_torchs(shape, number, monkeypatch):
    kernel, gradient, buffer = (part.double() for part in three(shape))
    scaled = kernel * (len(kernel) ** 0.5 / kernel.norm())
    optimize.move([kernel], [gradient], [buffer], 0.2, 0.6, torch.float64)  # exactly, by torch
    by_torch, _ = moved(shape, number, monkeypatch, in_c=False)
    found, sums = moved(shape, number, monkeypatch, in_c=True)
    assert distance(sums, buffer) < 1e-6
    off = distance(found.double() - scaled, kernel - scaled)
    as_torch = distance(by_torch.double() - scaled, kernel - scaled)
    assert off < max(ROUNDING[number], 2 * as_torch)  # in bf16 either loses some hundredths of small kernels


@compiled
@NUMBERS
def test_the_look_ahead_and_its_norms_are_right_at_every_number(number):
    kernel, gradient, buffer = three((5, 7, 3, 3))  # 63 numbers a row: one vector and a rest
    expected = 0.9 * buffer + gradient
    direction, norm, norm_of_kernel = look_ahead(kernel, gradient, buffer, 0.9, number)
    torch.testing.assert_close(buffer, expected)
    torch.testing.assert_close(direction.float(), (gradient + 0.9 * expected).flatten(1), rtol=2**-8, atol=1e-6)
    assert norm == pytest.approx((gradient + 0.9 * expected).norm().item(), rel=1e-5)
    assert norm_of_kernel == pytest.approx(kernel.norm().item(), rel=1e-5)


@compiled
@NUMBERS
@pytest.mark.parametrize(
    "shape", [(96, 70, 3, 3), (35, 7, 3, 3), (2, 1, 3, 3)], ids=str
)  # more, and fewer, rows than threads
def test_the_step_does_not_depend_on_the_number_of_threads(shape, number):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            kernel, gradient, buffer = three(shape)
            direction, *norms = look_ahead(kernel, gradient, buffer, 0.6, number)
            take_step(kernel, direction, 0.9, 0.1)
            square = symmetric_product(direction.bfloat16(), direction.bfloat16())
            results.append((kernel, direction, norms, symmetric_product(square, square, added=square, beta=2.0)))
    finally:
        torch.set_num_threads(before)
    for kernel, direction, norms, product in results[1:]:
        assert torch.equal(kernel, results[0][0]) and torch.equal(direction, results[0][1]) and norms == results[0][2]
        assert not pairs_allowed() or torch.equal(product, results[0][3])


@compiled
def test_a_gradient_in_another_order_is_the_same_gradient():
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        kernel, gradient, buffer = three((32, 24, 3, 3))
        optimize.move([kernel], [gradient.contiguous(memory_format=order)], [buffer], 0.2, 0.6, torch.bfloat16)
        found.append(kernel)
    assert torch.equal(*found)


@compiled
@NUMBERS
def test_every_kernel_of_a_network_goes_through_the_c(number):
    for name in ("speednet", "speednet_slim"):
        kernels = [p for p in create_model(name, classes=10).parameters() if p.ndim == 4]
        assert kernels and all(has_passes(kernel, torch.zeros_like(kernel), number) for kernel in kernels)


@compiled
def test_a_kernel_of_zeros_becomes_nothing_that_could_be_trained_on_and_a_gradient_of_zeros_changes_nothing():
    kernel, gradient, buffer = torch.zeros(32, 4, 3, 3), normal(32, 4, 3, 3, seed=1), torch.zeros(32, 4, 3, 3)
    optimize.move([kernel], [gradient], [buffer], 0.1, 0.6, torch.bfloat16)
    assert kernel.isnan().all()  # as by torch: the loss tells
    kernel = torch.ones(4, 1, 1, 1)
    optimize.move([kernel], [torch.zeros(4, 1, 1, 1)], [torch.zeros(4, 1, 1, 1)], 0.1, 0.6, torch.bfloat16)
    torch.testing.assert_close(kernel, torch.ones(4, 1, 1, 1))


@compiled
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_is_not_lost(value):
    kernel, gradient, buffer = three((32, 24, 3, 3))
    gradient[7, 3, 1, 1] = value
    optimize.move([kernel], [gradient], [buffer], 0.1, 0.6, torch.bfloat16)
    assert not kernel.isfinite().all()


def test_kernels_in_other_orders_types_and_places_are_left_to_torch():
    kernel = normal(8, 4, 3, 3, seed=0)
    for other in (kernel.contiguous(memory_format=torch.channels_last), kernel.double(), kernel[:0], kernel.to("meta")):
        assert not has_passes(other, torch.zeros_like(kernel), torch.bfloat16)
        assert other.numel() == 0 or not has_passes(kernel, other, torch.bfloat16)
    assert not has_passes(kernel, torch.zeros_like(kernel), torch.float16)


@in_pairs
@pytest.mark.parametrize(
    "shape", [(32, 32), (64, 2304), (256, 512), (96, 70), (33, 31), (20, 50), (1, 1), (5, 3)], ids=str
)
def test_a_gram_matrix_in_pairs_is_exact_but_for_rounding_and_symmetric(shape):
    x = normal(*shape, seed=3).bfloat16()
    found = symmetric_product(x, x, alpha=0.25)
    exact = 0.25 * x.double() @ x.double().T
    assert found.shape == (shape[0], shape[0]) and found.dtype == torch.bfloat16
    assert torch.equal(found, found.T)
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-5 * exact.abs().max()).all()


@pytest.mark.parametrize("side", [32, 40, 128, 200])
def test_products_of_polynomials_of_one_symmetric_matrix_and_what_is_added_to_them(side):
    x = normal(side, side, seed=4).double()
    gram = (x @ x.T / side / 4).bfloat16()
    exact = gram.double()
    wanted = 2 * exact @ exact - 4 * exact + 3 * torch.eye(side, dtype=torch.float64)
    assert distance(plain(gram, gram, 2.0, gram, -4.0, 3.0), wanted) < 2**-7
    square = symmetric_product(gram, gram, alpha=2.0, added=gram, beta=-4.0, gamma=3.0)
    assert distance(square, wanted) < 2**-7
    cube = symmetric_product(square, gram)
    assert distance(cube, square.double() @ exact) < 2**-7
    assert not pairs_allowed() or (torch.equal(square, square.T) and torch.equal(cube, cube.T))


@in_pairs
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [32, 40, 128])
def test_the_whole_iteration_in_one_call_is_that_of_single_products(side, steps, monkeypatch):
    x = normal(side, 2 * side, seed=6)
    gram = symmetric_product(*[(x / x.norm()).bfloat16()] * 2)
    in_one = optimize.newton_schulz_factor(gram, steps)
    monkeypatch.setattr("thumbnet.training.optimize.has_products", lambda matrix: False)
    assert torch.equal(in_one, optimize.newton_schulz_factor(gram, steps))


@in_pairs
@pytest.mark.parametrize("shape", [(70, 40), (64, 32)], ids=str)
def test_matrices_in_any_order_are_taken(shape):
    x = normal(*shape, seed=5).bfloat16()
    assert torch.equal(symmetric_product(x.T, x.T), symmetric_product(x.T.contiguous(), x.T.contiguous()))
