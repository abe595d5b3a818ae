"""One battery for every architecture, and the classic networks against the sizes of the report."""

import importlib
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from thumbnet.errors import UserError
from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import without_weights
from thumbnet.models.registry import MODELS, OPEN_MODELS, create_model, list_models
from thumbnet.models.vision_transformer import SelfAttention, TransformerBlock, places


def images(channels=3, side=32, batch=2):
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 48)])
def test_a_model_gives_one_logit_per_class_for_any_channels_and_size(name, channels, side):
    model = create_model(name, classes=7, channels=channels).eval()
    assert model(images(channels, side)).shape == (2, 7)


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_of_every_model_receives_a_gradient(name):
    model = create_model(name, classes=7).train()

    F.cross_entropy(model(images(batch=8)), torch.arange(8) % 7).backward()

    trained = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
    missing = [key for key, p in trained if p.grad is None or not p.grad.any()]
    assert missing == []


@pytest.mark.parametrize("name", list_models())
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name):
    one, same, other = (create_model(name, classes=3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_making_a_model_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    create_model("small_resnet", classes=3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", list_models())
def test_the_name_of_a_model_is_that_of_a_function_with_a_docstring(name):
    module = __import__(MODELS[name], fromlist=[name])
    assert getattr(module, name).__name__ == name
    assert getattr(module, name).__doc__


@pytest.mark.parametrize("name", list_models())
def test_no_batch_norm_or_layer_knows_the_batch_in_evaluation(name):
    model = create_model(name, classes=5).eval()
    batch = images(batch=5)
    together, alone = model(batch), torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------- the classic networks


def numbers_with_statistics(model: nn.Module) -> int:
    """Parameters and running statistics, as Keras counts them."""
    statistics = sum(b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return sum(p.numel() for p in model.parameters()) + statistics


@pytest.mark.parametrize(("classes", "numbers"), [(10, 23_592_330), (100, 23_776_740)])
def test_the_preactivation_network_has_the_size_of_the_report(classes, numbers):
    assert numbers_with_statistics(create_model("preact_resnet50_classic", classes=classes)) == numbers


def test_the_postactivation_network_has_the_size_of_keras_resnet50():
    # Keras's own ResNet50 with 1000 classes has 25,636,712 numbers and a 2048 x 1000 dense layer; the body is the same.
    body = 25_636_712 - (2048 * 1000 + 1000)
    assert numbers_with_statistics(create_model("resnet50_classic", classes=10)) == body + 2048 * 10 + 10


@pytest.mark.parametrize("name", ["preact_resnet50_classic", "resnet50_classic"])
def test_the_classic_stages_have_the_sides_of_the_report(name):
    model, sides = create_model(name, classes=10).eval(), []
    for stage in model.stages:
        stage.register_forward_hook(lambda layer, inputs, output: sides.append(tuple(output.shape[1:])))
    model(images())
    assert sides == [(256, 7, 7), (512, 4, 4), (1024, 2, 2), (2048, 1, 1)]


def test_the_classic_networks_use_the_defaults_of_keras():
    model = create_model("preact_resnet50_classic", classes=10)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 1 + 16 * 3 + 4
    assert all(layer.bias is not None and not layer.bias.any() for layer in convolutions)
    wide = model.stages[3][1].conv2.weight  # 512 512 3 3
    limit = math.sqrt(6 / (512 * 9 + 512 * 9))  # Glorot & Bengio 2010
    assert limit * 0.999 < wide.abs().max() <= limit
    assert wide.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert model.head.weight.std().item() == pytest.approx(math.sqrt(2 / 2048), rel=0.02)  # He normal


def test_the_preactivation_block_is_the_one_of_the_report():
    """Written out with torch's own functions: leaky slopes of 0.2 twice, then a plain ReLU; a shortcut with its own norm."""
    block = create_model("preact_resnet50_classic", classes=10).stages[1][0].train()
    x = torch.randn(4, 256, 7, 7, generator=torch.Generator().manual_seed(1))

    def norm(x, layer):
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=1e-3)

    def convolve(x, layer, **options):
        return F.conv2d(x, layer.weight, layer.bias, **options)

    y = convolve(F.leaky_relu(norm(x, block.norm1), 0.2), block.conv1, stride=2)
    y = convolve(F.leaky_relu(norm(y, block.norm2), 0.2), block.conv2, padding=1)
    y = convolve(F.relu(norm(y, block.norm3)), block.conv3)
    shortcut = convolve(F.relu(norm(x, block.shortcut[0])), block.shortcut[1], stride=2)
    torch.testing.assert_close(block(x), y + shortcut, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_the_three_places_of_the_report():
    model = create_model("preact_resnet50_classic", classes=100, dropout=(0.15, 0.2, 0.25))
    assert [layer.p for layer in model.dropouts] == [0, 0.15, 0.2, 0]
    assert model.head_dropout.p == 0.25


def test_a_wrong_number_of_dropout_rates_is_refused():
    with pytest.raises(UserError, match=r"dropout has 1 rates .*preact_resnet50_classic.* takes 3"):
        create_model("preact_resnet50_classic", classes=10, dropout=(0.5,))


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        create_model("resnet-18", classes=10)


# ------------------------------------------------------------------------------------- convolutions as products


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_1x1_convolution_is_one_matrix_product_and_not_one_per_image(stride, gradients):
    layer = Conv2d(8, 6, 1, stride=stride)
    x = torch.rand(5, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(gradients), torch.profiler.profile() as profile:
        layer(x)
    called = {event.key: event.count for event in profile.key_averages()}
    assert called.get("aten::addmm") == 1
    assert "aten::bmm" not in called


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8])
@pytest.mark.parametrize(("kernel", "padding", "stride"), [(1, 0, 1), (1, 0, 2), (3, 1, 1), (3, 1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_equals_torchs_in_value_and_gradients(side, kernel, padding, stride, bias):
    random = torch.Generator().manual_seed(side)
    ours = Conv2d(5, 6, kernel, padding=padding, stride=stride, bias=bias).double()
    theirs = nn.Conv2d(5, 6, kernel, padding=padding, stride=stride, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5, side, side, dtype=torch.double, generator=random)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]

    outputs = [layer(value) for layer, value in zip((ours, theirs), inputs, strict=True)]
    for output in outputs:
        (output * torch.arange(output.numel(), dtype=torch.double).view(output.shape)).sum().backward()

    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("name", ["speednet", "small_resnet", "preact_resnet50_classic"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_without_weights_a_network_has_its_shapes_and_draws_nothing(name, device):
    build = getattr(importlib.import_module(MODELS[name]), name)
    shapes = {key: value.shape for key, value in build(classes=3).state_dict().items()}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with without_weights(device):
        network = build(classes=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert {key: value.shape for key, value in network.state_dict().items()} == shapes
    assert {value.device.type for value in network.state_dict().values()} == {device}
    with pytest.raises(ZeroDivisionError), without_weights():
        raise ZeroDivisionError
    drawn = build(classes=3).state_dict()  # afterwards all is as before
    assert not torch.equal(torch.get_rng_state(), before)
    assert all(bool(value.float().isfinite().all()) for value in drawn.values())


# ------------------------------------------------------------------------------------- networks of other papers


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet20", 269_722),  # He et al. 2016, table 6: 0.27 M
        ("resnet56", 853_018),  # and 0.85 M
        ("resnet18", 11_173_962),  # as kuangliu/pytorch-cifar has them
        ("resnet50", 23_520_842),
        ("preact_resnet18", 11_172_170),
        ("wide_resnet16_4", 2_748_890),  # Zagoruyko & Komodakis 2016, table 4: 2.7 M
        ("wide_resnet28_10", 36_479_194),  # and 36.5 M
        ("vgg16", 14_728_266 - 4_224),  # kuangliu/pytorch-cifar's, without the biases that normalisation takes away
    ],
)
def test_a_network_has_the_size_that_its_paper_or_the_field_gives(name, parameters):
    with without_weights("meta"):
        network = create_model(name, classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "sides"), [("resnet56", (32, 16, 8)), ("vgg16", (16, 8, 4, 2, 1)), ("resnet50", (32, 16, 8, 4))]
)
def test_stages_have_the_sides_of_the_papers(name, sides):
    model, seen = create_model(name, classes=10).eval(), []
    for stage in model.stages:
        stage.register_forward_hook(lambda layer, inputs, output: seen.append(output.shape[2]))
    model(images())
    assert tuple(seen) == sides


def test_a_shortcut_without_parameters_keeps_every_second_pixel_between_zeros():
    block = create_model("resnet20", classes=10).stages[1][0]
    assert not list(block.shortcut.parameters())
    x = images(channels=16, side=6)
    y = block.shortcut(x)
    assert y.shape == (2, 32, 3, 3) and torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()


def test_dropout_of_wide_networks_is_between_the_convolutions_of_each_block():
    block = create_model("wide_resnet16_4", classes=4, dropout=(0.5,)).train().stages[0][1]
    assert block.dropout.p == 0.5
    x, seen = images(channels=64, side=4), []
    block.conv2.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    y = block(x)
    dropped = (seen[0] == 0).float().mean()
    assert 0.6 < dropped < 0.9  # half of what is positive, beside the other half of it all
    assert (y == 0).float().mean() < 0.1  # none behind the second convolution


@pytest.mark.parametrize("name", ["wide_resnet16_4", "vision_transformer", "vgg16", "resnet50"])
def test_dropout_acts_in_training_only(name):
    model = create_model(name, classes=4, dropout=(0.5,))
    x = images(batch=4)
    trained = [model.train()(x) for _ in range(2)]
    judged = [model.eval()(x) for _ in range(2)]
    assert not torch.allclose(*trained) and torch.equal(*judged)


def test_a_transformer_knows_where_a_patch_is_and_no_two_places_are_alike():
    waves = places(8, 8, 192)
    assert waves.shape == (64, 192) and waves.abs().max() <= 1
    distances = torch.cdist(waves, waves) + torch.eye(64) * 99
    assert distances.min() > 1  # no two alike
    by_place = waves.view(8, 8, 192)  # row, column, D: the first half tells the column, the second the row
    assert torch.equal(by_place[1, :, :96], by_place[6, :, :96]) and torch.equal(
        by_place[:, 0, 96:], by_place[:, 5, 96:]
    )
    model = create_model("vision_transformer", classes=5).eval()
    x = images(batch=1)
    moved = x.roll(4, dims=3)  # the same patches in other places
    assert not torch.allclose(model(x), model(moved), atol=1e-5)


def test_attention_is_that_of_torch():
    layer = SelfAttention(24, heads=3).double()
    x = torch.rand(2, 5, 24, dtype=torch.double)
    theirs = nn.MultiheadAttention(24, 3, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": layer.questions_keys_values.weight,
            "in_proj_bias": layer.questions_keys_values.bias,
            "out_proj.weight": layer.project.weight,
            "out_proj.bias": layer.project.bias,
        }
    )
    torch.testing.assert_close(layer(x), theirs(x, x, x, need_weights=False)[0])


def test_a_block_of_the_transformer_is_that_of_torch():
    block = TransformerBlock(24, heads=3, expansion=2).double()
    theirs = nn.TransformerEncoderLayer(
        24, 3, dim_feedforward=48, dropout=0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.double
    )
    own = block.state_dict()
    names = {
        "self_attn.in_proj_weight": "attention.questions_keys_values.weight",
        "self_attn.in_proj_bias": "attention.questions_keys_values.bias",
        "self_attn.out_proj.weight": "attention.project.weight",
        "self_attn.out_proj.bias": "attention.project.bias",
        "linear1.weight": "dense.0.weight",
        "linear1.bias": "dense.0.bias",
        "linear2.weight": "dense.2.weight",
        "linear2.bias": "dense.2.bias",
        **{f"{norm}.{kind}": f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
    }
    theirs.load_state_dict({name: own[mine] for name, mine in names.items()})
    x = torch.rand(2, 5, 24, dtype=torch.double)
    torch.testing.assert_close(block(x), theirs(x))


def test_every_pixel_reaches_the_transformer_whatever_the_side():
    model = create_model("vision_transformer", classes=5).eval()
    x = images(side=30, batch=1).requires_grad_()
    model(x).logsumexp(1).sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", [name for name in list_models() if name not in OPEN_MODELS])  # tested on a GPU
def test_a_pass_through_a_network_makes_nothing_on_another_device(name):
    """A copy from the CPU could not be recorded with the update on a GPU; the device `meta` stands for one here."""

    class Devices(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                seen.add(result.device.type)
            return result

    with without_weights("meta"):
        model = create_model(name, classes=5).train()
    x, seen = torch.empty(2, 3, 32, 32, device="meta"), set()
    with Devices():
        model(x)
    assert seen == {"meta"}
