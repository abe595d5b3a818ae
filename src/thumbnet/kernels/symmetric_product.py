"""A B' of two matrices whose product is known to be symmetric: half of the arithmetic is enough.

So is a Gram matrix, and so are products of polynomials of one symmetric matrix, of which the iteration of Newton and Schulz in
optimize.py consists. In C (symmetric_product.c) they take an eighth to three quarters of oneDNN's time; docs/findings.md has
the sizes.
"""
# Shapes: R rows, K columns.

import torch
from torch import Tensor
from torch.nn import functional as F

from thumbnet.kernels.call import call
from thumbnet.kernels.tiles import pairs_allowed

BLOCK = 32  # sides that the C takes are multiples of it


def symmetric_product(
    a: Tensor, b: Tensor, *, alpha: float = 1.0, added: Tensor | None = None, beta: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """alpha A B' + beta `added` + gamma I, R R, of A and B, both R x K, where A B' is symmetric; `added` R R is symmetric too."""
    if not (has_products(a) and has_products(b)):
        return plain(a, b, alpha, added, beta, gamma)
    assert a.shape == b.shape and (added is None or added.dtype == a.dtype)
    size, (rows, columns) = len(a), (-(-side // BLOCK) * BLOCK for side in a.shape)
    a, b = filled_up(a, rows, columns), filled_up(b, rows, columns)
    if added is not None:
        added = filled_up(added, rows, rows)
    turned = a.new_empty(torch.get_num_threads(), BLOCK, columns)
    result = a.new_empty(rows, rows)
    call("symmetric_product", a.dtype, a, b, added, turned, result, *map(float, (alpha, beta, gamma)), rows, columns)
    return result if rows == size else result[:size, :size]


def newton_schulz(gram: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Z, R R, for a Gram matrix G, R R, that `has_products`: Z = 1, then `steps` times F = a + b G + c G G, Z = F Z, G = F G F.

    The same numbers as from `symmetric_product` for each of its products, without what a call costs.
    """
    assert steps >= 1
    size, rows = len(gram), -(-len(gram) // BLOCK) * BLOCK
    room = gram.new_empty(7, rows, rows)
    turned = gram.new_empty(torch.get_num_threads(), BLOCK, rows)
    call("newton_schulz", gram.dtype, filled_up(gram, rows, rows), room, turned, *coefficients, steps, rows)
    return room[-1, :size, :size]


def has_products(matrix: Tensor) -> bool:
    """Whether the C can have it; a graph cannot hold it."""
    if torch.compiler.is_compiling():
        return False
    return matrix.device.type == "cpu" and matrix.dtype == torch.bfloat16 and matrix.numel() > 0 and pairs_allowed()


def filled_up(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """The matrix in the order of its rows, with zeros up to these sides."""
    if matrix.shape == (rows, columns):
        return matrix.contiguous()
    return F.pad(matrix, (0, columns - matrix.shape[1], 0, rows - len(matrix)))


def plain(a: Tensor, b: Tensor, alpha: float, added: Tensor | None, beta: float, gamma: float) -> Tensor:
    """The same by torch."""
    held = a.new_zeros(()) if added is None else added
    result = torch.addmm(held, a, b.T, alpha=alpha, beta=beta if added is not None else 0)
    if gamma:
        result.diagonal().add_(gamma)
    return result
