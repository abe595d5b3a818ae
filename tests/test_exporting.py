"""Exported files: they say what the network says, carry what is needed, and nothing is left that was not shown to."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import thumbnet
from conftest import CPU
from conftest import thumbnet as thumbnet_command
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import ThumbnetError, UserError
from thumbnet.judging.evaluation import average_over_views
from thumbnet.judging.statistics import mcnemar
from thumbnet.models.preprocessed import Preprocessed
from thumbnet.models.registry import MODELS, create_model
from thumbnet.reading import sha256_of
from thumbnet.recipes import recipe
from thumbnet.shipping import exporting
from thumbnet.shipping.bundle.folder import export
from thumbnet.shipping.exported import FORMAT, KEY, Facts, digest_of, facts_of, load_exported
from thumbnet.shipping.exporting import (
    Checked,
    Deployed,
    check_as_good,
    check_same,
    checked_with,
    in_batches,
    read_onnx,
    write_onnx,
)
from thumbnet.shipping.loading import load
from thumbnet.shipping.quantizing import quantize
from thumbnet.training.loop import train

onnx = pytest.importorskip("onnx", reason="exporting to ONNX needs the extra `export`")
onnxruntime = pytest.importorskip("onnxruntime")
helper = onnx.helper


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    made = recipe("general", widths=(16, 16, 32), epochs=2, batch_size=32)
    return train(made, tiny, tmp_path_factory.mktemp("trained") / "run", machine=CPU)


@pytest.fixture(scope="module")
def file(run, tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(run, path, data=tiny)
    return path


@pytest.mark.parametrize(
    ("name", "channels", "part"), [*((name, 3, 1.0) for name in MODELS), ("speednet_slim", 1, 0.75)]
)
def test_every_model_says_the_same_as_a_file(name, channels, part, tmp_path):
    network = create_model(name, classes=5, channels=channels, seed=1)
    # Two views and many images for small networks alone: larger ones take long, and these show that views lie inside.
    views, trained_on, asked = (2, 64, 11) if name.startswith("speednet") else (1, 32, 3)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 128, (trained_on, channels, 32, 32), dtype=torch.uint8, generator=random)
    pixels += torch.randint(
        0, 128, (trained_on, channels, 1, 1), dtype=torch.uint8, generator=random
    )  # bright ones and dark ones
    for layer in network.modules():  # as if it had been trained: a file with other statistics would say something else
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()((pixels / 255 - 0.5) / 0.25)
    pixels = pixels[:asked]
    model = Preprocessed(network, [0.5] * channels, [0.25] * channels, part).eval()
    facts = Facts(FORMAT, "0", "r", "d", tuple("abcde"), channels, (32, 32), 0.5, views, "")
    deployed = Deployed(model, facts.temperature, facts.views).eval()
    write_onnx(deployed, facts, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = deployed(pixels.permute(0, 2, 3, 1)).numpy()
        exact = (
            (average_over_views(model.double(), pixels.double() / 255, views) / facts.temperature).softmax(1).numpy()
        )
    assert np.abs(expected - expected[0]).max() > 1e-3  # the images matter
    rounding = np.abs(expected - exact).max()  # up to 1e-4 in the deepest, of which the last maps are of one pixel
    said = in_batches(read_onnx(tmp_path / "model.onnx"), pixels.numpy())
    # Against the exact answer: both round, and on some processors the file's errors and torch's have opposite signs.
    np.testing.assert_allclose(said, exact, rtol=0, atol=1e-5 + 3 * rounding)


def test_a_network_can_be_compiled_by_torch_and_says_the_same():
    network = create_model("speednet", classes=4, widths=(32, 48), depth=3).eval()
    images = torch.rand(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        compiled = torch.compile(network, backend="eager", fullgraph=True)(images)
        torch.testing.assert_close(compiled, network(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_an_export_is_checked_with_validation_images_and_leaves_a_receipt(run, tiny, ending, tmp_path):
    path = tmp_path / f"model{ending}"
    receipt = export(run, path, data=tiny)
    kept = json.loads((tmp_path / f"model{ending}.receipt.json").read_text())
    assert kept["sha256"] == sha256_of(path) and kept["bytes"] == path.stat().st_size
    assert (receipt.split, receipt.images) == ("validation", 24) and receipt.same_class == 24
    assert 0 <= receipt.largest_difference < receipt.tolerance == 1e-4
    assert receipt.accuracy == receipt.accuracy_of_run == run.summary["validation_accuracy"]
    assert receipt.temperature == run.temperature != 1
    assert run.test_openings == 0
    assert receipt.parameters == sum(weight.numel() for weight in run.model().parameters())
    assert kept["speed"].keys() == {"milliseconds", "images_per_second", "processor"} and kept["speed"]["processor"]
    assert min(kept["speed"]["milliseconds"], kept["speed"]["images_per_second"]) > 0
    assert (
        receipt.weights_of_run == sha256_of(run.path / "model.safetensors") and receipt.fingerprint == tiny.fingerprint
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, f"{path.name}.receipt.json"]


@pytest.mark.parametrize("views", [1, 2])
def test_a_file_keeps_thresholds_of_its_own_answers(run, tiny, views, tmp_path):
    receipt = export(run, tmp_path / "model.onnx", data=tiny, views=views)
    classifier = load(tmp_path / "model.onnx")
    held = run.check_data(tiny).validation
    images, labels = held.take(torch.arange(len(held)))
    confidence, place = torch.from_numpy(classifier.probabilities(images.numpy())).max(1)
    assert classifier.facts.thresholds == receipt.thresholds != ()
    for found in receipt.thresholds:
        answered = confidence >= found.confidence
        assert int(answered.sum()) == found.images == round(found.coverage * len(held))
        assert (place == labels)[answered].float().mean().item() == pytest.approx(found.accuracy)
        assert found.accuracy >= found.target
        assert confidence[answered].min().item() == pytest.approx(
            found.confidence, abs=5e-5
        )  # of these views, not of others


def test_a_run_that_held_nothing_out_is_checked_with_training_images_and_has_no_thresholds(tmp_path):
    labels = np.arange(60) % 2
    noise = np.random.default_rng(0).integers(0, 60, (60, 28, 28, 1))
    np.savez(tmp_path / "mine.npz", images=(noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels=labels)
    told_apart = recipe("general", widths=(8, 8, 8), epochs=4, batch_size=10, validation=0.0)  # by brightness alone
    run = train(told_apart, tmp_path / "mine.npz", tmp_path / "run", machine=CPU, plots=False)
    receipt = export(run, tmp_path / "model.onnx")
    assert (receipt.split, receipt.images, receipt.temperature) == ("train", 60, 1.0)
    assert receipt.accuracy > 0.9  # so sure with reason, if only of what it was trained on
    assert receipt.thresholds == ()
    with pytest.raises(UserError, match="run held no images out or was never sure with reason; export a run that was"):
        load(tmp_path / "model.onnx").sure_from(0.9)


def test_an_enlarging_network_is_exported_as_it_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "tiny.npz", images=images, labels=np.arange(40) % 2)
    made = recipe("general", widths=(8, 8, 8), epochs=1, batch_size=8, resolution=(2.0,))
    run = train(made, load_dataset(tmp_path / "tiny.npz"), tmp_path / "run", machine=CPU, plots=False)
    receipt = export(run, tmp_path / "model.onnx")
    assert receipt.image_size == (8, 8) and receipt.largest_difference < receipt.tolerance


def test_the_speed_of_a_file_is_the_median_of_one_image_and_of_many_at_once(monkeypatch):
    clock, sizes = [0.0], []
    takes = iter([9.0, 9.0, 0.01, 0.02, 0.5, *[9.0, 9.0, 1.0, 4.0, 2.0]])  # of each call; the first two warm up

    def compute(pixels):
        sizes.append(len(pixels))
        clock[0] += next(takes)

    monkeypatch.setattr(exporting.time, "perf_counter", lambda: clock[0])
    found = exporting.speed_of(compute, np.zeros((5, 1, 8, 8), np.uint8))
    assert sizes == [1] * 5 + [64] * 5
    assert (found.milliseconds, found.images_per_second) == (20.0, 32.0)


def test_a_file_works_without_thumbnet(file, run, tiny):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    pixels = tiny.development.images[:9]
    [found] = session.run(None, {"images": pixels.permute(0, 2, 3, 1).numpy()})
    np.testing.assert_allclose(found, thumbnet.load(run, machine=CPU).probabilities(pixels.numpy()), atol=1e-5)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["thumbnet"])
    assert tuple(facts["classes"]) == run.classes and facts["image_size"] == [28, 28] and facts["channels"] == 1
    onnx.checker.check_model(str(file), full_check=True)


def test_the_views_lie_inside(run, tiny, tmp_path):
    receipt = export(run, tmp_path / "two.onnx", views=2, data=tiny)
    assert receipt.views == 2
    pixels = tiny.development.images[:9].numpy()
    by_run, by_file = thumbnet.load(run, machine=CPU), thumbnet.load(tmp_path / "two.onnx")
    found = by_file.probabilities(pixels)
    np.testing.assert_allclose(found, by_run.probabilities(pixels, views=2), atol=1e-5)
    assert np.abs(found - by_run.probabilities(pixels)).max() > 1e-3
    np.testing.assert_array_equal(by_file.probabilities(pixels, views=2), found)
    for views in (1, 6):
        with pytest.raises(UserError, match=f"views is {views}, and the exported file has 2 inside; leave it out"):
            by_file.predict_proba(pixels.transpose(0, 2, 3, 1)[..., 0], views=views)


@pytest.mark.parametrize("spoilt", ["temperature", "nan"])
def test_no_file_is_left_that_says_something_else(run, tiny, spoilt, tmp_path, monkeypatch):
    def write_wrong(deployed, facts, path):
        deployed.temperature = float("nan") if spoilt == "nan" else 1.01 * deployed.temperature
        write_onnx(deployed, facts, path)

    monkeypatch.setitem(exporting.WAYS, ".onnx", (write_wrong, read_onnx))
    with pytest.raises(
        ThumbnetError, match=r"nothing was written to .*model.onnx: what was exported says something else"
    ) as caught:
        export(run, tmp_path / "model.onnx", data=tiny)
    assert caught.value.exit_code == 1 and not list(tmp_path.iterdir())


def test_one_image_that_differs_is_enough(tmp_path, tiny):
    split = tiny.development  # 240 images
    said = np.full((len(split), 10), 0.1, np.float32)
    for off, beyond in ((5e-5, 0), (2e-4, 1), (np.nan, 1)):
        other = said.copy()
        other[200, 2] += np.float32(off)
        answers = iter(np.split(other, [1, 8]))
        checked = checked_with(lambda pixels, answers=answers: next(answers), lambda pixels: said, split, 1000)
        assert (checked.images, checked.beyond) == (240, beyond)
        if beyond:
            with pytest.raises(ThumbnetError, match="something else than the network on 1 of 240 images"):
                check_same(tmp_path, checked)
        else:
            check_same(tmp_path, checked)


# ---------------------------------------------------------------- int8


@pytest.fixture(scope="module")
def both(run, tiny, tmp_path_factory):
    """Receipts of a run with two views, in fp32 and in int8."""
    folder = tmp_path_factory.mktemp("both")
    return [export(run, folder / f"{n}.onnx", data=tiny, views=2, int8=n == "int8") for n in ("fp32", "int8")]


def test_in_int8_a_file_is_smaller_says_nearly_the_same_and_is_sure_by_its_own_answers(run, tiny, both):
    whole, receipt = both
    assert (whole.precision, receipt.precision) == ("fp32", "int8") and receipt.bytes < whole.bytes
    assert receipt.tolerance is None and receipt.p is not None and 1e-4 < receipt.largest_difference < 0.2
    classifier = load(receipt.file)
    assert classifier.facts.precision == "int8" and "int8" in classifier.computed_by()
    held = run.check_data(tiny).validation
    images, labels = held.take(torch.arange(len(held)))
    probabilities = classifier.probabilities(images.numpy())
    assert receipt.images == len(held)
    assert receipt.accuracy == pytest.approx((probabilities.argmax(1) == labels.numpy()).mean())
    assert (
        receipt.same_class
        == (probabilities.argmax(1) == load(whole.file).probabilities(images.numpy()).argmax(1)).sum()
    )
    assert classifier.facts.thresholds == receipt.thresholds != ()
    for found in receipt.thresholds:
        answered = probabilities.max(1) >= found.confidence
        assert answered.sum() == found.images
        assert probabilities.max(1)[answered].min() == pytest.approx(found.confidence, abs=5e-5)


def test_a_run_gives_the_same_file_each_time(run, tiny, file, tmp_path):
    assert export(run, tmp_path / "again.onnx", data=tiny).sha256 == sha256_of(file)


def test_only_convolutions_and_products_are_in_int8_with_weights_that_no_processor_overflows(both):
    graph = onnx.load(both[1].file).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    undone = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    first, *others = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    layers = [node for node in others if node.input[1] != first.input[1]]
    assert stored[first.input[1]].dtype == np.float32  # what convolves the pixels, for either view
    assert 0 < len(layers) == len(others) - 1
    for layer in layers:
        weights = stored[undone[layer.input[1]].input[0]]
        assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() <= 64  # 7 bits
        assert layer.input[0] in undone


def test_a_file_that_int8_makes_worse_is_not_left(run, tiny, tmp_path, monkeypatch):
    def by_black_images(path, images):
        quantize(path, np.zeros_like(images))

    monkeypatch.setattr(exporting, "quantize", by_black_images)  # ranges of nothing
    with pytest.raises(ThumbnetError, match=r"in int8 it is right on .*% of 24 images, the network in fp32 on .*"):
        export(run, tmp_path / "int8.onnx", data=tiny, int8=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lost", "images", "refused"),
    [(0.02, 5000, True), (0.009, 5000, False), (0.02, 100, False)],  # a point, and more than chance explains
)
def test_int8_is_refused_for_more_than_a_point_that_chance_does_not_explain(lost, images, refused, tmp_path):
    checked = Checked(images, 0, 0.1, images, 0.9 - lost, 0.9, mcnemar(0, round(lost * images)))
    if refused:
        with pytest.raises(ThumbnetError, match="nothing was written"):
            check_as_good(tmp_path, checked)
    else:
        check_as_good(tmp_path, checked)


def test_int8_is_for_onnx(run, tiny, tmp_path):
    with pytest.raises(UserError, match=r"int8 is for ONNX files, and .*model.pt2 is none"):
        export(run, tmp_path / "model.pt2", data=tiny, int8=True)


def test_what_cannot_be_exported_is_told_before_anything_is_computed(run, tiny, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot export to model.h5; give a name that ends in .onnx or .pt2"):
        export(run, "model.h5", data=tiny)
    with pytest.raises(UserError, match="views is 3; choose 1, 2 or 6"):
        export(run, tmp_path / "model.onnx", views=3, data=tiny)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        UserError, match=r"exporting to ONNX needs onnxscript; install it with: pip install 'thumbnet\[export\]'"
    ):
        export(run, tmp_path / "model.onnx", data=tiny)


def small_graph(tmp_path, facts=None, *, classes=3, external=False):
    """An ONNX file that is none of ours: the mean over the pixels, times a matrix."""
    weights = onnx.numpy_helper.from_array(np.ones((1, classes), np.float32), "weights")
    if external:
        weights = onnx.TensorProto(
            name="weights", data_type=1, dims=[1, classes], data_location=onnx.TensorProto.EXTERNAL
        )
        weights.external_data.add(key="location", value="../secret")
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["m", "weights"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 8, 8, 1])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", classes])], [weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if isinstance(facts, dict):
        facts = facts | {"weights": digest_of(model)}
    if facts is not None:
        model.metadata_props.add(key=KEY, value=facts if isinstance(facts, str) else json.dumps(facts))
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    return path


GOOD = {
    "format": 1, "thumbnet": "0.1", "recipe": "r", "data": "d", "classes": ["a", "b", "c"], "channels": 1,
    "image_size": [8, 8], "temperature": 1.0, "views": 1, "weights": "",
}  # fmt: skip


SURE = {
    "target": 0.9, "confidence": 0.7, "coverage": 0.5, "accuracy": 0.92, "interval95": [0.8, 0.96], "images": 50,
}  # fmt: skip


def test_a_file_keeps_from_where_on_it_is_sure_and_others_say_how_to_know(tmp_path):
    found = load_exported(small_graph(tmp_path, GOOD | {"thresholds": [SURE]})).sure_from(0.9)
    assert (found.confidence, found.interval95, found.images) == (0.7, (0.8, 0.96), 50)
    for facts, message in (
        (
            GOOD | {"thresholds": [SURE]},
            "sure is 0.99, and .*foreign.onnx knows 0.9; take one of these, or name the run",
        ),
        (
            GOOD,
            "sure is 0.99, and .* does not say from where on it is sure: it is of an earlier version, or its run held",
        ),
    ):
        with pytest.raises(UserError, match=message):
            load_exported(small_graph(tmp_path, facts)).sure_from(0.99)


def test_a_file_with_the_facts_is_read(tmp_path):
    assert load_exported(small_graph(tmp_path, GOOD)).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (None, "was not written by `thumbnet export`: it says nothing of its classes and images"),
        ("{", "is damaged: "),
        (GOOD | {"format": 2, "thumbnet": "9.0"}, "was written by thumbnet '9.0', whose files this one cannot read"),
        (GOOD | {"classes": ["a", "b"]}, "is damaged: its graph takes .*; export it again"),
        (GOOD | {"channels": 3}, "is damaged: its graph takes"),
        (GOOD | {"classes": ["a", "b", 3]}, "is damaged: its classes, image size, channels or views are none"),
        (GOOD | {"classes": ["a", "b", "b"]}, "is damaged: its classes"),
        (GOOD | {"image_size": [8.0, 8]}, "is damaged: its classes, image size"),
        (GOOD | {"image_size": [8]}, "is damaged: its classes, image size"),
        (GOOD | {"channels": 2}, "is damaged: its classes, image size, channels"),
        (GOOD | {"views": 0}, "is damaged: its classes, image size, channels or views"),
        (GOOD | {"precision": "int4"}, "computes in 'int4', which this thumbnet does not know"),
        (GOOD | {"temperature": None}, "is damaged: 'temperature' is"),
        (GOOD | {"thresholds": 3}, "is damaged: its thresholds are none; export it again"),
        (GOOD | {"thresholds": [{"target": 0.9}]}, "is damaged: its thresholds are none"),
        (GOOD | {"thresholds": [SURE | {"confidence": 1.5}]}, "is damaged: its thresholds are none"),
        (GOOD | {"thresholds": [SURE | {"interval95": ["0", "1"]}]}, "is damaged: its thresholds are none"),
        (GOOD | {"thresholds": [SURE | {"images": 2.5}]}, "is damaged: its thresholds are none"),
        (GOOD | {"thresholds": [SURE | {"images": -3}]}, "is damaged: its thresholds are none"),
        (GOOD | {"thresholds": [SURE | {"target": 10**400}]}, "is damaged: its thresholds are none"),
        (GOOD | {"thresholds": [SURE | {"coverage": "0.9"}]}, "is damaged: its thresholds are none"),
    ],
)
def test_a_file_of_somebody_else_is_refused(facts, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_exported(small_graph(tmp_path, facts))


def test_weights_and_answers_that_are_wrong_are_noticed(tmp_path):
    path = small_graph(tmp_path, GOOD)
    with pytest.raises(UserError, match="is damaged: its answers are no probabilities; export it again"):
        load_exported(path).predict_proba(np.full((1, 8, 8), 200, np.uint8))  # 200 for each class
    content = path.read_bytes()
    one = np.float32(1).tobytes()
    path.write_bytes(content.replace(3 * one, 2 * one + np.float32(2).tobytes(), 1))
    with pytest.raises(UserError, match="is damaged: its weights are not those that were exported; export it again"):
        load_exported(path)


def test_a_file_that_names_other_files_is_refused_before_they_are_read(tmp_path):
    (tmp_path.parent / "secret").write_bytes(np.ones(3, np.float32).tobytes())
    with pytest.raises(UserError, match="refers to another file, which is not read; export it again"):
        load_exported(small_graph(tmp_path, GOOD, external=True))


def test_what_is_no_onnx_file_is_refused(file, tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none.onnx; `thumbnet export RUN none.onnx` makes one"):
        load_exported(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(
        UserError, match=r"is a folder; give an exported file, or a run folder whose name does not end in .onnx"
    ):
        load_exported(tmp_path / "folder.onnx")
    (tmp_path / "model.pt2").touch()
    with pytest.raises(
        UserError, match=r"is for torch, and not read here: its format can hold code; export an .onnx file"
    ):
        thumbnet.load(tmp_path / "model.pt2")
    content = file.read_bytes()
    for name, wrong in (("empty", b""), ("cut", content[: len(content) // 2]), ("noise", bytes(range(256)) * 9)):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(wrong)
        with pytest.raises(UserError, match=r"is no ONNX file, or a damaged one|cannot be computed|was not written by"):
            load_exported(path)


def test_a_graph_that_cannot_be_computed_is_told_in_one_line(tmp_path):
    model = onnx.load(small_graph(tmp_path, GOOD))
    model.graph.node[2].op_type = "Nonsense"
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"odd.onnx cannot be computed: .*; export it again"):
        load_exported(tmp_path / "odd.onnx")


def test_a_file_damaged_anywhere_costs_one_line_or_says_what_it_said(file, tiny, capfd):
    content, pixels = bytearray(file.read_bytes()), tiny.development.images[:2].numpy()
    random = np.random.default_rng(0)
    complaints = []
    damaged = file.with_name("damaged.onnx")
    for _ in range(150):
        wrong = bytearray(content)
        for place in random.integers(0, len(wrong) if len(complaints) % 2 else 4000, size=3):
            wrong[place] = random.integers(256)
        damaged.write_bytes(wrong)
        try:
            assert load_exported(damaged).probabilities(pixels).shape == (2, 10)
        except UserError as error:
            complaints.append(str(error))
    assert len(complaints) > 20 and not any("\n" in line for line in complaints)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("place", ["subgraph", "function", "sparse"])
def test_other_files_are_noticed_wherever_a_graph_names_them(place, tmp_path):
    away = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    away.external_data.add(key="location", value="secret")
    model = onnx.load(small_graph(tmp_path, GOOD))
    if place == "subgraph":
        inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("w", 1, [1])], [away])
        model.graph.node[0].attribute.append(helper.make_attribute("body", inner))
    elif place == "function":
        node = helper.make_node("Constant", [], ["w"])
        node.attribute.append(helper.make_attribute("value", away))
        model.functions.append(helper.make_function("here", "f", [], ["w"], [node], [helper.make_opsetid("", 13)]))
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(away)
    (tmp_path / "hidden.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="refers to another file"):
        load_exported(tmp_path / "hidden.onnx")


def test_an_earlier_file_stays_where_the_new_one_fails_and_its_receipt_goes_with_it(run, tiny, tmp_path, monkeypatch):
    path, receipt = tmp_path / "model.pt2", tmp_path / "model.pt2.receipt.json"
    export(run, path, data=tiny)
    before = path.read_bytes(), receipt.read_bytes()
    write, read = exporting.WAYS[".pt2"]
    monkeypatch.setitem(
        exporting.WAYS, ".pt2", (write, lambda path: lambda pixels: np.zeros((len(pixels), 10), np.float32))
    )
    with pytest.raises(ThumbnetError, match="says something else"):
        export(run, path, data=tiny)
    assert (path.read_bytes(), receipt.read_bytes()) == before
    monkeypatch.setitem(exporting.WAYS, ".pt2", (write, read))
    monkeypatch.setattr(exporting, "write_json", lambda path, value: 1 / 0)  # the power fails here
    with pytest.raises(ZeroDivisionError):
        export(run, path, views=2, data=tiny)
    assert path.read_bytes() != before[0] and not receipt.exists()


def test_images_go_through_the_file_in_batches_of_one_of_seven_and_of_what_memory_holds():
    sizes = []
    pixels = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1).repeat(224, 2).repeat(224, 3)
    found = in_batches(lambda part: sizes.append(len(part)) or part[:, 0, 0, :1].astype(np.float32), pixels)
    assert sizes == [1, 7, 10, 10, 2] and found[:, 0].tolist() == list(range(30))
    del sizes[:]
    in_batches(lambda part: sizes.append(len(part)) or part[:, 0, 0], pixels[:3])
    assert sizes == [1, 2]


def test_the_examples_of_the_page_say_what_thumbnet_says(run, file, tiny, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text(encoding="utf-8")
    code, of_torch = (part.split("```")[0] for part in page.split("```python\n")[1:])
    picture = Image.fromarray(tiny.development.images[4, 0].numpy()).resize((120, 90)).convert("RGB")
    turned = Image.Exif()
    turned[274] = 6
    picture.save(tmp_path / "photo.png", exif=turned)
    (tmp_path / "model.onnx").write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    [expected] = load_exported("model.onnx").predict_proba(["photo.png"])
    name, value = capsys.readouterr().out.rsplit(maxsplit=1)
    assert name == load_exported("model.onnx").classes[expected.argmax()] and float(value) == pytest.approx(
        expected.max()
    )
    export(run, "model.pt2", data=tiny)
    exec(of_torch, names)
    np.testing.assert_allclose(names["probabilities"].numpy()[0], expected, atol=1e-5)


def test_what_reads_a_file_says_what_is_missing(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"an ONNX file needs onnxruntime; install it with: pip install"):
        load_exported(file)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"an ONNX file needs onnx; install it with: pip install"):
        load_exported(file)


@pytest.mark.parametrize("machine", [{"device": "cuda"}, {"precision": "bf16"}])
def test_a_file_is_computed_on_the_cpu_in_fp32(file, machine):
    with pytest.raises(UserError, match="is computed on the CPU in fp32; leave --device and --precision out"):
        load_exported(file, machine=thumbnet.Machine(**machine))
    assert repr(load_exported(file, machine=CPU)) == "Classifier(10 classes, images of 28 x 28, onnxruntime, 1 thread)"


def test_a_number_of_threads_is_checked(file):
    with pytest.raises(UserError, match="threads is 0, and this machine has"):
        load_exported(file, machine=thumbnet.Machine(threads=0))


def test_the_facts_are_strict_json():
    with pytest.raises(UserError, match="is damaged: it has a name twice"):
        facts_of(Path("m.onnx"), '{"format": 1, "format": 1}')


def test_the_commands_export_and_predict_without_torch(run, tiny, tmp_path):
    trained = thumbnet_command(
        "train", "fashion-mini", "--epochs", 1, "--widths", 16, 16, 32, "--batch-size", 250, "--out", "run", "--threads", 1,
        cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    result = thumbnet_command("export", "run", "model.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "model.onnx.receipt.json").read_text())["images"] == 600
    assert result.stderr == "" and "the same class for all" in result.stdout
    assert "uint8 N 28 28 1 in, probabilities N 10 out" in result.stdout and "600 validation images" in result.stdout
    Image.fromarray(tiny.development.images[0, 0].numpy()).save(tmp_path / "a.png")
    words = ("predict", "run", "a.png", "--top", 3, "--precision", "fp32")
    tables = [
        thumbnet_command(*words, cwd=tmp_path),
        thumbnet_command("predict", "model.onnx", *words[2:], cwd=tmp_path),
    ]
    assert tables[0].stdout == tables[1].stdout != "", tables
    refused = thumbnet_command("predict", "model.onnx", "a.png", "--explain", "why", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--explain needs the images of the run, and model.onnx is an export; name the run folder" in refused.stderr
    sure = ("a.png", "--sure", "0.9", "--precision", "fp32", "--json")
    of_run, of_file = (
        json.loads(thumbnet_command("predict", which, *sure, cwd=tmp_path).stdout) for which in ("run", "model.onnx")
    )
    assert of_file["threshold"]["target"] == 0.9
    assert of_file["threshold"]["confidence"] == pytest.approx(
        of_run["threshold"]["confidence"], abs=0.05
    )  # in bf16, perhaps
    assert of_run["images"][0]["sure"] == of_file["images"][0]["sure"]
    code = "import sys; from thumbnet.cli.main import run; run(['predict', 'model.onnx', 'a.png']); print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.splitlines()[-1] == "False"
