"""Activations and their slopes in Triton, for float values within a kernel."""

import triton
import triton.language as tl


@triton.jit
def normal_part(z):
    """Phi(z), the part of the normal distribution below z, and exp(-z^2 / 2).

    Abramowitz & Stegun 7.1.26, right to 1e-7; of its two terms one is the density that GELU's derivative needs anyway.
    """
    x = tl.abs(z) * 0.7071067811865476
    bell = tl.exp(-x * x)
    t = 1 / (1 + 0.3275911 * x)
    tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * bell
    return tl.where(z > 0, 1 - 0.5 * tail, 0.5 * tail), bell


@triton.jit
def activated(z, NAME: tl.constexpr, LEAK: tl.constexpr):
    """The activation of float values."""
    if NAME == "relu":
        z = tl.where(z > 0, z, 0.0)
    elif NAME == "silu":
        z = z * tl.sigmoid(z)
    elif NAME == "gelu":
        part, _ = normal_part(z)
        z = z * part
    elif NAME == "leaky_relu":
        z = tl.where(z > 0, z, LEAK * z)
    return z


@triton.jit
def slope(z, NAME: tl.constexpr, LEAK: tl.constexpr):
    """Its derivative."""
    result = tl.full(z.shape, 1.0, tl.float32)
    if NAME == "relu":
        result = tl.where(z > 0, 1.0, 0.0)
    elif NAME == "silu":
        sigmoid = tl.sigmoid(z)
        result = sigmoid * (1 + z * (1 - sigmoid))
    elif NAME == "gelu":
        part, bell = normal_part(z)
        result = part + z * 0.3989422804014327 * bell  # 1 / sqrt(2 pi)
    elif NAME == "leaky_relu":
        result = tl.where(z > 0, 1.0, LEAK)
    return result
