"""Sets that come as arrays: .npz files as of MedMNIST and Keras, folders of MNIST's format, and what is refused."""

import gzip
import json
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import thumbnet
from thumbnet.data.arrays import holds_arrays, part_named, read_arrays
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
    assert part_named(name) == expected


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


INVALID = np.array([0x110000, 0xD800], np.uint32).view("<U1")  # beyond the last letter, and half of one
GOOD = {"train_images": COLOUR, "train_labels": NUMBERS}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": COLOUR}, "holds 'arr_0'; expected arrays train_images and train_labels, perhaps val_images"),
        ({}, "holds nothing; expected"),
        ({"train_images": COLOUR}, "has no training labels; expected arrays"),
        ({"test_images": COLOUR, "test_labels": NUMBERS}, "has no training images; expected"),
        (GOOD | {"test_images": COLOUR}, "has no test labels; expected"),
        (GOOD | {"x_train": COLOUR}, "has training images twice, 'x_train' being one of them; leave one out"),
        (GOOD | {"train_images": COLOUR / 255}, "training images are float64; give bytes from 0 to 255, numpy's uint8"),
        (GOOD | {"train_images": COLOUR.reshape(12, -1)}, "have shape (12, 90); expected N H W, N H W 3 or N 3 H W"),
        (GOOD | {"train_images": COLOUR[..., :2]}, "have shape (12, 6, 5, 2); expected N H W"),
        (GOOD | {"train_images": COLOUR[:0]}, "has no training image; add some, or store a set without these arrays"),
        (GOOD | {"train_labels": NUMBERS[:5]}, "has 12 training images and 5 training labels; give one for each"),
        (GOOD | {"train_labels": np.eye(3)[NUMBERS]}, "have shape (12, 3); give one label per image"),
        (GOOD | {"train_labels": NUMBERS / 2}, "training labels are float64; give whole numbers or names"),
        (GOOD | {"train_labels": np.arange(12)}, "its 12 training labels are all different; give the class of each image"),
        (GOOD | {"train_labels": NUMBERS * 0}, "has 1 class; a classifier needs 2 to 100,000"),
        (GOOD | {"classes": np.array(["a", "b"])}, "has the training label 2, which is not one of the 2 labels from 0 to 1; c"),
        (GOOD | {"classes": np.array(["a", "b", "a"])}, "its classes are no list of different names; give one text"),
        (GOOD | {"classes": np.array(["a", "b", "c", "d"])}, "has no training image of class 'd'; add some, or store a"),
        (
            GOOD | {"test_images": COLOUR, "test_labels": NUMBERS + 1},
            "has the test label 3, which is not one of the 3 labels from 0 to 2",
        ),
        (
            GOOD | {"test_images": COLOUR, "test_labels": NUMBERS.astype(str)},
            "test labels are <U21, those of the classes int64; make them alike",
        ),
        (
            GOOD | {"test_images": COLOUR[:, 1:], "test_labels": NUMBERS},
            "the test images are 3 x 5 x 5, the training images 3 x 6 x 5; make them alike",
        ),
        ({"images": np.zeros((4, 2, 5000), np.uint8), "labels": NUMBERS[:4]}, "4096 pixels a side are the most"),
        ({"images": COLOUR, "labels": INVALID[NUMBERS % 2]}, "training labels hold what is no letter; store them again"),
        (GOOD | {"classes": INVALID}, "its classes are no list of different names"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told_in_one_line(save, arrays, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_arrays(save(**arrays))
    assert "\n" not in str(caught.value) and "set.npz" in str(caught.value)


def test_a_file_that_is_no_archive_is_refused_by_name(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"cannot read .*set\.npz: File is not a zip file"):
        read_arrays(tmp_path / "set.npz")


def test_objects_in_an_archive_are_never_unpickled(save):
    path = save(train_images=COLOUR, train_labels=np.array([0, 1, 2] * 4, dtype=object))
    with pytest.raises(
        UserError, match=r"cannot read .*: 'train_labels' holds Python objects, which could run code; store n"
    ):
        read_arrays(path)


def test_arrays_with_other_names_are_not_looked_at(save):
    path = save(**GOOD, about=np.array([{"made by": "me"}], dtype=object), Classes=np.array(["a", "b", "c"]))
    assert read_arrays(path).description["classes"] == ["a", "b", "c"]


def test_a_member_that_is_no_array_is_refused_by_name(save):
    with zipfile.ZipFile(save(**GOOD), "a") as archive:
        archive.writestr("test_images.npy", b"nonsense")
    with pytest.raises(UserError, match=r"cannot read .*: 'test_images' is no array of NumPy"):
        read_arrays(Path(archive.filename))


def test_more_than_is_read_is_refused_before_it_is_unpacked(save, monkeypatch):
    monkeypatch.setattr("thumbnet.data.arrays.LARGEST_ARRAYS", 1 << 20)
    path = save(images=np.zeros((4, 600, 600), np.uint8), labels=NUMBERS[:4])
    with pytest.raises(UserError, match=r"cannot read .*: its arrays have more than the 1 MiB that are read"):
        read_arrays(path)
    with zipfile.ZipFile(save(**GOOD), "w") as archive:  # a small one of the same name behind it
        archive.writestr("images", bytes(2 << 20))
        archive.writestr("images.npy", b"x")
    with pytest.raises(UserError, match="its arrays have more than the 1 MiB"):
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
        UserError, match="has several files of training images: emnist-digits-train-images-idx3-ubyte, emnist-l"
    ):
        read_arrays(tmp_path)


def test_a_gzipped_file_beside_the_same_unpacked_is_the_same(tmp_path):
    """As torchvision leaves them."""
    for name, array in (("train-images-idx3-ubyte", COLOUR[..., 0]), ("train-labels-idx1-ubyte", NUMBERS)):
        (tmp_path / name).write_bytes(idx(array))
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    assert len(read_arrays(tmp_path).arrays["train_images"]) == 12


def test_an_idx_folder_that_lacks_a_part_says_which_file_is_expected(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(COLOUR[..., 0]))
    with pytest.raises(
        UserError, match="has no training labels; expected files train-images-idx3-ubyte and train-labels-"
    ):
        read_arrays(tmp_path)


def test_a_folder_of_pictures_stays_one_whatever_lies_beside_them(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"x")
    assert not holds_arrays(tmp_path)
    (tmp_path / "cats").rmdir()
    assert holds_arrays(tmp_path)
    assert not holds_arrays(tmp_path / "nothing.npz")
    (tmp_path / "train-images-idx3-ubyte.gz").rename(tmp_path / "t10k-images-idx3-ubyte.gz")
    assert not holds_arrays(tmp_path)  # a test split alone is no set


def test_a_whole_set_stays_one_beside_the_folder_of_its_runs(tmp_path):
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "runs").mkdir()
    assert holds_arrays(tmp_path)


def test_arrays_are_converted_once_and_again_when_the_file_changes(save, monkeypatch):
    first = load_dataset(save(**GOOD), validation=0)
    monkeypatch.setattr("thumbnet.data.cached_packs.read_arrays", lambda path: pytest.fail("converted again"))
    assert load_dataset(first.name, validation=0).fingerprint == first.fingerprint
    monkeypatch.undo()
    changed = load_dataset(save(**GOOD | {"train_images": COLOUR[::-1]}), validation=0)
    assert changed.fingerprint != first.fingerprint


def test_options_of_folders_are_refused_for_arrays(save):
    path = save(**GOOD)
    with pytest.raises(UserError, match=r"image_size is for images in files; .*set\.npz comes as it was stored"):
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
    assert thumbnet("doctor", "set.npz", cwd=tmp_path).returncode == 0
    assert (tmp_path / "doctor-set.npz.html").is_file()
    none = thumbnet("evaluate", run, "--split", "test", cwd=tmp_path)
    assert none.returncode == 2 and "set.npz has no test split; put one into /" in none.stderr

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set.npz").rename(tmp_path / "elsewhere" / "SET.NPZ")
    lost = thumbnet("evaluate", run, "--views", "2", cwd=tmp_path)
    assert lost.returncode == 2 and "set.npz, which is gone; say where they are now with --data-dir" in lost.stderr
    found = thumbnet("evaluate", run, "--views", "2", "--data-dir", "elsewhere/SET.NPZ", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["images"] == 24
