"""CIFAR's readers: upright images, checked files, archives that are streamed and never unpacked to the disk."""

import gzip
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thumbnet.data import cifar
from thumbnet.data.cifar import read_cifar10, read_cifar100
from thumbnet.data.pack import Pack
from thumbnet.errors import UserError

NAMES_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FILES_10 = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def batch(count: int, seed: int, classes: int = 10) -> dict[str, object]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count).tolist()
    return {"data": random.integers(0, 256, (count, 3072), dtype=np.uint8), "labels": labels}


def write(path: Path, content: object, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))


def write_cifar10(folder: Path, count: int = 4, protocol: int = 2) -> Path:
    """A small CIFAR-10 in the published layout; every file has `count` images."""
    place = folder / "cifar-10-batches-py"
    for seed, name in enumerate(FILES_10):
        write(place / name, {key.encode(): value for key, value in batch(count, seed).items()}, protocol)
    write(place / "batches.meta", {b"label_names": [name.encode() for name in NAMES_10]}, protocol)
    return place


def write_cifar100(folder: Path, count: int = 4) -> Path:
    place = folder / "cifar-100-python"
    for seed, name in enumerate(("train", "test")):
        content = batch(count, seed, 100)
        content["fine_labels"] = content.pop("labels")
        content["coarse_labels"] = [label // 5 for label in content["fine_labels"]]
        write(place / name, content)
    coarse = [f"group {number}" for number in range(20)]
    write(place / "meta", {"fine_label_names": [f"class {n}" for n in range(100)], "coarse_label_names": coarse})
    return place


def pack_archive(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, folder.name)
    return path


def refusal(read: Callable[[Path], Pack], source: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_equal(first: Pack, second: Pack) -> None:
    assert first.description == second.description
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


def test_cifar10_is_read_in_the_order_of_its_batches(tmp_path: Path) -> None:
    pack = read_cifar10(write_cifar10(tmp_path))
    assert pack.description == {"classes": NAMES_10}
    assert {name: (array.shape, array.dtype.name) for name, array in pack.arrays.items()} == {
        "train_images": ((20, 3, 32, 32), "uint8"),
        "train_labels": ((20,), "int64"),
        "test_images": ((4, 3, 32, 32), "uint8"),
        "test_labels": ((4,), "int64"),
    }
    for seed in range(5):
        part = slice(4 * seed, 4 * seed + 4)
        expected = batch(4, seed)
        np.testing.assert_array_equal(pack.arrays["train_images"][part].reshape(4, 3072), expected["data"])
        assert pack.arrays["train_labels"][part].tolist() == expected["labels"]
    np.testing.assert_array_equal(pack.arrays["test_images"].reshape(4, 3072), batch(4, 5)["data"])


def test_cifar100_has_coarse_labels_too(tmp_path: Path) -> None:
    pack = read_cifar100(write_cifar100(tmp_path))
    assert len(pack.description["classes"]) == 100
    assert pack.description["coarse_classes"][19] == "group 19"
    for split in ("train", "test"):
        assert pack.arrays[f"{split}_coarse_labels"].dtype == np.int64
        assert (pack.arrays[f"{split}_coarse_labels"] == pack.arrays[f"{split}_labels"] // 5).all()


def test_images_are_upright_and_not_mirrored(tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    row = np.zeros((1, 3072), np.uint8)
    row[0, 0] = 255  # the first byte: red, top left
    row[0, 1024 + 31] = 200  # green, end of the first line: top right
    row[0, 2048 + 31 * 32] = 100  # blue, start of the last line: bottom left
    write(place / "test_batch", {"data": row, "labels": [0]})
    image = read_cifar10(place).arrays["test_images"][0]
    assert image[:, 0, 0].tolist() == [255, 0, 0]
    assert image[:, 0, 31].tolist() == [0, 200, 0]
    assert image[:, 31, 0].tolist() == [0, 0, 100]
    assert np.count_nonzero(image) == 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_gives_the_same_set(protocol: int, tmp_path: Path) -> None:
    expected = read_cifar10(write_cifar10(tmp_path / "reference"))
    assert_equal(read_cifar10(write_cifar10(tmp_path, protocol=protocol)), expected)


def test_folder_its_parent_and_the_archive_give_the_same_set(tmp_path: Path) -> None:
    for write_set, read in ((write_cifar10, read_cifar10), (write_cifar100, read_cifar100)):
        place = write_set(tmp_path)
        assert_equal(read(place), read(tmp_path))
        assert_equal(read(place), read(pack_archive(place, tmp_path / "set.tar.gz")))


def test_an_archive_is_not_unpacked_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack_archive(write_cifar10(tmp_path / "made"), tmp_path / "set.tar.gz")
    shutil.rmtree(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    read_cifar10(archive)
    assert list(tmp_path.rglob("*")) == [archive]


def test_labels_may_be_arrays_or_numpy_scalars(tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    expected = read_cifar10(place)
    content = batch(4, 0)
    for labels in (np.array(content["labels"], ">i2"), [np.int64(label) for label in content["labels"]]):
        write(place / "data_batch_1", content | {"labels": labels})
        assert_equal(read_cifar10(place), expected)


def test_other_numbers_of_images_and_classes_are_accepted(tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    write(place / "data_batch_3", batch(9, 7, 3))
    write(place / "batches.meta", {"label_names": [*NAMES_10, "eleventh"]})
    pack = read_cifar10(place)
    assert len(pack.arrays["train_images"]) == len(pack.arrays["train_labels"]) == 25
    assert len(pack.description["classes"]) == 11


@pytest.mark.parametrize("name", [*FILES_10, "batches.meta"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    (place / name).rename(place / f"{name}_renamed")
    message = refusal(read_cifar10, place)
    assert f"{place} lacks {name}; " in message
    assert "unpack the published archive" in message
    assert f"lacks {name}; " in refusal(read_cifar10, pack_archive(place, tmp_path / "set.tar.gz"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    message = refusal(read_cifar100, tmp_path / "nowhere")
    assert message.startswith(f"{tmp_path / 'nowhere'} does not exist; give the folder cifar-100-python")


ROWS = batch(4, 0)["data"]
LABELS = batch(4, 0)["labels"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            {"data": ROWS[:, :-1], "labels": LABELS},
            "has uint8 of shape (4, 3071) as its data, expected uint8 rows of 3072",
        ),
        ({"data": ROWS.reshape(-1, 3, 32, 32), "labels": LABELS}, "has uint8 of shape (4, 3, 32, 32) as its data"),
        ({"data": ROWS.astype("f4"), "labels": LABELS}, "has float32 of shape (4, 3072) as its data"),
        ({"data": ROWS.astype("i1"), "labels": LABELS}, "has int8 of shape (4, 3072) as its data"),
        ({"data": ROWS.tobytes(), "labels": LABELS}, "has bytes as its data"),
        ({"data": ROWS[:3], "labels": LABELS}, "has 4 'labels' for 3 images"),
        ({"data": ROWS, "labels": LABELS[:3]}, "has 3 'labels' for 4 images"),
        ({"data": ROWS, "labels": [0, 1, 2, 10]}, "has the label 10 as 'labels', expected 0 to 9"),
        ({"data": ROWS, "labels": [0, 1, 2, -1]}, "has the label -1 as 'labels', expected 0 to 9"),
        ({"data": ROWS, "labels": [0, 1, 2, 2**63]}, f"has the label {2**63} as 'labels', expected 0 to 9"),
        ({"data": ROWS, "labels": [0, 1, 2, True]}, "has other things than whole numbers as 'labels'"),
        ({"data": ROWS, "labels": [0, 1, 2, 3.0]}, "has other things than whole numbers as 'labels'"),
        ({"data": ROWS, "labels": np.zeros((4, 1), int)}, "has other things than whole numbers as 'labels'"),
        ({"data": ROWS, "labels": np.zeros(4)}, "has other things than whole numbers as 'labels'"),
        ({"data": ROWS, "fine_labels": LABELS}, "lacks the key 'labels', it has 'data, fine_labels'"),
        ({"labels": LABELS}, "lacks the key 'data', it has 'labels'"),
        ({"data": ROWS[:0], "labels": []}, "has no images"),
        ([1, 2, 3], "holds a list, expected a dictionary"),
    ],
)
def test_a_wrong_batch_is_refused_by_name(content: object, reason: str, tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    write(place / "data_batch_3", content)
    message = refusal(read_cifar10, place)
    assert message.startswith(f"{place}: data_batch_3 {reason}")
    assert ";" in message  # what to do follows


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"label_names": []}, "has no list of names under 'label_names'"),
        ({"label_names": "abc"}, "has no list of names under 'label_names'"),
        ({"label_names": [1, 2]}, "has no list of names under 'label_names'"),
        ({"label_names": ["cat", "cat"]}, "names a class twice under 'label_names'"),
        ({"fine_label_names": ["cat"]}, "lacks the key 'label_names'"),
    ],
)
def test_a_wrong_meta_file_is_refused_by_name(content: object, reason: str, tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    write(place / "batches.meta", content)
    assert refusal(read_cifar10, place).startswith(f"{place}: batches.meta {reason}")


def test_coarse_labels_are_checked_against_their_own_names(tmp_path: Path) -> None:
    place = write_cifar100(tmp_path)
    content = pickle.loads((place / "test").read_bytes())
    write(place / "test", content | {"coarse_labels": [0, 1, 2, 20]})
    assert "test has the label 20 as 'coarse_labels', expected 0 to 19" in refusal(read_cifar100, place)


def test_a_truncated_batch_is_refused_by_name(tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    data = (place / "data_batch_2").read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        (place / "data_batch_2").write_bytes(data[:length])
        assert f"{place}: data_batch_2 is not read: " in refusal(read_cifar10, place)


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    with open(place / "test_batch", "r+b") as file:
        file.truncate(cifar.LARGEST_FILE + 1)  # a hole: takes no room on the disk
    assert f"test_batch has {cifar.LARGEST_FILE + 1} bytes, where at most" in refusal(read_cifar10, place)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = pack_archive(write_cifar10(tmp_path), tmp_path / "set.tar.gz")
    data = archive.read_bytes()
    for length in (2, 20, len(data) // 2, len(data) - 1):
        archive.write_bytes(data[:length])
        assert f"{archive} is damaged or incomplete" in refusal(read_cifar10, archive)
    archive.write_bytes(b"<html>")
    assert f"{archive} is no .tar.gz archive" in refusal(read_cifar10, archive)


def test_one_changed_pixel_in_an_archive_is_noticed(tmp_path: Path) -> None:
    archive = pack_archive(write_cifar10(tmp_path, protocol=4), tmp_path / "set.tar.gz")
    tar = gzip.decompress(archive.read_bytes())
    pixel = ROWS[0].tobytes()
    changed = tar.replace(pixel, bytes([pixel[0] ^ 1]) + pixel[1:])
    assert changed != tar
    stored = bytearray(gzip.compress(changed, 0))
    stored[-8:] = gzip.compress(tar, 0)[-8:]  # the checksum of the unchanged content
    archive.write_bytes(stored)
    assert "CRC" in refusal(read_cifar10, archive)


def test_only_plain_files_of_an_archive_are_read(tmp_path: Path) -> None:
    place = write_cifar10(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("text")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        path = tmp_path / "set.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            member = tarfile.TarInfo(f"{place.name}/test_batch")
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
        assert f"{path}: test_batch is no plain file" in refusal(read_cifar10, path)


def test_names_that_climb_out_of_an_archive_are_not_used(tmp_path: Path) -> None:
    archive = tmp_path / "set.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name in ("../test_batch", "/cifar-10-batches-py/test_batch", "other/cifar-10-batches-py/test_batch"):
            member = tarfile.TarInfo(name)
            member.size = 4
            file.addfile(member, io.BytesIO(b"data"))
    assert "lacks batches.meta, data_batch_1" in refusal(read_cifar10, archive)
    assert list(tmp_path.rglob("*")) == [archive]


def test_an_archive_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "LARGEST_ARCHIVE", 1 << 20)
    archive = tmp_path / "set.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        member = tarfile.TarInfo("zeros")
        member.size = 4 << 20
        file.addfile(member, io.BytesIO(bytes(member.size)))
    assert f"unpacks to over {1 << 20} bytes" in refusal(read_cifar10, archive)


SMALL = pickle.dumps({b"data": batch(2, 0)["data"], b"labels": [3, 7], b"filenames": [b"a.png", b"b.png"]}, 2)
# The pixels make up nearly all bytes, and changing them proves little: half of the changes go where the opcodes are.
STRUCTURE = [position for position in range(len(SMALL)) if position < 240 or position > len(SMALL) - 120]
POSITIONS = st.one_of(st.sampled_from(STRUCTURE), st.integers(0, len(SMALL) - 1))
KINDS = st.sampled_from(["set", "insert", "delete", "cut"])
CHANGES = st.lists(st.tuples(POSITIONS, st.integers(0, 255), KINDS), min_size=1, max_size=4)


def mutated(changes: list[tuple[int, int, str]]) -> bytes:
    data = bytearray(SMALL)
    for position, byte, change in changes:
        position = min(position, len(data))
        if change == "set":
            data[position : position + 1] = bytes([byte])
        elif change == "insert":
            data[position:position] = bytes([byte])
        elif change == "delete":
            del data[position : position + 1]
        else:
            del data[position : position + byte]
    return bytes(data)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_a_damaged_batch_is_refused_or_read_as_a_sound_set(changes: list, tmp_path: Path) -> None:
    place = tmp_path / "cifar-10-batches-py"
    if not place.exists():
        write_cifar10(tmp_path)
    (place / "test_batch").write_bytes(mutated(changes))
    result: Pack | str
    try:
        result = read_cifar10(place)
    except UserError as error:
        result = str(error)
    if isinstance(result, str):
        assert result.startswith(f"{place}: test_batch ")
        assert "\n" not in result
    else:
        images, labels = result.arrays["test_images"], result.arrays["test_labels"]
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert images.shape == (len(labels), 3, 32, 32)
        assert set(labels.tolist()) <= set(range(10))


@pytest.fixture
def published() -> Path:
    folder = os.environ.get("THUMBNET_DATA")
    if not folder:
        pytest.skip("set THUMBNET_DATA to the folder that holds cifar-10-batches-py and cifar-100-python")
    return Path(folder)


def test_the_published_cifar10_is_read(published: Path) -> None:
    pack = read_cifar10(published)
    assert pack.description["classes"] == NAMES_10
    train = pack.arrays["train_images"]
    assert train.shape == (50_000, 3, 32, 32)
    assert pack.arrays["test_images"].shape == (10_000, 3, 32, 32)
    assert np.bincount(pack.arrays["train_labels"]).tolist() == [5_000] * 10
    assert np.bincount(pack.arrays["test_labels"]).tolist() == [1_000] * 10
    # the means known from the literature, e.g. https://github.com/davidcpage/cifar10-fast
    np.testing.assert_allclose(train.mean((0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_the_published_cifar10_is_upright(published: Path) -> None:
    """Sky and water make the upper half of ships and airplanes the brighter one, in blue above all."""
    pack = read_cifar10(published)
    outside = pack.arrays["train_images"][np.isin(pack.arrays["train_labels"], (0, 8))]
    assert outside[:, 2, :8].mean() > outside[:, 2, -8:].mean() + 10


def test_the_published_cifar100_is_read(published: Path) -> None:
    pack = read_cifar100(published)
    assert pack.description["classes"][:2] == ["apple", "aquarium_fish"]
    assert pack.description["coarse_classes"][:2] == ["aquatic_mammals", "fish"]
    assert pack.arrays["train_images"].shape == (50_000, 3, 32, 32)
    assert np.bincount(pack.arrays["train_labels"]).tolist() == [500] * 100
    assert np.bincount(pack.arrays["test_coarse_labels"]).tolist() == [500] * 20
    pairs = set(zip(pack.arrays["train_labels"].tolist(), pack.arrays["train_coarse_labels"].tolist(), strict=True))
    assert len(pairs) == 100  # each class belongs to one group
