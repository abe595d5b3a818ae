"""Data sets as a user gets them: found, converted once, mapped, described; real CIFAR where it is there."""

import hashlib
import json
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from test_cifar import write_cifar10
from thumbnet.cache import cache_folder
from thumbnet.cli.data import describe, lines
from thumbnet.data import datasets, idx, names, sources
from thumbnet.data.balance import few_images
from thumbnet.data.cifar import read_cifar10
from thumbnet.data.datasets import load_dataset
from thumbnet.data.embedded import FILE
from thumbnet.data.names import is_path
from thumbnet.data.pack import Pack, read_pack, verify_pack, write_pack
from thumbnet.errors import UserError
from thumbnet.recipes import recipe
from thumbnet.runs.run import Run


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten pictures, one red, one blue, each with a spot of its own."""
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(10):
            picture = Image.new("RGB", (40, 30), colour)
            picture.paste((colour[0], 20 * index, colour[2]), (12, 16, 28, 28))
            picture.save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def small_pack():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    return Pack({"train_images": images, "train_labels": np.array([0, 1])}, {"classes": ["a", "b"], "note": "é"})


def test_a_pack_comes_back_as_it_was_written(tmp_path):
    write_pack(tmp_path / "x.safetensors", small_pack())
    found = read_pack(tmp_path / "x.safetensors")
    for name, array in small_pack().arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    assert found.description["note"] == "é"


def test_a_pack_with_a_flipped_bit_does_not_verify(tmp_path):
    path = tmp_path / "x.safetensors"
    write_pack(path, small_pack())
    verify_pack(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors: train_\w+ has SHA-256"):
        verify_pack(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 100])
def test_a_file_that_is_no_pack_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors cannot be read .*; delete it"):
        read_pack(tmp_path / "x.safetensors")


def test_fashion_mini_is_balanced_real_and_small():
    data = load_dataset("fashion-mini", validation=0)
    assert FILE.stat().st_size < 4_000_000
    assert torch.bincount(data.train.labels).tolist() == [600] * 10
    assert torch.bincount(data.test.unlock().labels).tolist() == [100] * 10
    assert data.image_size == (28, 28) and data.channels == 1
    assert data.classes[9] == "Ankle boot"
    trousers = data.train.images[data.train.labels == 1].float().mean(0)[0]
    assert trousers[2:26, 14].mean() < trousers[2:26, 11].mean()  # upright: a gap between the legs, below the waist
    assert trousers[24, 14] < trousers[3, 14]


def test_an_unknown_set_is_refused_with_the_nearest_name():
    with pytest.raises(
        UserError, match=r"no folder 'cifar-10' here, and unknown data set 'cifar-10'; did you mean 'cifar10'\?"
    ):
        load_dataset("cifar-10")
    with pytest.raises(UserError, match=r"there is no folder \./nowhere"):
        load_dataset("./nowhere")


@pytest.mark.parametrize(
    ("name", "path"), [("cifar10", False), ("a/b", True), ("./x", True), ("x.npz", True), ("nothing", False)]
)
def test_a_path_is_told_from_a_name(name, path):
    assert is_path(name) is path


def test_a_folder_is_converted_once_and_again_when_a_file_changes(cache, folder, monkeypatch):
    first = load_dataset(folder, validation=0.2)
    assert first.classes == ("blue", "red")
    assert (len(first.train), len(first.validation), first.test) == (16, 4, None)
    assert first.train.images[first.train.labels == 1][0, :, 0, 0].tolist() == [255, 0, 0]

    from thumbnet.data import pictures as reader

    monkeypatch.setattr(reader, "read_pictures", lambda *words, **more: pytest.fail("converted again"))
    assert load_dataset(folder).fingerprint == first.fingerprint
    monkeypatch.undo()
    monkeypatch.setenv("THUMBNET_CACHE", str(cache))
    Image.new("RGB", (40, 30), (0, 255, 0)).save(folder / "red" / "10.png")
    assert len(load_dataset(folder, validation=0).train) == 21


def test_a_sets_own_validation_split_is_kept(cache, folder):
    for split in ("train", "val"):
        (folder.parent / "both" / split).mkdir(parents=True)
        for name in ("red", "blue"):
            (folder.parent / "both" / split / name).symlink_to(folder / name)
    data = load_dataset(folder.parent / "both", validation=0.5)
    assert (len(data.train), len(data.validation)) == (20, 20)


def test_a_cache_that_cannot_be_written_costs_time_and_not_the_run(tmp_path, folder, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "file"))
    assert len(load_dataset(folder, validation=0).train) == 20


def test_without_files_offline_says_how_to_provide_them(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("THUMBNET_DATA", raising=False)
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz"):
        load_dataset("cifar10", offline=True)
    with pytest.raises(UserError, match=r"the data folder .*absent does not exist"):
        load_dataset("cifar10", data_dir=tmp_path / "absent")
    with pytest.raises(
        UserError, match=r"holds no cifar10: looked for the folder cifar-10-batches-py or cifar-10-python"
    ):
        load_dataset("cifar10", data_dir=tmp_path)


def test_the_cache_lies_where_the_environment_says(monkeypatch):
    monkeypatch.delenv("THUMBNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/thumbnet")


# ------------------------------------------------------------------------------------- real CIFAR

# Means and standard deviations of the channels over the 50,000 training images, as the field knows them.
CIFAR_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "."])
def test_mnist_is_found_where_torchvision_puts_it_and_not_taken_for_fashion_mnist(tmp_path, cache, monkeypatch, folder):
    """Small files with the four names, and their sums in place of the published ones."""
    sums = {}
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for key, (name, _) in idx.MNIST_FILES.items():
        values = np.arange(20 * 28 * 28, dtype=np.int64).reshape(20, 28, 28).astype(np.uint8)
        values = values if key.endswith("images") else np.arange(20, dtype=np.uint8) % 10
        content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
        (tmp_path / folder / name).write_bytes(content)
        sums[key] = (name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(idx, "MNIST_FILES", sums)
    monkeypatch.setattr(sources, "MNIST_FILES", sums)
    monkeypatch.setenv("THUMBNET_DATA", str(tmp_path))
    data = load_dataset("mnist", validation=0)
    assert (data.classes, len(data.train), data.image_size) == (tuple("0123456789"), 20, (28, 28))
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(UserError, match="downloads are switched off"):
        load_dataset("fashion-mnist", offline=True)
    if folder == ".":  # named as the place of the files, they are what is meant
        with pytest.raises(UserError, match="is not the published Fashion-MNIST: unpacked SHA-256"):
            load_dataset("fashion-mnist", data_dir=tmp_path)


def test_a_path_object_is_a_path_also_where_a_published_set_has_its_name(cache, folder, monkeypatch):
    renamed = folder.rename(folder.with_name("mnist"))
    monkeypatch.chdir(renamed.parent)
    data = load_dataset(Path("mnist"), validation=0)
    assert (data.name, data.classes) == ("./mnist", ("blue", "red"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_real_cifar_has_its_counts_classes_and_statistics(cifar_folder, name):
    data = load_dataset(name, data_dir=cifar_folder, validation=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (40_000, 10_000, 10_000)
    kinds = len(data.classes)
    assert torch.bincount(data.development.labels).tolist() == [50_000 // kinds] * kinds
    assert torch.bincount(data.validation.labels[data.validation.rows]).tolist() == [10_000 // kinds] * kinds
    from thumbnet.training.preparation import normalization

    found = normalization(recipe("general"), data.development)
    mean, std = CIFAR_STATISTICS[name]
    assert found["mean"] == pytest.approx(mean, abs=1e-4)
    assert found["std"] == pytest.approx(std, abs=1e-4)


def test_real_cifar_is_upright(cifar_folder):
    """Ships and aeroplanes have sky above: the mean picture is bluer and brighter at the top than at the bottom."""
    data = load_dataset("cifar10", data_dir=cifar_folder, validation=0)
    outdoors = (data.train.labels == data.classes.index("ship")) | (data.train.labels == data.classes.index("truck"))
    picture = data.train.images[outdoors].float().mean(0)  # 3 H W
    assert picture[2, :8].mean() > picture[2, -8:].mean() + 20


def test_a_converted_set_is_mapped_and_found_again_without_its_files(cifar_folder, cache, monkeypatch):
    load_dataset("cifar10", data_dir=cifar_folder)
    monkeypatch.delenv("THUMBNET_DATA")
    start = time.perf_counter()
    data = load_dataset("cifar10", offline=True, validation=0)
    print(f"mapped in {time.perf_counter() - start:.3f} s")
    assert data.facts["location"] == f"the cache, converted from {(cifar_folder / 'cifar-10-batches-py').resolve()}"
    assert len(data.train) == 50_000
    pack = read_pack(Path(data.facts["pack"]))
    assert json.dumps(pack.description["classes"])
    assert datasets.fingerprint(pack.description["sha256"]) == data.fingerprint


@pytest.fixture
def small_cifar(tmp_path, cache, monkeypatch):
    """Two sets in the layout of CIFAR-10, of 20 and 4 images as if it were published so: (the one, the other)."""
    monkeypatch.setitem(names.SPECS, "cifar10", replace(names.SPECS["cifar10"], train=20, test=4))
    monkeypatch.delenv("THUMBNET_DATA", raising=False)
    one, other = (write_cifar10(tmp_path / name) for name in ("CIFAR-10", "ciFAIR-10"))
    (other / "test_batch").write_bytes((other / "data_batch_1").read_bytes())
    return one, other


def test_a_folder_named_once_does_not_stand_in_where_another_pack_is_known(small_cifar, monkeypatch):
    one, other = small_cifar
    monkeypatch.setenv("THUMBNET_DATA", str(one))
    published = load_dataset("cifar10")
    monkeypatch.delenv("THUMBNET_DATA")
    named = load_dataset("cifar10", data_dir=other)  # the newest pack
    assert named.fingerprint != published.fingerprint and named.facts["location"] == str(other)
    found = load_dataset("cifar10", offline=True)
    assert found.fingerprint == published.fingerprint
    assert found.facts["location"] == f"the cache, converted from {one}"


def test_a_set_from_the_cache_says_what_it_was_converted_from(small_cifar, tmp_path):
    _, other = small_cifar
    named = load_dataset("cifar10", data_dir=other)
    assert not any("the cache" in note for note in named.notes)
    found = load_dataset("cifar10", offline=True)
    assert found.fingerprint == named.fingerprint
    assert found.facts["location"] == f"the cache, converted from {other}"
    assert f"location     {found.facts['location']}" in lines(describe(found))
    told = f"no files of cifar10 were named or found; it is taken from the cache, converted from {other}"
    assert found.notes[0] == told
    run = Run.create(tmp_path / "run", recipe("general"), found, {})
    assert run.data["location"] == found.facts["location"]


def test_a_run_on_a_set_from_the_cache_finds_it_where_it_was_converted_from(small_cifar, tmp_path, monkeypatch):
    one, other = small_cifar
    load_dataset("cifar10", data_dir=other)
    found = load_dataset("cifar10", offline=True)
    run = Run.create(tmp_path / "run", recipe("general"), found, {})
    monkeypatch.setenv("THUMBNET_DATA", str(one))
    assert run.load_data().fingerprint == found.fingerprint != load_dataset("cifar10").fingerprint


def test_a_downloaded_set_is_taken_from_the_cache_without_a_note(small_cifar, cache):
    one, other = small_cifar
    (cache / "downloads").mkdir(parents=True)
    downloaded = load_dataset("cifar10", data_dir=one.rename(cache / "downloads" / one.name))
    load_dataset("cifar10", data_dir=other)
    found = load_dataset("cifar10", offline=True)
    assert found.fingerprint == downloaded.fingerprint
    assert not any("the cache" in note for note in found.notes)


def test_a_pack_of_an_older_version_is_taken_from_the_cache_as_before(small_cifar, cache):
    one, other = small_cifar
    older = read_cifar10(one)  # without a word of where it was
    write_pack(cache / "packs" / "cifar10-v1-0123456789abcdef.safetensors", older)
    load_dataset("cifar10", data_dir=other)
    found = load_dataset("cifar10", offline=True)
    assert (found.facts["location"], len(found.test)) == ("the cache", 4)
    assert (found.development.images.numpy() == older.arrays["train_images"]).all()


def test_classes_with_few_images_are_named_and_no_others():
    assert load_dataset("fashion-mini").notes == []
    assert few_images({"cat": 20}, "train") is None
    assert few_images({"cat": 19, "dog": 20}, "test") == "1 class has fewer than 20 test images: cat"
    told = few_images({str(number): 19 for number in range(6)}, "train")
    assert told == "6 classes have fewer than 20 training images: 0, 1, 2, 3, 4 ..."
