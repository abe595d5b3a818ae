"""Prediction: the same preprocessing as training, whatever the form in which an image arrives."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import thumbnet
from conftest import CPU
from conftest import thumbnet as thumbnet_command
from thumbnet.backend import prepare
from thumbnet.cli.predict import chosen_format
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import UserError
from thumbnet.judging.evaluation import predict_logits
from thumbnet.judging.thresholds import Threshold
from thumbnet.recipes import recipe
from thumbnet.shipping.classifier import predict_files
from thumbnet.shipping.loading import load
from thumbnet.training.loop import train


@pytest.fixture(scope="module")
def classifier(tiny, tmp_path_factory):
    made = recipe("general", widths=(16, 16, 32), epochs=2, batch_size=32)
    return load(train(made, tiny, tmp_path_factory.mktemp("predicted") / "run", machine=CPU), machine=CPU)


@pytest.fixture(scope="module")
def pixels(tiny):
    return tiny.development.images[:30]


def test_arrays_files_and_pil_images_get_the_probabilities_of_evaluation(classifier, tiny, pixels, tmp_path):
    split = tiny.development
    expected = predict_logits(classifier.model, split, prepare(CPU))[:30].div(classifier.temperature).softmax(1).numpy()
    files = []
    for index, image in enumerate(pixels[:, 0].numpy()):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(image).save(files[-1])
    forms = {
        "N H W": pixels[:, 0].numpy(),
        "N H W 1": pixels.permute(0, 2, 3, 1).numpy(),
        "N H W 3": pixels.expand(30, 3, 28, 28).permute(0, 2, 3, 1).numpy(),
        "paths": files,
        "text": [str(file) for file in files],
        "PIL": [Image.open(file) for file in files],
    }
    for form, images in forms.items():
        found = classifier.predict_proba(images)
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=form)
    for image in forms["PIL"]:
        image.close()
    assert found.sum(1) == pytest.approx(np.ones(30), abs=1e-5)


def test_predict_names_the_likeliest_class(classifier, pixels):
    images = pixels[:, 0].numpy()
    names = classifier.predict(images)
    likeliest = classifier.predict_proba(images).argmax(1)
    assert names.tolist() == [classifier.classes[index] for index in likeliest]


def test_a_colour_picture_of_another_size_is_converted_as_training_images_are(classifier, pixels, tmp_path):
    big = Image.fromarray(pixels[0, 0].numpy()).resize((112, 112), Image.Resampling.NEAREST).convert("RGB")
    big.save(tmp_path / "big.png")
    found = classifier.predict_proba([tmp_path / "big.png"])
    assert np.abs(found - classifier.predict_proba(pixels[:1, 0].numpy())).max() < 0.2


def test_score_is_the_accuracy_against_names_or_places(classifier, pixels, tiny):
    images, truth = pixels[:, 0].numpy(), tiny.development.labels[:30].numpy()
    expected = float((classifier.predict_proba(images).argmax(1) == truth).mean())
    assert 0 < expected < 1
    assert classifier.score(images, truth) == classifier.score(images, classifier.classes_[truth]) == expected
    for labels, message in (
        (truth[:3], "3 labels for 30 images; give one for each"),
        (truth[:, None], r"labels have the shape \(30, 1\); give one for each image"),
        ([], "labels have the shape"),
        (truth + 5, "labels go from 5 to 14; there are 10 classes"),
        (["Trowser"] * 30, "unknown class 'Trowser'; did you mean 'Trouser'"),
    ):
        with pytest.raises(UserError, match=message):
            classifier.score(images, labels)


def test_no_image_gives_no_row(classifier):
    assert classifier.predict_proba([]).shape == (0, 10)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 28, 28), np.float32), "images are float32 .*; give uint8 N H W 3"),
        (np.zeros((2, 28, 28, 4), np.uint8), r"images are uint8 \(2, 28, 28, 4\)"),
        (
            np.zeros((28, 28, 3), np.uint8),
            r"uint8 \(28, 28, 3\), which looks like one image H W 3; give an array of images",
        ),
        (np.zeros((28, 28, 1), np.uint8), r"one image H W 1; .*, for one image an array of one: image\[None\]"),
        ("photo.png", "give a sequence of images"),
        (None, "give a sequence of images, for one image a list of one"),
        ([np.zeros((28, 28), np.uint8)], "a list holds arrays; give one array of all images, uint8 N H W 3"),
        (["missing.png"], "missing.png"),
    ],
)
def test_what_is_no_image_is_refused(classifier, images, message):
    with pytest.raises(UserError, match=message):
        classifier.predict_proba(images)


def test_files_are_ranked_and_broken_ones_named_or_counted(classifier, pixels, tmp_path):
    Image.fromarray(pixels[0, 0].numpy()).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    files = [tmp_path / "bad.png", tmp_path / "good.png"]
    with pytest.raises(UserError, match=r"bad\.png"):
        predict_files(classifier, files)
    predictions, broken = predict_files(classifier, files, top=3, skip_broken=True)
    assert [row.file for row in predictions] == [str(tmp_path / "good.png")]
    assert len(broken) == 1 and "bad.png" in broken[0]
    shares = [share for _, share in predictions[0].ranking]
    assert len(shares) == 3 and shares == sorted(shares, reverse=True)
    with pytest.raises(UserError, match="none of the 1 files could be read"):
        predict_files(classifier, files[:1], skip_broken=True)


def test_the_public_names_are_there_and_no_others_are_invented(tiny):
    assert set(thumbnet.__all__) >= {"load_dataset", "recipe", "train", "evaluate", "load", "create_model"}
    for name in thumbnet.__all__:
        assert callable(getattr(thumbnet, name))
    assert isinstance(thumbnet.create_model("small_resnet", classes=3), torch.nn.Module)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = thumbnet.trian


def test_a_classifier_says_what_it_is(classifier):
    assert repr(classifier) == "Classifier(10 classes, images of 28 x 28, cpu, 1 thread, fp32)"


def test_the_command_goes_by_the_ending_of_its_output_and_tells_its_threshold(classifier, tiny, tmp_path):
    run = train(
        recipe("general", widths=(16, 16, 32), epochs=1, batch_size=32),
        load_dataset("fashion-mini"),
        tmp_path / "run",
        machine=CPU,
    )
    Image.fromarray(tiny.development.images[0, 0].numpy()).save(tmp_path / "a.png")
    result = thumbnet_command("predict", run.path, "a.png", "--sure", "0.5", "--output", "said.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    said = json.loads((tmp_path / "said.json").read_text())
    assert 0 < said["threshold"]["confidence"] <= 1 and said["threshold"]["accuracy"] >= 0.5
    assert thumbnet_command("predict", run.path, "a.png", "--output", "said.csv", cwd=tmp_path).returncode == 0
    assert (tmp_path / "said.csv").read_text().startswith("file,class,probability\n")
    assert chosen_format(True, None, Path("said")) == "json" and chosen_format(False, None, Path("said")) == "table"
    for words, message in (
        (
            ["--sure", "0.5", "--views", "6"],
            "--sure goes by one view, as the validation images were measured; leave out --views 6",
        ),
        (
            ["--output", "said.html"],
            "--output said.html: give a name that ends in .csv, .json or .txt, or say what it is with",
        ),
        (["--explain", "/proc/why"], "cannot write /proc/why/picture.png: /proc: "),
    ):
        result = thumbnet_command("predict", run.path, "a.png", *words, cwd=tmp_path)
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1) and message in result.stderr


def test_a_dozen_images_are_said_not_to_show_what_was_asked_for():
    few = Threshold(target=0.97, confidence=0.9, coverage=1.0, accuracy=1.0, interval95=(0.7575, 1.0), images=12)
    assert (
        few.in_words()
        .splitlines()[1]
        .startswith("note: too few images to show 97.00%: it takes at least 125 without a mistake")
    )
    assert len(replace(few, images=125).in_words().splitlines()) == 1
