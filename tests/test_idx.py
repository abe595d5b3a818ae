"""IDX files and Fashion-MNIST: read by content, checked against their header and their published checksums."""

import gzip
import hashlib
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from thumbnet.data import idx
from thumbnet.data.idx import read_fashion_mnist, read_idx, read_mnist
from thumbnet.errors import UserError


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("array", [IMAGES, IMAGES[0], IMAGES[0, 0], IMAGES[:0]])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_arrays_are_read_whatever_the_name_says(array: np.ndarray, pack, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pack(encode(array)))
    received = read_idx(tmp_path / name)
    assert received.dtype == np.uint8
    np.testing.assert_array_equal(received, array)
    assert received.shape == array.shape


def test_content_that_differs_from_its_header_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "file", encode(IMAGES)
    assert "announces 24 values of shape (2, 3, 4) and has 23" in refusal(path, data[:-1])
    assert "announces 24 values of shape (2, 3, 4) and has more" in refusal(path, data + b"x")
    assert "announces 24 values of shape (2, 3, 4) and has more" in refusal(path, gzip.compress(data + b"x"))
    assert "ends within its header" in refusal(path, data[:9])


@pytest.mark.parametrize("start", [b"", b"<htm", b"\x00\x00\x0d\x03", b"\x00\x00\x08\x04", b"\x00\x00\x08\x00"])
def test_other_formats_and_types_are_refused(start: bytes, tmp_path: Path) -> None:
    assert "is no IDX file of unsigned bytes with 1 to 3 dimensions" in refusal(tmp_path / "file", start + bytes(32))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "file", bytearray(gzip.compress(encode(IMAGES)))
    assert "cannot read" in refusal(path, bytes(data[:-9]))
    data[-8] ^= 1  # the checksum
    assert "CRC" in refusal(path, bytes(data))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {tmp_path / 'absent'}.*check that it exists"):
        read_idx(tmp_path / "absent")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    claim = b"\x00\x00\x08\x03" + struct.pack(">3I", 1000, 1000, 1000)
    too_large = b"\x00\x00\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    bomb = gzip.compress(encode(IMAGES) + bytes(50 << 20), 1)
    tracemalloc.start()
    try:
        assert "has 0" in refusal(tmp_path / "file", claim)
        assert "at most" in refusal(tmp_path / "file", too_large)
        assert "has more" in refusal(tmp_path / "file", bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four small files, and their sums in place of the published ones."""
    files = {}
    for key, (name, _) in idx.FASHION_MNIST_FILES.items():
        shape = (5, 28, 28) if key.endswith("images") else (5,)
        content = encode(np.random.default_rng(len(files)).integers(0, 10, shape, dtype=np.uint8))
        packed = key == "train_images"
        (tmp_path / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
        files[key] = (name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(idx, "FASHION_MNIST_FILES", files)
    return tmp_path


def test_fashion_mnist_is_read_packed_or_plain(small_set: Path) -> None:
    pack = read_fashion_mnist(small_set)
    assert pack.description["classes"][9] == "Ankle boot"
    assert len(pack.description["classes"]) == 10
    assert {name: (array.shape, array.dtype.name) for name, array in pack.arrays.items()} == {
        "train_images": ((5, 1, 28, 28), "uint8"),
        "train_labels": ((5,), "int64"),
        "test_images": ((5, 1, 28, 28), "uint8"),
        "test_labels": ((5,), "int64"),
    }
    np.testing.assert_array_equal(
        pack.arrays["test_images"][:, 0], read_idx(small_set / "t10k-images-idx3-ubyte")
    )  # neither turned nor mirrored


def test_one_changed_pixel_is_refused_with_both_sums(small_set: Path) -> None:
    path = small_set / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_fashion_mnist(small_set)
    received = hashlib.sha256(content).hexdigest()
    assert f"{path} is not the published Fashion-MNIST: unpacked SHA-256 {received}, expected {expected};" in str(
        caught.value
    )


def test_a_missing_file_of_the_four_is_named(small_set: Path) -> None:
    (small_set / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"lacks t10k-labels-idx1-ubyte \(or t10k-labels-idx1-ubyte.gz\)"):
        read_fashion_mnist(small_set)


def test_mnist_is_told_from_fashion_mnist_whose_files_have_the_same_names(small_set: Path) -> None:
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz is not the published MNIST: unpacked SHA-256"):
        read_mnist(small_set)


def test_the_published_mnist_is_read() -> None:
    folder = Path(os.environ.get("THUMBNET_DATA", "")) / "mnist"
    if not folder.is_dir():
        pytest.skip("set THUMBNET_DATA to a folder that holds mnist with its four files")
    pack = read_mnist(folder)
    assert pack.arrays["train_images"].shape == (60_000, 1, 28, 28)
    assert np.bincount(pack.arrays["test_labels"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_published_fashion_mnist_is_read() -> None:
    folder = Path(os.environ.get("THUMBNET_DATA", "")) / "fashion-mnist"
    if not folder.is_dir():
        pytest.skip("set THUMBNET_DATA to a folder that holds fashion-mnist with its four files")
    pack = read_fashion_mnist(folder)
    assert pack.arrays["train_images"].shape == (60_000, 1, 28, 28)
    assert np.bincount(pack.arrays["test_labels"]).tolist() == [1_000] * 10
