"""How the polynomials of kernels/activation.h were found: near-minimax fits of a normal's tail and of GELU's slope.

    python scripts/fit_gelu.py

Least squares in Chebyshev's basis on [0, 5], weighted again and again where the error is largest. Prints the coefficients in
v = u / 2.5 - 1, lowest power first, and the largest errors of their evaluation in single precision.
"""

from collections.abc import Callable
from math import erf, pi, sqrt
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

Array = NDArray[np.float64]
WIDTH, ROUNDS = 5.0, 400


def tail(u: Array) -> Array:
    """The probability that a standard normal lies beyond u."""
    return np.array([0.5 * (1 - erf(value / sqrt(2))) for value in u])


def slope_tail(u: Array) -> Array:
    """The derivative of GELU at -u."""
    return tail(u) - u * np.exp(-u * u / 2) / sqrt(2 * pi)


def fit(function: Callable[[Array], Array], degree: int, importance: Callable[[Array], Array]) -> NDArray[np.float32]:
    """Coefficients whose error, times `importance`, is as even as it gets."""
    u = WIDTH * (1 - np.cos(np.linspace(0, pi, 6001))) / 2
    v, y, weight, best, least = 2 * u / WIDTH - 1, function(u), np.ones_like(u), np.zeros(degree + 1), np.inf
    for _ in range(ROUNDS):
        found = chebyshev.chebfit(v, y, degree, w=np.sqrt(weight) * importance(u))
        error = np.abs(chebyshev.chebval(v, found) - y) * importance(u)
        if error.max() < least:
            best, least = found, error.max()
        weight *= (error / error.max() + 1e-3) ** 0.3
        weight /= weight.mean()
    return chebyshev.cheb2poly(best).astype(np.float32)


def evaluated(coefficients: NDArray[np.float32], u: NDArray[np.float32]) -> Any:
    """As the C does it."""
    v = u * np.float32(2 / WIDTH) - np.float32(1)
    y = np.full_like(v, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        y = y * v + coefficient
    return y


def main() -> None:
    u = np.linspace(0, WIDTH, 200_001).astype(np.float32)
    # GELU is z times the tail, so its error counts times u; the little keeps u = 0 from being free.
    for name, function, degree, importance in (
        ("normal_tail, times u", tail, 12, lambda u: u + 0.05),
        ("gelu_slope_tail", slope_tail, 13, np.ones_like),
    ):
        coefficients = fit(function, degree, importance)
        error = np.abs(evaluated(coefficients, u) - function(u.astype(float)))
        print(name, f"{(error * (u if function is tail else 1)).max():.1e}", [f"{value:.9g}" for value in coefficients])


if __name__ == "__main__":
    main()
