"""Sets that come as arrays: .npz files as of MedMNIST and Keras, folders of MNIST's format, and what is refused."""

import gzip
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from conftest import thumbnet
from thumbnet.data.arrays import holds_arrays, meaning, read_arrays
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import UserError

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)  # N H W C
NUMBERS = np.arange(12) % 3


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Writes a set.npz."""
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "cache"))

    def write(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return tmp_path / "set.npz"

    return write


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train_images", ("train", "images")), ("x_train", ("train", "images")), ("Y_test", ("test", "labels")),
        ("val_labels", ("validation", "labels")), ("images", ("train", "images")), ("labels", ("train", "labels")),
        ("arr_0", None), ("classes", None), ("train_coarse_labels", None), ("train", None), ("x_y", None),
    ],
)  # fmt: skip
def test_the_names_of_arrays_say_what_they_hold(name, expected):
    assert meaning(name) == expected


def test_a_set_in_the_manner_of_medmnist(save):
    path = save(
        train_images=COLOUR, train_labels=NUMBERS[:, np.newaxis].astype(np.uint8),
        val_images=COLOUR[:4], val_labels=NUMBERS[:4, np.newaxis].astype(np.uint8),
        test_images=COLOUR[4:9], test_labels=NUMBERS[4:9, np.newaxis].astype(np.uint8),
    )  # fmt: skip
    data = load_dataset(path)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 5)
    assert (data.classes, data.channels, data.image_size) == (("0", "1", "2"), 3, (6, 5))
    np.testing.assert_array_equal(data.train.images.numpy().transpose(0, 2, 3, 1), COLOUR)
    assert data.test.unlock().labels.tolist() == NUMBERS[4:9].tolist()


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (COLOUR, (12, 3, 6, 5)), (COLOUR.transpose(0, 3, 1, 2), (12, 3, 6, 5)), (COLOUR[..., 0], (12, 1, 6, 5)),
        (COLOUR[..., :1], (12, 1, 6, 5)), (np.asfortranarray(COLOUR), (12, 3, 6, 5)),
    ],
)  # fmt: skip
def test_images_of_every_usual_layout_show_the_same(save, images, shape):
    pack = read_arrays(save(x_train=images, y_train=NUMBERS))
    assert pack.arrays["train_images"].shape == shape
    np.testing.assert_array_equal(pack.arrays["train_images"][:, 0], COLOUR[..., 0])


def test_labels_may_be_names_numbers_with_gaps_or_numbers_with_names_beside_them(save):
    by_name = read_arrays(save(images=COLOUR, labels=np.array(["dog", "cat", "eel"])[NUMBERS]))
    assert by_name.description["classes"] == ["cat", "dog", "eel"]
    assert by_name.arrays["train_labels"].tolist() == [[1, 0, 2][number] for number in NUMBERS]

    gaps = read_arrays(save(images=COLOUR, labels=np.array([7, -1, 200])[NUMBERS]))
    assert gaps.description["classes"] == ["-1", "7", "200"]
    assert gaps.arrays["train_labels"].tolist() == [[1, 0, 2][number] for number in NUMBERS]

    beside = read_arrays(save(images=COLOUR, labels=NUMBERS, classes=np.array(["dog", "cat", "eel"])))
    assert beside.description["classes"] == ["dog", "cat", "eel"]
    assert beside.arrays["train_labels"].tolist() == NUMBERS.tolist()

    both = read_arrays(
        save(images=COLOUR, labels=np.array(["dog", "cat", "eel"])[NUMBERS], classes=np.array(["dog", "cat", "eel"]))
    )
    assert both.description["classes"] == ["dog", "cat", "eel"]
    assert both.arrays["train_labels"].tolist() == NUMBERS.tolist()


GOOD = {"train_images": COLOUR, "train_labels": NUMBERS}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": COLOUR}, "holds 'arr_0'; expected train_images and train_labels, perhaps val_images"),
        ({}, "holds nothing; expected"),
        ({"train_images": COLOUR}, "has no train labels; expected"),
        ({"test_images": COLOUR, "test_labels": NUMBERS}, "has no training images; expected"),
        (GOOD | {"test_images": COLOUR}, "has no test labels; expected"),
        (GOOD | {"x_train": COLOUR}, "has the train images twice, 'x_train' being one of them; leave one out"),
        (GOOD | {"train_images": COLOUR / 255}, "train images are float64; give bytes from 0 to 255, numpy's uint8"),
        (GOOD | {"train_images": COLOUR.reshape(12, -1)}, "have shape (12, 90); expected N H W, N H W 3 or N 3 H W"),
        (GOOD | {"train_images": COLOUR[..., :2]}, "have shape (12, 6, 5, 2); expected N H W"),
        (GOOD | {"train_images": COLOUR[:0]}, "has no train image; leave train out, or add some"),
        (GOOD | {"train_labels": NUMBERS[:5]}, "has 12 train images and 5 labels of them; they must be as many"),
        (GOOD | {"train_labels": np.eye(3)[NUMBERS]}, "have shape (12, 3); give one label per image"),
        (GOOD | {"train_labels": NUMBERS / 2}, "train labels are float64; give whole numbers or names"),
        (GOOD | {"train_labels": np.arange(12)}, "its 12 training labels are all different; give the class of each image"),
        (GOOD | {"train_labels": NUMBERS * 0}, "has 1 class; a classifier needs at least 2"),
        (GOOD | {"classes": np.array(["a", "b"])}, "train label 2 is none of the 2 classes"),
        (GOOD | {"classes": np.array(["a", "b", "a"])}, "its classes are no list of different names; give one text"),
        (GOOD | {"classes": np.array(["a", "b", "c", "d"])}, "has no training image of class 'd'; leave that class out"),
        (
            GOOD | {"test_images": COLOUR, "test_labels": NUMBERS + 1},
            "test label 3 is none of the 3 classes",
        ),
        (
            GOOD | {"test_images": COLOUR, "test_labels": NUMBERS.astype(str)},
            "test labels are <U21, those of training int64; make them alike",
        ),
        (
            GOOD | {"test_images": COLOUR[:, 1:], "test_labels": NUMBERS},
            "the test images are 3 x 5 x 5, the training images 3 x 6 x 5; make them alike",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told_in_one_line(save, arrays, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_arrays(save(**arrays))
    assert "\n" not in str(caught.value) and "set.npz" in str(caught.value)


def test_a_file_that_is_no_archive_is_refused_by_name(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"nonsense")
    with pytest.raises(
        UserError, match=r"cannot read .*set\.npz: File is not a zip file; expected arrays train_images"
    ):
        read_arrays(tmp_path / "set.npz")


def test_objects_in_an_archive_are_never_unpickled(save):
    path = save(train_images=COLOUR, train_labels=np.array([0, 1, 2] * 4, dtype=object))
    with pytest.raises(UserError, match=r"cannot read .*set\.npz: Object arrays cannot be loaded"):
        read_arrays(path)


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        (
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "test-images-idx3-ubyte",
            "test-labels-idx1-ubyte",
        ),
    ],
)
def test_a_folder_in_mnists_format_whatever_exactly_its_files_are_called(tmp_path, names):
    for name, array in zip(names, (COLOUR[..., 0], NUMBERS + 1, COLOUR[:3, ..., 0], NUMBERS[:3] + 1), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
    (tmp_path / "readme.txt").write_text("x")
    assert holds_arrays(tmp_path)
    pack = read_arrays(tmp_path)
    np.testing.assert_array_equal(pack.arrays["train_images"][:, 0], COLOUR[..., 0])
    np.testing.assert_array_equal(pack.arrays["test_labels"], NUMBERS[:3])
    assert pack.description["classes"] == ["1", "2", "3"]


def test_the_letters_of_emnist_are_turned_upright(tmp_path):
    (tmp_path / "emnist-letters-train-images-idx3-ubyte").write_bytes(idx(COLOUR[..., 0]))
    (tmp_path / "emnist-letters-train-labels-idx1-ubyte").write_bytes(idx(NUMBERS))
    np.testing.assert_array_equal(read_arrays(tmp_path).arrays["train_images"][:, 0], COLOUR[..., 0].transpose(0, 2, 1))


def test_two_sets_in_one_folder_are_not_mixed(tmp_path):
    for kind in ("letters", "digits"):
        (tmp_path / f"emnist-{kind}-train-images-idx3-ubyte").write_bytes(idx(COLOUR[..., 0]))
    with pytest.raises(
        UserError, match="has several files of train images: emnist-digits-train-images-idx3-ubyte, emnist-l"
    ):
        read_arrays(tmp_path)


def test_folders_of_pictures_and_folders_without_permission_hold_no_arrays(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "train-images.png").write_bytes(b"x")
    assert not holds_arrays(tmp_path)
    assert not holds_arrays(tmp_path / "nothing.npz")


def test_arrays_are_converted_once_and_again_when_the_file_changes(save, monkeypatch):
    first = load_dataset(save(**GOOD), validation=0)
    monkeypatch.setattr("thumbnet.data.datasets.read_arrays", lambda path: pytest.fail("converted again"))
    assert load_dataset(first.name, validation=0).fingerprint == first.fingerprint
    monkeypatch.undo()
    changed = load_dataset(save(**GOOD | {"train_images": COLOUR[::-1]}), validation=0)
    assert changed.fingerprint != first.fingerprint


def test_options_of_folders_are_refused_for_arrays(save):
    path = save(**GOOD)
    with pytest.raises(UserError, match=r"image_size is for folders of images; .*set\.npz comes as it was stored"):
        load_dataset(path, image_size=48)
    with pytest.raises(UserError, match=r"data_dir .* is for published sets; .*set\.npz is a path"):
        load_dataset(path, data_dir=path.parent)
    with pytest.raises(UserError, match=r"there is no file .*other\.npz; give a folder .* or an \.npz file of arrays"):
        load_dataset(path.with_name("other.npz"))


def test_a_run_on_arrays_finds_them_again_by_any_spelling(tmp_path):
    """Train, resume, evaluate and examine from the command line."""
    grey = RANDOM.integers(0, 60, (240, 24, 22), dtype=np.uint8)
    labels = np.arange(240) % 2
    grey[labels == 1, :6] += 150
    np.savez(tmp_path / "set.npz", images=grey, labels=labels, classes=np.array(["low", "high"]))
    described = json.loads(thumbnet("data", "set.npz", "--json", cwd=tmp_path).stdout)
    assert (described["classes"], described["image_size"]) == ({"low": 120, "high": 120}, [24, 22])

    trained = thumbnet("train", "set.npz", "--epochs", "1", "--threads", "1", "--no-report", "--json", cwd=tmp_path)
    run = json.loads(trained.stdout)["run"]
    assert Path(run).parts[:2] == ("runs", "set")
    (tmp_path / run / "summary.json").unlink()
    again = thumbnet("train", f"../{tmp_path.name}/set.npz", "--resume", "--no-report", "--json", cwd=tmp_path)
    assert again.returncode == 0 and json.loads(again.stdout)["run"] == run
    assert json.loads(thumbnet("evaluate", run, "--json", cwd=tmp_path).stdout)["images"] == 24
    thumbnet("doctor", "set.npz", cwd=tmp_path)
    assert (tmp_path / "doctor-set.html").is_file()

    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "set.npz").rename(tmp_path / "elsewhere" / "set.npz")
    lost = thumbnet("evaluate", run, "--views", "2", cwd=tmp_path)
    assert lost.returncode == 2 and "set.npz, which is gone; give " in lost.stderr
    found = thumbnet("evaluate", run, "--views", "2", "--data-dir", moved, "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["images"] == 24
