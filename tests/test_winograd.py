"""Convolutions by tiles (Winograd) against torch's own: values, gradients, pooling, threads, and when they are taken."""

import copy
import ctypes
import math
import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional as F

from kernels import compiled, distance, maps
from thumbnet.kernels import call
from thumbnet.kernels.library import FLAGS, compile_into, sources_of
from thumbnet.kernels.library import NUMBERS as LIBRARIES
from thumbnet.kernels.winograd import Winograd, groups_of, has_winograd, kernel_gradient, teams_and_images
from thumbnet.models import convolution
from thumbnet.models.speednet import speednet

# How far results are from exact ones; in bf16, what is rounded between leaves 1 % of noise.
NEAR = {torch.float32: 1e-5, torch.bfloat16: 0.025}
CLEAR = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of a map's spread: no rounding decides which of two is larger
NUMBERS = [
    torch.float32,
    pytest.param(
        torch.bfloat16, marks=pytest.mark.skipif(not has_winograd(torch.bfloat16), reason="needs AVX-512 BF16")
    ),
]


def distances_by_tiles(shape, padding, side, number, *, pool):
    """Of a convolution by tiles and its three gradients from torch's in float64."""
    batch, channels, channels_out, height, width = shape
    random = torch.Generator().manual_seed(3)
    x = torch.randn(batch, channels, height, width, generator=random)
    inputs = [
        x.to(number).contiguous(memory_format=torch.channels_last),
        torch.randn(channels_out, channels, side, side, generator=random),
        torch.randn(channels_out, generator=random),
    ]
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    for tensor in inputs:
        tensor.requires_grad_()
    y, whole = Winograd.apply(*inputs, padding, pool), F.conv2d(*exact, padding=padding)
    expected = F.max_pool2d(whole, 2) if pool else whole
    assert y.shape == expected.shape and y.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(expected.shape, generator=random).to(number)
    if pool:  # where rounding may decide which of four is the largest, nothing comes back
        four = F.unfold(whole.flatten(0, 1)[:, None], 2, stride=2)  # B*D 4 pixels
        first, second = four.topk(2, dim=1).values.unbind(1)
        gradient *= (first - second > CLEAR[number] * whole.std()).view(expected.shape)
    found = torch.autograd.grad(y, inputs, gradient)
    assert found[1].is_contiguous()
    wanted = torch.autograd.grad(expected, exact, gradient.double())
    return [distance(one, other) for one, other in zip((y, *found), (expected, *wanted), strict=True)]


@compiled
@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    "shape",
    [
        (3, 32, 48, 7, 7),
        (2, 33, 70, 4, 11),
        (40, 64, 32, 15, 15),
        (5, 40, 33, 3, 4),
        (1, 300, 32, 8, 8),
        (7, 24, 40, 5, 6),
        (4, 16, 16, 9, 10),
        (3, 9, 17, 6, 7),
        (2, 1, 1, 5, 5),
    ],
    ids=str,
)
def test_a_convolution_by_tiles_is_torchs_with_all_gradients(shape, padding, side, number):
    assert max(distances_by_tiles(shape, padding, side, number, pool=False)) < NEAR[number]


@compiled
@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    "shape",
    [
        (20, 24, 64, 31, 31),
        (2, 33, 70, 4, 11),
        (40, 64, 32, 15, 14),
        (9, 40, 33, 7, 6),
        (3, 32, 48, 5, 8),
        (3, 9, 17, 7, 7),
    ],
    ids=str,
)
def test_a_convolution_by_tiles_pools_as_torch_does_with_all_gradients(shape, padding, side, number):
    assert max(distances_by_tiles(shape, padding, side, number, pool=True)) < NEAR[number]


@compiled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are kinds of x86")
@pytest.mark.parametrize("processor", ["haswell", "x86-64"])
@pytest.mark.parametrize("pool", [False, True])
def test_older_processors_compute_the_same(processor, pool, tmp_path, monkeypatch):
    """Which have instructions that every tested one has, but which it would not use."""
    compile_into(
        tmp_path / "made.so",
        "gcc",
        [*FLAGS, *LIBRARIES[torch.float32], f"-march={processor}"],
        [path for path in sources_of(torch.float32) if path.stem == "winograd"],
    )
    made = ctypes.CDLL(str(tmp_path / "made.so"))
    monkeypatch.setattr(call, "function_of", lambda name, number: getattr(made, name))
    for shape in [(3, 9, 17, 7, 7), (2, 33, 70, 4, 11), (9, 40, 33, 15, 6)]:
        assert max(distances_by_tiles(shape, 1, 3, torch.float32, pool=pool)) < NEAR[torch.float32]


BEFORE_NOTHING = """
import ctypes, mmap, sys
import torch
from thumbnet.kernels import winograd

def before_nothing(tensor):
    \"\"\"The same, channels last, up to the last byte of a page after which nothing may be read.\"\"\"
    flat = tensor.permute(0, 2, 3, 1).contiguous().flatten()
    size, page = flat.numel() * flat.element_size(), mmap.PAGESIZE
    room = mmap.mmap(-1, -(-size // page) * page + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    end = start + len(room) - page
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), page, 0) == 0
    ctypes.memmove(end - size, flat.data_ptr(), size)
    kept.append(room)
    bytes_of = torch.frombuffer(room, dtype=torch.uint8)[end - size - start:end - start]
    batch, channels, height, width = tensor.shape
    return bytes_of.view(flat.dtype).view(batch, height, width, channels).permute(0, 3, 1, 2)

kept, number = [], getattr(torch, sys.argv[1])
for channels, outputs in ((1, 1), (9, 17), (24, 33), (33, 16)):
    for pool in (False, True):
        x = before_nothing(torch.randn(3, channels, 7, 7).to(number))
        kernel = torch.randn(outputs, channels, 3, 3)
        size = (6, 6) if pool else (7, 7)
        y, chosen = winograd.convolve(x, kernel, 1, size, pool=pool)
        gradient, chosen = before_nothing(torch.randn_like(y)), before_nothing(chosen) if pool else None
        winograd.convolve(gradient, kernel, 1, (7, 7), chosen=chosen, turned=True)
        winograd.kernel_gradient(x, gradient, 3, 1, chosen)
print("nothing else was read")
"""


@compiled
@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_nothing_is_read_beyond_the_last_number_of_a_map(number):
    name = str(number).removeprefix("torch.")
    done = subprocess.run([sys.executable, "-c", BEFORE_NOTHING, name], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "nothing else was read\n"), done.stderr


@compiled
@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_pooling_by_tiles_takes_the_first_of_equals_and_keeps_a_nan(number):
    x = maps((2, 32, 8, 8), number=number)
    kernel = torch.zeros(32, 32, 3, 3, requires_grad=True)  # so that all outputs are equal
    [found] = torch.autograd.grad(Winograd.apply(x, kernel, None, 0, True).sum(), kernel)
    [expected] = torch.autograd.grad(F.max_pool2d(F.conv2d(x.float(), kernel), 2).sum(), kernel)
    assert distance(found, expected.double()) < NEAR[number]
    x[1, 3, 7, 7] = torch.nan
    y = Winograd.apply(x, torch.ones_like(kernel), None, 0, True)
    assert not y[0].isnan().any() and y[1, :, -1, -1].isnan().all()


@compiled
def test_a_network_that_pools_in_its_convolutions_is_the_same_network(monkeypatch):
    torch.manual_seed(0)
    model = speednet(classes=5, widths=(32, 48), depth=2).train()
    images = torch.randn(24, 3, 18, 18)
    results = []
    for allowed in (True, False):
        monkeypatch.setattr(convolution, "pays", lambda *_, allowed=allowed: allowed)
        changed = copy.deepcopy(model)
        logits = changed(images)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in changed.parameters() if parameter.requires_grad)])
    # Rounding may choose another of four pixels here and there; a wrong gradient is off by about itself.
    assert all(distance(one, other) < 0.02 for one, other in zip(*results, strict=True))


@compiled
@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("of_kernel", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_kernel_of_another_type_is_read_as_what_it_is(number, of_kernel):
    x = maps((5, 32, 8, 8), number=number)
    kernel = torch.randn(24, 32, 3, 3, generator=torch.Generator().manual_seed(1)).to(of_kernel).requires_grad_()
    y = Winograd.apply(x, kernel, None, 1)
    expected = F.conv2d(x.double(), kernel.double(), padding=1)
    assert distance(y, expected) < NEAR[number]
    [gradient] = torch.autograd.grad(y.sum(), kernel)
    assert gradient.dtype == of_kernel


@compiled
@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_a_convolution_by_tiles_does_not_depend_on_threads_or_on_the_order_of_its_input(number, monkeypatch):
    results = []
    monkeypatch.setattr("thumbnet.kernels.winograd.TILES_OF_A_GROUP", 150)
    assert groups_of(70, (15, 15), 4, 1) == 4
    for threads in (1, 2, 3, 5):  # 5: more than the groups of images that are summed apart
        torch.set_num_threads(threads)
        x = maps((70, 64, 15, 15), number=number).requires_grad_()
        kernel = torch.randn(96, 64, 3, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = Winograd.apply(x if threads < 3 else x.contiguous(), kernel, None, 1)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, kernel))))
    assert all(torch.equal(one, other) for result in results[1:] for one, other in zip(results[0], result, strict=True))


@compiled
def test_threads_that_share_the_gradient_of_a_kernel_are_not_begun_anew_for_it():
    torch.set_num_threads(2)
    x, gradient = (maps((40, channels, 5, 5), number=torch.float32) for channels in (32, 48))
    seen, done = set(), threading.Event()
    assert groups_of(40, (5, 5), 4, 1) == 1

    def look():
        while not done.is_set():
            seen.update(os.listdir("/proc/self/task"))

    kernel_gradient(x, gradient, 3, 1)
    there = len(os.listdir("/proc/self/task"))
    with ThreadPoolExecutor(1) as beside:
        looking = beside.submit(look)
        for _ in range(200):
            kernel_gradient(x, gradient, 3, 1)
        done.set()
        looking.result()
    assert 0 < len(seen) <= there + 1


@pytest.mark.parametrize(
    ("images", "size", "channels", "groups"),
    [
        (500, (15, 15), (64, 256), 4),
        (250, (15, 15), (64, 64), 2),
        (500, (7, 7), (256, 256), 1),  # 2,000 tiles
        (500, (15, 15), (384, 768), 2),  # room for three, which two threads could not share
        (2_000, (7, 7), (768, 768), 1),
        (3, (15, 15), (64, 64), 1),
    ],
)
def test_groups_of_images_are_as_many_as_their_sums_are_worth(images, size, channels, groups):
    assert groups_of(images, size, 4, 36 * math.prod(channels)) == groups


@pytest.mark.parametrize(
    ("images", "size", "channels", "threads", "expected"),
    [
        (250, (7, 7), 256, 2, (2, 12)),  # as many as fit
        (250, (30, 30), 64, 2, (2, 5)),
        (250, (7, 7), 256, 16, (16, 6)),  # fewer tiles would be slower
        (250, (3, 3), 256, 8, (8, 24)),
        (250, (7, 7), 256, 64, (1, 12)),  # too few images to keep every thread at work
        (1, (30, 30), 64, 2, (1, 1)),
        (10, (15, 15), 64, 1, (1, 3)),
    ],
)
def test_threads_part_where_there_are_images_for_each_of_them(images, size, channels, threads, expected):
    assert teams_and_images(images, size, channels, threads, side=3, number=torch.float32) == expected


@compiled
def test_convolutions_take_tiles_where_they_pay(monkeypatch):
    taken = []
    monkeypatch.setattr(convolution.Winograd, "apply", lambda x, weight, bias, padding: taken.append(tuple(x.shape)))
    wide, narrow = convolution.Conv2d(64, 64, 3, padding=1), convolution.Conv2d(16, 64, 3, padding=1)
    images = torch.zeros(16, 64, 15, 15)
    wide(images), wide(torch.zeros(32, 64, 5, 5))
    assert taken == [(16, 64, 15, 15), (32, 64, 5, 5)]
    assert wide(images[:3]).shape == (3, 64, 15, 15)  # 675 pixels
    assert convolution.Conv2d(64, 64, 3)(torch.zeros(80, 64, 3, 3)).shape == (80, 64, 1, 1)
    convolution.Conv2d(64, 64, 2)(images)
    assert taken.pop() == (16, 64, 15, 15)
    narrow(torch.zeros(16, 16, 15, 15)), wide.double()(images.double())
    (
        convolution.Conv2d(64, 64, 3, padding=1, stride=2)(images),
        convolution.Conv2d(64, 64, 3, padding=1, groups=2)(images),
    )
    assert len(taken) == 2


@compiled
@pytest.mark.skipif(not has_winograd(torch.bfloat16), reason="needs AVX-512 BF16")
def test_in_bf16_pixels_go_by_tiles_to_train_alone_and_where_the_processor_has_no_tile_registers(monkeypatch):
    layer, images = convolution.Conv2d(64, 64, 3, padding=1), torch.zeros(16, 64, 15, 15)
    with torch.autocast("cpu", torch.bfloat16):
        monkeypatch.setattr(convolution, "tiles_allowed", lambda: True)
        assert layer.own_way(images) is convolution.TileConvolution
        monkeypatch.setattr(convolution, "tiles_allowed", lambda: False)
        assert layer.own_way(images) is convolution.Winograd
        assert layer(images).dtype == torch.bfloat16
        with torch.no_grad():
            assert layer.own_way(images) is None
