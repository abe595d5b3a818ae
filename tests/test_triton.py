"""The kernels for a GPU, interpreted on a CPU where Triton can be imported, against torch's own operations; and who uses them."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from thumbnet.kernels import pool_norm_activate

INTERPRETED = """
import torch
from torch import nn
from thumbnet.kernels import pool_norm_activate as plain, pool_norm_activate_gpu as gpu

for shape, name, pool, training in (
    ((3, 24, 7, 5), "gelu", True, True),
    ((2, 130, 4, 6), "silu", False, True),  # few pixels: one kernel each way
    ((70, 5, 9, 8), "leaky_relu", False, True),  # and somewhat more
    ((70, 5, 9, 8), "gelu", True, True),
    ((2, 7, 4, 4), "leaky_relu", False, False),
):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    found = []
    for exact in (False, True):
        norm = nn.BatchNorm2d(shape[1], momentum=0.3).train(training)
        norm, leaf = (norm.double(), x.double().requires_grad_()) if exact else (norm, x.clone().requires_grad_())
        options = (norm, name, plain.LEAKY_SLOPE, pool)
        if exact:
            y = plain.plain(leaf, norm, name, pool=pool)
        else:
            y = gpu.PoolNormActivate.apply(leaf, norm.weight, norm.bias, *options)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
        found.append((y, leaf.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
        assert norm.num_batches_tracked == training
    for one, other in zip(*found):
        torch.testing.assert_close(one, other.float(), atol=2e-5, rtol=2e-5)
"""

AUGMENTED = """
import torch
from thumbnet import augment
from thumbnet.kernels import augment_gpu
from thumbnet.recipes import recipe

random = torch.Generator()
for shape, changes in (
    ((7, 3, 9, 12), {"crop": 3, "jitter": 0.3}),
    ((5, 1, 8, 8), {"crop": 7}),
    ((5, 3, 8, 8), {"crop": 0, "jitter": 0.2}),
    ((5, 3, 8, 8), {"crop": 2, "flip": False}),
    ((5, 3, 8, 8), {"crop": 2, "alternate_flip": False}),
):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random.manual_seed(0))
    mirrored = torch.arange(len(images)) % 2 == 0
    found = []
    for kernel in (augment_gpu, None):
        augment.kernel_for = lambda images, padding: kernel
        found.append(augment.augment(images, recipe("general", **changes), random.manual_seed(1), mirrored))
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)
"""


@pytest.mark.skipif(find_spec("triton") is None or torch.cuda.is_available(), reason="no Triton, or a GPU to try it on")
@pytest.mark.parametrize("code", [INTERPRETED, AUGMENTED], ids=["normalised", "augmented"])
def test_interpreted_the_kernels_give_what_torch_gives(code):
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernels_that_cannot_be_compiled_are_left_to_torch_without_a_word(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # there is no Triton, or no card behind it
    pool_norm_activate.gpu_module.cache_clear()
    try:
        monkeypatch.setitem(sys.modules, "thumbnet.kernels.pool_norm_activate_gpu", None)
        assert pool_norm_activate.gpu_module() is None
    finally:
        pool_norm_activate.gpu_module.cache_clear()
