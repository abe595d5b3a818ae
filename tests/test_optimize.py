"""Muon: its orthogonal steps against an exact decomposition, what it reaches, and that a run with it resumes."""

import pytest
import torch

from thumbnet.models.registry import create_model
from thumbnet.recipes import recipe
from thumbnet.training.optimize import (
    LARGEST_SHIFT,
    Muon,
    build_optimizer,
    nearest_orthogonal,
    orthogonalized,
    set_learning_rate,
)


def matrix(rows, columns, seed=0):
    """Normal entries: singular values spread over a factor of several."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (64, 576)])
def test_the_orthogonal_step_has_the_singular_vectors_of_the_gradient_and_values_near_one(shape):
    x = matrix(*shape)
    x = x / x.norm()
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    result = nearest_orthogonal(x, steps=5)
    coordinates = u.T @ result @ vt.T  # diagonal where the singular vectors are kept
    assert (coordinates - coordinates.diag().diag()).abs().max() < 1e-9
    assert coordinates.diag().min() > 0.6 and coordinates.diag().max() < 1.3


def test_newton_schulz_in_the_gram_matrix_equals_the_quintic_applied_to_the_singular_values():
    x = matrix(12, 30, seed=1)
    x = x / x.norm()
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(nearest_orthogonal(x, steps=3), u @ s.diag() @ vt)


def test_iterated_together_matrices_of_several_shapes_give_what_each_gives_alone():
    shapes = [(8, 30), (30, 8), (8, 40), (16, 50), (16, 16)]  # smaller sides 8, 8, 8, 16, 16
    matrices = [matrix(*shape, seed=i) / 20 for i, shape in enumerate(shapes)]
    for found, alone in zip(orthogonalized(matrices, together=True), map(nearest_orthogonal, matrices), strict=True):
        torch.testing.assert_close(found, alone)


def test_bf16_products_change_the_step_by_little():
    x = matrix(32, 90, seed=2).float()
    x = x / x.norm()
    exact, rough = nearest_orthogonal(x), nearest_orthogonal(x.bfloat16()).float()
    assert (rough - exact).norm() / exact.norm() < 0.05


def test_a_first_step_moves_a_kernel_by_the_rate_from_its_norm_of_sqrt_d():
    kernel = torch.nn.Parameter(torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(3)))
    kernel.grad = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(4))
    before = (kernel * (8**0.5 / kernel.norm())).detach().clone()
    gradient = kernel.grad.flatten(1) * 1.6  # Nesterov: gradient + momentum * (its first buffer, the gradient)
    optimizer = Muon([{"params": [kernel], "lr": 0.1}], momentum=0.6, sgd_momentum=0.85, compute=torch.float32)
    optimizer.step()
    expected = before - 0.1 * nearest_orthogonal(gradient / gradient.norm()).view_as(kernel)
    torch.testing.assert_close(kernel.detach(), expected)


def test_muon_takes_convolutions_and_leaves_the_rest_to_sgd_with_rates_of_their_own():
    model = create_model("speednet", classes=10, widths=(8, 8, 8))
    chosen = recipe("cifar10-94", learning_rate=0.2, bias_rate=0.05, head_rate=0.5, batch_size=10)
    optimizer = build_optimizer(model, chosen)
    kinds = [({p.ndim for p in group["params"]}, group["orthogonalize"]) for group in optimizer.param_groups]
    assert kinds == [({4}, True), ({2}, False), ({1}, False)]
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 2.5, 0.25])
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_gradient_of_zeros_leaves_the_kernel_finite_and_in_place():
    kernel = torch.nn.Parameter(torch.ones(2, 1, 1, 1))
    kernel.grad = torch.zeros(2, 1, 1, 1)
    Muon([{"params": [kernel], "lr": 0.1}], momentum=0.6, sgd_momentum=0.85, compute=torch.float32).step()
    torch.testing.assert_close(kernel.detach(), torch.ones(2, 1, 1, 1))


def test_biases_and_shifts_stay_within_what_normalised_features_need_and_nothing_else_is_held():
    model = create_model("speednet_slim", classes=3, widths=(8, 16, 16))
    optimizer = build_optimizer(model, recipe("general"))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():  # as the sum of what rounding leaves at every pixel of a black ground
        parameter.grad = torch.full_like(parameter, 1e3)
        parameter.grad.view(-1)[::2] = -1e3
    optimizer.step()
    shifts = [parameter for parameter in trained.values() if parameter.ndim == 1]
    assert len(shifts) == 7 and all(set(shift.tolist()) == {-LARGEST_SHIFT, LARGEST_SHIFT} for shift in shifts)
    assert trained["head.weight"].abs().max() > LARGEST_SHIFT
