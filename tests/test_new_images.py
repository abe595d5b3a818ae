"""New labelled images: a run and its export are judged on them by name of class, and images trained on are counted."""

import csv
import json
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from conftest import CPU, ONE_THREAD
from conftest import thumbnet as command
from thumbnet.data.datasets import load_dataset
from thumbnet.data.labelled import labelled_images
from thumbnet.errors import UserError
from thumbnet.judging.evaluation import evaluate, score_predictions
from thumbnet.judging.statistics import wilson_interval
from thumbnet.recipes import recipe
from thumbnet.shipping.bundle.folder import export
from thumbnet.shipping.loading import load
from thumbnet.shipping.new_images import judge_new_images, trained_on
from thumbnet.training.loop import train

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network for noise of three brightnesses, trained on pictures in a folder."""
    folder = tmp_path_factory.mktemp("pictures")
    paint(folder / "mine", CLASSES, count=20, seed=0)
    made = recipe("general", widths=(8, 16, 16), epochs=2, batch_size=16, validation=0.2)
    return train(made, load_dataset(folder / "mine"), folder / "run", machine=CPU)


def paint(folder, classes, *, count, seed, size=32):
    """Pictures FOLDER/<class>/0.png and so on, brighter with each class."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        base = 30 + 80 * CLASSES.index(name) if name in CLASSES else 0
        for number in range(count):
            pixels = base + random.integers(0, 50, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_the_validation_images_as_a_folder_get_the_scores_of_evaluate(run, tmp_path):
    data = run.load_data()
    images, labels = data.validation.take(np.arange(len(data.validation)))
    for place, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
        (tmp_path / CLASSES[label]).mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / CLASSES[label] / f"{place}.png")
    found = judge_new_images(load(run, machine=CPU), tmp_path).scores
    expected = evaluate(run, machine=CPU)
    assert (found.accuracy, found.confusion) == (expected.accuracy, expected.confusion)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert found.calibration.error_after == pytest.approx(expected.calibration.error_after, abs=1e-4)
    assert not trained_on(run, judge_new_images(load(run, machine=CPU), tmp_path).pixels)[0].any()


def test_images_of_another_size_and_some_classes_only(run, tmp_path):
    paint(tmp_path / "new", ("dog",), count=5, seed=1, size=48)
    judged = judge_new_images(load(run, machine=CPU), tmp_path / "new")
    assert judged.scores.support == (0, 5, 0)
    assert judged.scores.per_class[0] is None
    assert judged.scores.balanced_accuracy == judged.scores.per_class[1]
    assert judged.pixels.shape == (5, 3, 32, 32)


def test_an_export_is_judged_as_the_run_is(run, tmp_path):
    pytest.importorskip("onnxruntime")
    paint(tmp_path / "new", CLASSES, count=6, seed=2)
    export(run, tmp_path / "model.onnx")
    of_run = judge_new_images(load(run, machine=CPU), tmp_path / "new").scores
    of_file = judge_new_images(load(tmp_path / "model.onnx"), tmp_path / "new").scores
    assert of_file.confusion == of_run.confusion
    assert of_file.loss == pytest.approx(of_run.loss, abs=1e-4)
    assert of_file.calibration.temperature == of_run.calibration.temperature
    assert of_file.calibration.error == pytest.approx(of_run.calibration.error, abs=1e-3)


def test_the_views_told_of_an_export_are_those_inside(run, tmp_path):
    pytest.importorskip("onnxruntime")
    paint(tmp_path / "new", CLASSES, count=2, seed=2)
    export(run, tmp_path / "model.onnx", views=2)
    assert judge_new_images(load(tmp_path / "model.onnx"), tmp_path / "new").scores.views == 2


def test_arrays_are_matched_by_name_or_count_the_classes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    saved = {
        "names": ({"labels": np.array(["eel", "cat", "cat", "dog"])}, CLASSES, [2, 0, 0, 1]),
        "numbers": ({"labels": np.array([2, 0, 0, 1])}, CLASSES, [2, 0, 0, 1]),
        "some numbers": ({"labels": np.array([2, 2, 0, 0])}, CLASSES, [2, 2, 0, 0]),
        "named": ({"labels": np.array([1, 0, 0, 0]), "classes": np.array(["dog", "cat"])}, CLASSES, [0, 1, 1, 1]),
        "numbered classes": ({"labels": np.array([7, 3, 3, 7])}, ("3", "5", "7"), [2, 0, 0, 2]),
        "below zero": ({"labels": np.array([0, 1, -1, 0])}, ("-1", "0", "1"), [1, 2, 0, 1]),
        "some named": ({"labels": np.array([1, 2, 2, 1])}, ("1", "2", "zero"), [0, 1, 1, 0]),
        "padded": ({"labels": np.array([0, 1, 2, 0])}, ("00", "01", "02"), [0, 1, 2, 0]),
        "yes or no": ({"labels": np.array([True, False, True, True])}, ("0", "1"), [1, 0, 1, 1]),
    }
    for name, (arrays, classes, expected) in saved.items():
        np.savez(tmp_path / "new.npz", images=images, **arrays)
        found = labelled_images(tmp_path / "new.npz", classes)
        assert found.labels.tolist() == expected, name
        np.testing.assert_array_equal(found.images, images)
    decomposed = np.array([normalize("NFD", name) for name in ("Kürbis", "Apfel", "Apfel", "Apfel")])
    np.savez(tmp_path / "new.npz", images=images, labels=decomposed)
    assert labelled_images(tmp_path / "new.npz", ("Apfel", "Kürbis")).labels.tolist() == [1, 0, 0, 0]
    test = {"x_test": images[:1], "y_test": np.array([1])}
    for arrays in (test, test | {"x_train": images, "y_train": np.array([0, 0, 0, 0])}):
        np.savez(tmp_path / "new.npz", **arrays)
        assert labelled_images(tmp_path / "new.npz", CLASSES).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"labels": np.array(["cat", "cow"])},
            r"new\.npz has images of a class that the network was not trained on; leave them out or rename it: unknown class",
        ),
        ({"labels": np.array([0, 3])}, "has the training label 3, which is not one of the 3 labels from 0 to 2"),
        ({"labels": np.array([0, 1]), "classes": np.array("cat")}, "its classes are no list of different names"),
        ({"labels": np.array([0, 1]), "classes": np.array(["cat", "cat"])}, "its classes are no list of different"),
        ({"labels": np.array([0, 1, 2])}, "2 training images and 3 training labels; give one for each"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "new.npz", images=np.zeros((2, 8, 8), np.uint8), **arrays)
    with pytest.raises(UserError, match=message):
        labelled_images(tmp_path / "new.npz", CLASSES)


def test_folders_that_do_not_fit_are_refused(tmp_path):
    paint(tmp_path / "splits" / "test", CLASSES, count=1, seed=0)
    paint(tmp_path / "splits" / "train", CLASSES, count=1, seed=1)
    paint(tmp_path / "beside", ("cat", "dog"), count=1, seed=1)
    paint(tmp_path / "beside" / "val", ("cat", "dog"), count=1, seed=1)
    paint(tmp_path / "others", ("cat", "dogs"), count=1, seed=0)
    (tmp_path / "none" / "cat").mkdir(parents=True)
    (tmp_path / "picture.png").write_bytes(b"")
    for name, message in {
        "splits": "holds 2 splits, test, train, and one folder per class is wanted; name one, as in .*splits/test$",
        "beside": "holds 1 split, val, and one folder per class is wanted; name one, as in .*beside/val$",
        "others": "unknown class 'dogs'; did you mean 'dog'",
        "none": "no image in the class folders of .*none; add some",
        "a" * 300: "there is no folder .*aaa; give a folder",
        "picture.png": "picture.png is a file; give a folder with one folder of images per class",
        "missing": "there is no folder .*missing; give a folder with one folder of images per class, or a .csv or .npz file",
    }.items():
        with pytest.raises(UserError, match=message):
            labelled_images(tmp_path / name, CLASSES)


def test_what_was_made_of_arrays_is_told(tmp_path):
    images, path = np.zeros((2, 8, 8), np.uint8), tmp_path / "new.npz"
    np.savez(path, x_train=images, y_train=np.array([0, 1]), x_val=images[:1], y_val=np.array([2]))
    found = labelled_images(path, CLASSES)
    assert found.labels.tolist() == [2]
    assert found.note == f"of {path} the validation images are taken; labels stand for classes by number: 2 for 'eel'"
    np.savez(path, images=images, labels=np.array([0, 1]))
    assert labelled_images(path, CLASSES).note == "labels stand for classes by number: 0 for 'cat', 1 for 'dog'"
    assert labelled_images(path, ("0", "1")).note == ""


def test_numbers_are_names_from_python_too_where_classes_are_numbers(run):
    classifier = load(run, machine=CPU)
    classifier.classes = ("1", "2", "10")
    assert classifier.places_of(np.array([10, 1, 2])).tolist() == [2, 0, 1]
    with pytest.raises(UserError, match="unknown class '0'"):
        classifier.places_of(np.array([0, 1]))


def test_a_folder_may_be_of_a_class_with_a_slash(tmp_path):
    for name in ("T-shirt_top", "Trouser"):
        paint(tmp_path, (name,), count=1, seed=0)
    assert sorted(labelled_images(tmp_path, ("T-shirt/top", "Trouser")).labels.tolist()) == [0, 1]
    taken = ("T-shirt/top", "Trouser", "T-shirt_top")  # a name as it is comes first
    assert sorted(labelled_images(tmp_path, taken).labels.tolist()) == [1, 2]


def test_class_folders_without_images_are_passed_over(tmp_path):
    paint(tmp_path, ("cat",), count=1, seed=0)
    (tmp_path / "leer").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    found = labelled_images(tmp_path, CLASSES)
    assert found.labels.tolist() == [0] and [path.name for path in found.ignored] == ["a.txt"]


def test_a_folder_of_idx_files_is_read(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    for split, count in (("train", 4), ("t10k", 3)):
        for kind, array in (("images-idx3", images[:count]), ("labels-idx1", np.array([2, 0, 1, 1], np.uint8)[:count])):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
            (tmp_path / f"{split}-{kind}-ubyte").write_bytes(head + array.tobytes())
    found = labelled_images(tmp_path, CLASSES)
    assert found.labels.tolist() == [2, 0, 1] and found.images.shape == (3, 8, 8, 1)


def test_a_class_may_be_called_like_a_split(tmp_path):
    paint(tmp_path, ("train", "plane"), count=1, seed=0)
    assert labelled_images(tmp_path, ("plane", "train")).labels.tolist() == [0, 1]


def test_what_an_earlier_run_was_trained_on_counts_as_known(run, tmp_path):
    paint(tmp_path / "more", CLASSES, count=10, seed=9)
    made = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=16, validation=0.2, start_from=str(run.path))
    later = train(made, load_dataset(tmp_path / "more"), tmp_path / "later", machine=CPU, plots=False)
    data = run.load_data()
    (seen, _), (held, _) = data.train.evenly_spaced(5), data.validation.evenly_spaced(5)
    assert trained_on(later, seen.numpy())[0].all() and not trained_on(later, held.numpy())[0].any()
    with pytest.raises(UserError, match="took images of another size"):
        trained_on(later, seen.numpy()[:, :, :16])
    (run.path.parent / "mine").rename(run.path.parent / "gone")
    try:
        with pytest.raises(UserError, match="which is gone"):
            trained_on(later, seen.numpy())
    finally:
        (run.path.parent / "gone").rename(run.path.parent / "mine")


def test_a_classifier_evaluates_arrays_with_names(run):
    data = run.load_data()
    images, labels = data.validation.evenly_spaced(8)
    pixels = images.permute(0, 2, 3, 1).numpy()
    classifier = load(run, machine=CPU)
    scores = classifier.evaluate(pixels, [CLASSES[label] for label in labels.tolist()])
    assert scores.accuracy == classifier.score(pixels, labels.numpy())
    assert (scores.split, scores.images, scores.views) == ("new", 8, 1)
    with pytest.raises(UserError, match="3 labels for 8 images; give one for each"):
        classifier.evaluate(pixels, labels.numpy()[:3])
    answers = classifier.answers(images.numpy(), labels.numpy())
    assert score_predictions(answers, temperature=classifier.temperature) == scores


def test_the_command_counts_what_was_trained_on_and_leaves_out_what_is_broken(run, tmp_path):
    paint(tmp_path / "new", CLASSES, count=3, seed=3)
    data = run.load_data()
    known = data.files_of("train")[int(data.train.rows[0])]
    source = run.path.parent / "mine" / known
    (tmp_path / "new" / source.parent.name / "again.png").write_bytes(source.read_bytes())
    (tmp_path / "new" / "cat" / "broken.png").write_bytes(b"no image")
    (tmp_path / "new" / "notes.txt").write_text("")
    before = sorted(str(path) for path in run.path.rglob("*"))
    words = ("evaluate", run.path, "--on", "new", "--threads", "1")
    refused = command(*words, cwd=tmp_path, **ONE_THREAD)
    assert refused.returncode == 2 and "or skip such files (--skip-broken)" in refused.stderr
    told = command(*words, "--skip-broken", "--predictions", "said.csv", cwd=tmp_path, **ONE_THREAD)
    assert told.returncode == 0, told.stderr
    assert "general" in told.stdout and "on 10 labelled images of new" in told.stdout
    assert "skipped: cannot read image new/cat/broken.png" in told.stderr and "ignored: 1 file" in told.stderr
    assert (
        "note: 1 of these images equals one that the run was trained on; on the other 9 the accuracy is" in told.stderr
    )
    assert "% (95 % interval" in told.stderr
    rows = list(csv.DictReader((tmp_path / "said.csv").read_text().splitlines()))
    assert len(rows) == 10 and all(row["class"] in row["file"] for row in rows)
    answers = judge_new_images(load(run, machine=CPU), tmp_path / "new", skip_broken=True).predictions
    calibrated = answers.probabilities(run.temperature).max(1).values.tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(calibrated, abs=1e-4) and run.temperature != 1
    found = json.loads(command(*words, "--skip-broken", "--json", cwd=tmp_path, **ONE_THREAD).stdout)
    assert (found["on"], found["images"], found["trained_on"]) == ("new", 10, 1)
    assert len(found["skipped"]) == 1 and found["ignored"] == ["new/notes.txt"]
    others = [int(row["correct"]) for row in rows if not row["file"].endswith("again.png")]
    assert found["accuracy_on_others"] == pytest.approx(sum(others) / 9)
    assert found["accuracy_on_others_interval95"] == pytest.approx(wilson_interval(sum(others), 9))
    assert sorted(str(path) for path in run.path.rglob("*")) == before  # nothing is written into the run folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--on", "x", "--split", "test"), "--split test is for the images of the run, and --on x names others"),
        (("--on", "x", "--robustness"), "--robustness is for the images of the run"),
        (("--on", "x", "--views", "2", "--uncertain", "0.5"), "--uncertain 0.5 is for the images of the run"),
        (("--skip-broken",), "--skip-broken is for --on; the images of the run are read as they were in training"),
    ],
)
def test_what_goes_with_the_images_of_a_run_only_is_refused(words, message, run, tmp_path):
    refused = command("evaluate", run.path, *words, cwd=tmp_path, **ONE_THREAD)
    assert refused.returncode == 2 and message in refused.stderr


def test_training_images_that_are_gone_are_told(run, tmp_path):
    paint(tmp_path / "new", CLASSES, count=1, seed=3)
    words = ("evaluate", run.path, "--on", "new", "--threads", "1", "--data-dir", "gone")
    told = command(*words, cwd=tmp_path, **ONE_THREAD)
    assert told.returncode == 0
    assert "whether the run was trained on some of these images cannot be told: there is no folder" in told.stderr


def test_an_export_knows_no_training_images(run, tmp_path):
    pytest.importorskip("onnxruntime")
    paint(tmp_path / "new", CLASSES, count=2, seed=3)
    export(run, tmp_path / "model.onnx")
    told = command("evaluate", "model.onnx", "--on", "new", cwd=tmp_path, **ONE_THREAD)
    assert told.returncode == 0 and "the network of model.onnx on 6 labelled images of new" in told.stdout
    refused = command("evaluate", "model.onnx", "--on", "new", "--data-dir", "x", cwd=tmp_path, **ONE_THREAD)
    assert refused.returncode == 2 and "--data-dir x names the training images of a run" in refused.stderr
