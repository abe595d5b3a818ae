"""On a GPU alone: its kernels against torch's own operations in float64, and runs of one seed against each other."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thumbnet.augment import augment
from thumbnet.backend import place, prepare
from thumbnet.kernels import pool_norm_activate as kernels
from thumbnet.machine import Machine
from thumbnet.models.preprocessed import Resize
from thumbnet.models.registry import create_model
from thumbnet.recipes import recipe, vary
from thumbnet.training.loop import train
from thumbnet.training.step import gradients

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
with_triton = pytest.mark.skipif(kernels.gpu_module() is None, reason="Triton does not work here")
GPU = Machine(device="cuda")
TOLERANCE = {
    torch.float32: 1e-5,
    torch.bfloat16: 8e-3,
    torch.float16: 1e-3,
}  # of the norm of a difference: rounding of the type


def normal(*shape, seed, dtype=torch.float32):
    random = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(*shape, device="cuda", generator=random).to(dtype)


def difference(found, exact):
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp(min=1e-9)).item()


def layer(channels):
    norm = nn.BatchNorm2d(channels, momentum=0.3).cuda()
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * normal(channels, seed=1).tanh())
        norm.bias.copy_(normal(channels, seed=2))
        norm.running_mean.copy_(normal(channels, seed=3))
    return norm


@with_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 24, 7, 5), (2, 130, 4, 6), (50, 64, 15, 15), (6, 7, 9, 8), (70, 40, 8, 7)])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "silu", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_pooling_normalisation_and_activation_are_torchs_in_value_gradients_and_statistics(
    dtype, shape, pool, activation, training
):
    x = (2 * normal(*shape, seed=4) + 1).to(dtype).contiguous(memory_format=torch.channels_last)
    gradient, found = None, []
    for exact in (False, True):
        norm = layer(shape[1]).train(training)
        norm = norm.double() if exact else norm
        leaf = (x.double() if exact else x).clone().requires_grad_()
        way = kernels.plain if exact else kernels.pool_norm_activate
        y = way(leaf, norm, activation, pool=pool)
        if gradient is None:
            assert type(y.grad_fn).__name__ == "PoolNormActivateBackward"
            gradient = normal(*y.shape, seed=5, dtype=dtype).contiguous(memory_format=torch.channels_last)
        y.backward(gradient.to(y.dtype))
        found.append((y, leaf.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    assert max(difference(*pair) for pair in zip(*found, strict=True)) < TOLERANCE[dtype]


@with_triton
def test_a_bias_and_an_activation_in_one_pass_are_torchs():
    x, bias = normal(5, 24, 9, 7, seed=1).contiguous(memory_format=torch.channels_last), normal(24, seed=2)
    found = []
    for one_pass in (True, False):
        leaf, shift = x.clone().requires_grad_(), bias.clone().requires_grad_()
        y = kernels.bias_activate(leaf, shift, "gelu") if one_pass else F.gelu(leaf + shift[:, None, None])
        y.backward(normal(5, 24, 9, 7, seed=3).contiguous(memory_format=torch.channels_last))
        found.append((y, leaf.grad, shift.grad))
    assert max(difference(*pair) for pair in zip(*found, strict=True)) < 1e-5


@with_triton
@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_images_are_changed_by_one_kernel_as_they_are_one_by_one(jitter, monkeypatch):
    chosen = recipe("cifar10-94", jitter=jitter)
    images = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8, device="cuda")
    mirrored = torch.arange(50, device="cuda") % 3 == 0
    by_kernel = augment(images, chosen, torch.Generator("cuda").manual_seed(1), mirrored)
    monkeypatch.setattr("thumbnet.augment.kernel_for", lambda images, padding: None)
    one_by_one = augment(images, chosen, torch.Generator("cuda").manual_seed(1), mirrored)
    torch.testing.assert_close(by_kernel, one_by_one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["speednet", "speednet_slim", "preact_resnet50_classic"])
def test_a_network_has_the_logits_and_gradients_it_has_on_a_cpu(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    on_cpu = create_model(name, classes=5, channels=3)
    on_gpu = place(copy.deepcopy(on_cpu), torch.device("cuda"))
    images = normal(8, 3, 32, 32, seed=1).cpu()
    found = []
    for network, x in ((on_cpu, images), (on_gpu, images.cuda().contiguous(memory_format=torch.channels_last))):
        y = network(x)
        y.square().sum().backward()
        found.append(
            [y.cpu(), *(parameter.grad.cpu() for parameter in network.parameters() if parameter.requires_grad)]
        )
    assert difference(found[1][0], found[0][0]) < 1e-4
    whole = [torch.cat([gradient.flatten() for gradient in gradients]) for _, *gradients in found]
    assert difference(whole[1], whole[0]) < 5e-2  # the classic one normalises over eight values in its last stage


def test_copies_of_the_weights_in_bf16_change_no_bit_of_what_autocast_computes(monkeypatch):
    found = []
    for copied in (True, False):
        if not copied:
            monkeypatch.setattr("thumbnet.training.step.Copies", lambda model, dtype: None)
        torch.manual_seed(0)
        model = place(create_model("preact_resnet50_classic", classes=5, channels=3), torch.device("cuda"))
        x = normal(8, 3, 32, 32, seed=1).contiguous(memory_format=torch.channels_last)
        gradients(model, x, torch.arange(8, device="cuda") % 5, recipe("cifar10-classic"), prepare(GPU))
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_shrinking_images_gives_what_it_gives_on_a_cpu_also_where_products_are_in_bf16():
    images = normal(6, 3, 32, 32, seed=1)
    with torch.autocast("cuda", torch.bfloat16):
        assert difference(Resize(0.75)(images).cpu(), Resize(0.75)(images.cpu())) < 1e-5


def test_two_runs_of_a_seed_end_with_the_same_bits_also_in_processes_of_their_own(tmp_path):
    weights = []
    for name in ("first", "second"):
        words = ["train", "fashion-mini", "--epochs", "2", "--device", "cuda", "--no-report", "--out", tmp_path / name]
        subprocess.run([sys.executable, "-m", "thumbnet.cli.main", *map(str, words)], check=True)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("members", [1, 2])
def test_replayed_updates_give_the_bits_of_plain_ones(members, tiny, quick, tmp_path, monkeypatch):
    chosen = vary(quick, epochs=3, members=members, hardest=0.5, balance=0.5)
    replayed = train(chosen, tiny, tmp_path / "replayed", machine=GPU, plots=False)
    monkeypatch.setattr("thumbnet.training.graphs.WARM_UP", 10**9)
    plain = train(chosen, tiny, tmp_path / "plain", machine=GPU, plots=False)
    assert (replayed.path / "model.safetensors").read_bytes() == (plain.path / "model.safetensors").read_bytes()
