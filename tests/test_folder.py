"""Folders of images: layouts, class order, what is passed over, broken files, signatures, and every refusal."""

import json
import os
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from thumbnet.data import pictures as pictures_module
from thumbnet.data.folder import list_folder
from thumbnet.data.pictures import pictures_signature, read_pictures, room_for
from thumbnet.errors import UserError


def read_folder(folder, *, image_size, **options):
    return read_pictures(list_folder(folder), image_size=image_size, **options)


def folder_signature(folder, image_size, **options):
    return pictures_signature(list_folder(folder), image_size, **options)


def paint(path, value, size=(4, 4)):
    """An image of one grey value, so that a decoded row tells which file it came from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def build(root, **values):
    """Write images: a path below `root`, without its ending and with __ for /, to a grey value."""
    for name, value in values.items():
        paint(root / f"{name.replace('__', '/')}.png", value)
    return root


def break_file(path):
    path.write_bytes(path.read_bytes()[:40])


def values(pack, split="train"):
    """The grey value of each row."""
    images = pack.arrays[f"{split}_images"]
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


@pytest.fixture
def pets(tmp_path):
    return build(tmp_path / "pets", cat__1=10, cat__2=20, dog__1=30)


@pytest.fixture
def split_pets(tmp_path):
    root = tmp_path / "pets"
    build(root, train__cat__1=1, train__dog__1=2, train__emu__1=3, train__emu__2=4)
    return build(root, test__emu__1=5, test__cat__1=6, val__dog__9=7)


# --- layouts and labels --------------------------------------------------------------------------------------------


def test_class_folders_become_one_training_split(pets):
    pack = read_folder(pets, image_size=4)
    assert set(pack.arrays) == {"train_images", "train_labels"}
    images, labels = pack.arrays["train_images"], pack.arrays["train_labels"]
    assert (images.shape, images.dtype, images.flags.c_contiguous) == ((3, 3, 4, 4), np.uint8, True)
    assert (labels.tolist(), labels.dtype) == ([0, 0, 1], np.int64)
    assert values(pack) == [10, 20, 30]
    assert pack.description == {
        "classes": ["cat", "dog"],
        "ignored": [],
        "broken": [],
        "files": {"train": ["cat/1.png", "cat/2.png", "dog/1.png"]},
    }
    assert json.loads(json.dumps(pack.description)) == pack.description


def test_split_folders_become_splits_matched_by_class_name(split_pets):
    pack = read_folder(split_pets, image_size=4)
    assert pack.description["classes"] == ["cat", "dog", "emu"]
    assert {split: values(pack, split) for split in ["train", "validation", "test"]} == {
        "train": [1, 2, 3, 4],
        "validation": [7],
        "test": [6, 5],
    }
    assert pack.arrays["test_labels"].tolist() == [0, 2]  # no dog there, and emu is still 2
    assert pack.arrays["validation_labels"].tolist() == [1]
    assert pack.description["files"]["test"] == ["test/cat/1.png", "test/emu/1.png"]
    assert pack.description["files"]["validation"] == ["val/dog/9.png"]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val", "VALID"])
def test_every_usual_name_of_the_validation_folder_is_known(split_pets, name):
    (split_pets / "val").rename(split_pets / name)
    assert read_folder(split_pets, image_size=4).arrays["validation_labels"].tolist() == [1]


def test_training_and_testing_are_splits_not_classes(split_pets):
    (split_pets / "train").rename(split_pets / "training")
    (split_pets / "test").rename(split_pets / "testing")
    pack = read_folder(split_pets, image_size=4)
    assert pack.description["classes"] == ["cat", "dog", "emu"]
    assert len(pack.arrays["test_labels"]) == 2


@pytest.mark.parametrize("beside", [[], ["notes__1"]])
def test_a_train_folder_needs_no_other_split(split_pets, beside):
    shutil.rmtree(split_pets / "val")
    shutil.rmtree(split_pets / "test")
    build(split_pets, **dict.fromkeys(beside, 9))
    pack = read_folder(split_pets, image_size=4)
    assert pack.description["classes"] == ["cat", "dog", "emu"]
    assert set(pack.arrays) == {"train_images", "train_labels"}


@pytest.mark.parametrize(("name", "split"), [("test", "test"), ("Val", "validation")])
def test_a_split_may_lie_beside_class_folders_where_it_holds_their_names(pets, name, split):
    before = read_folder(pets, image_size=4)
    build(pets, **{f"{name}__dog__7": 40, f"{name}__cat__8": 50})
    pack = read_folder(pets, image_size=4)
    assert pack.description["classes"] == ["cat", "dog"] and values(pack, split) == [50, 40]
    assert (pack.arrays["train_images"] == before.arrays["train_images"]).all()
    (pets / name / ".DS_Store").touch()
    (pets / name / "about.txt").touch()
    assert read_folder(pets, image_size=4).description["classes"] == ["cat", "dog"]
    build(pets, **{f"{name}__Cow__1": 60})
    with pytest.raises(UserError, match=r"has a class that train lacks: unknown class 'Cow'"):
        read_folder(pets, image_size=4)


def test_a_folder_named_test_without_any_of_the_classes_is_a_class(pets):
    build(pets, test__1=40, test__deeper__2=50)
    assert read_folder(pets, image_size=4).description["classes"] == ["cat", "dog", "test"]


def test_images_directly_in_a_lone_train_folder_are_refused(tmp_path):
    assert f"lie directly in {tmp_path / 'train'}, without class folders" in refusal(build(tmp_path, train__1=1))


def test_a_class_named_train_is_a_class(tmp_path):
    root = build(tmp_path, car__1=1, plane__1=2, train__1=3)
    assert read_folder(root, image_size=4).description["classes"] == ["car", "plane", "train"]


def test_classes_and_files_are_in_natural_order(tmp_path):
    for name in ["10", "2", "1", "100", "Ant", "bee"]:
        paint(tmp_path / name / "11.png", 11)
        paint(tmp_path / name / "9.png", 9)
    pack = read_folder(tmp_path, image_size=4)
    assert pack.description["classes"] == ["1", "2", "10", "100", "Ant", "bee"]
    assert values(pack) == [9, 11] * 6
    assert pack.arrays["train_labels"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_images_may_lie_deeper_below_their_class(tmp_path):
    root = build(tmp_path, cat__tabby__young__1=1, cat__2=2, dog__1=3)
    pack = read_folder(root, image_size=4)
    assert pack.description["files"]["train"] == ["cat/2.png", "cat/tabby/young/1.png", "dog/1.png"]
    assert pack.arrays["train_labels"].tolist() == [0, 0, 1]


def test_images_of_any_size_and_kind_become_square_colour(tmp_path):
    paint(tmp_path / "a" / "wide.jpg", 50, (60, 20))
    paint(tmp_path / "b" / "tall.webp", 50, (7, 90))
    Image.new("LA", (5, 5), (0, 0)).save(tmp_path / "b" / "clear.png")
    pack = read_folder(tmp_path, image_size=6)
    assert pack.arrays["train_images"].shape == (3, 3, 6, 6)
    assert np.abs(np.array(values(pack)) - [50, 255, 50]).max() <= 1


def test_a_class_folder_may_be_empty_outside_train(split_pets):
    (split_pets / "test" / "dog").mkdir()
    assert read_folder(split_pets, image_size=4).arrays["test_labels"].tolist() == [0, 2]


def test_a_relative_folder_and_one_with_a_final_slash_give_the_same_names(pets, monkeypatch):
    expected = read_folder(pets, image_size=4).description
    monkeypatch.chdir(pets)
    assert read_folder(type(pets)("."), image_size=4).description == expected
    assert read_folder(type(pets)(f"{pets}/"), image_size=4).description == expected
    assert folder_signature(type(pets)("."), 4) == folder_signature(pets, 4)


# --- what is passed over -------------------------------------------------------------------------------------------


def test_what_is_no_class_and_no_image_is_ignored_and_listed(pets):
    build(pets, **{".ipynb_checkpoints__1": 1, "cat__.ipynb_checkpoints__1": 1, "cat__.hidden": 1, "stray": 1})
    (pets / "notes.txt").write_text("x")
    (pets / "dog" / "labels.csv").write_text("x")
    os.mkfifo(pets / "dog" / "pipe.png")
    pack = read_folder(pets, image_size=4)
    assert pack.description["classes"] == ["cat", "dog"]
    assert values(pack) == [10, 20, 30]
    assert sorted(pack.description["ignored"]) == [
        ".ipynb_checkpoints", "cat/.hidden.png", "cat/.ipynb_checkpoints",
        "dog/labels.csv", "dog/pipe.png", "notes.txt", "stray.png",
    ]  # fmt: skip


def test_other_folders_beside_train_are_ignored_and_listed(split_pets):
    build(split_pets, extra__cat__1=99, train__stray=99)
    pack = read_folder(split_pets, image_size=4)
    assert pack.description["ignored"] == ["extra", "train/stray.png"]
    assert 99 not in values(pack)


def test_a_loop_of_links_neither_hangs_nor_mixes_classes(pets):
    (pets / "cat" / "up").symlink_to(pets)
    (pets / "cat" / "here").symlink_to(pets / "cat")
    (pets / "dog" / "self").symlink_to("self")
    assert values(read_folder(pets, image_size=4)) == [10, 20, 30]


def test_a_class_folder_may_be_a_link(pets, tmp_path):
    build(tmp_path, elsewhere__1=77)
    (pets / "eel").symlink_to(tmp_path / "elsewhere")
    pack = read_folder(pets, image_size=4)
    assert pack.description["files"]["train"][-1] == "eel/1.png"
    assert values(pack)[-1] == 77


# --- determinism and progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 7])
def test_the_rows_do_not_depend_on_threads_or_on_the_reading(tmp_path, monkeypatch, workers):
    for number in range(150):
        paint(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    os.utime(tmp_path / "a")
    monkeypatch.setattr(pictures_module, "BLOCK", 4)
    monkeypatch.setattr(pictures_module, "MOST_WORKERS", workers)
    monkeypatch.setattr(pictures_module, "SMALL_FILE", 0)
    monkeypatch.setattr(pictures_module.os, "cpu_count", lambda: workers)
    decode = pictures_module.decode_image

    seen = set()

    def uneven(path, **options):
        seen.add(threading.get_ident())
        if path.name in {"0.png", "8.png", "60.png"}:
            time.sleep(0.02)  # the first blocks end last
        return decode(path, **options)

    monkeypatch.setattr(pictures_module, "decode_image", uneven)
    for _ in range(2):
        pack = read_folder(tmp_path, image_size=4)
        assert values(pack) == [*range(0, 150, 2), *range(1, 150, 2)]
        assert pack.description["files"]["train"][:3] == ["a/0.png", "a/2.png", "a/4.png"]
    assert (len(seen) > 2) == (workers > 1)


def test_small_files_are_decoded_by_one_thread_and_large_ones_by_several(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind, pixels in {"small": noise[:8, :8], "large": noise}.items():
        for number in range(8):
            path = tmp_path / kind / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    asked = []
    pool = pictures_module.ThreadPoolExecutor
    monkeypatch.setattr(pictures_module, "ThreadPoolExecutor", lambda workers: asked.append(workers) or pool(workers))
    monkeypatch.setattr(pictures_module.os, "cpu_count", lambda: 3)
    read_folder(tmp_path / "small", image_size=8)
    read_folder(tmp_path / "large", image_size=8)
    assert asked == [1, 3]


def test_progress_counts_up_to_all_images_of_all_splits(split_pets, monkeypatch):
    monkeypatch.setattr(pictures_module, "BLOCK", 2)
    calls = []
    read_folder(split_pets, image_size=4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 7), (4, 7), (5, 7), (7, 7)]


def test_a_cancelled_reading_does_not_decode_the_rest(tmp_path, monkeypatch):
    for number in range(60):
        paint(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    monkeypatch.setattr(pictures_module, "BLOCK", 1)
    monkeypatch.setattr(pictures_module, "MOST_WORKERS", 1)
    decoded = []

    def slow(path, **options):
        decoded.append(path)
        time.sleep(0.01)
        return np.zeros((3, 4, 4), np.uint8)

    def cancel(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures_module, "decode_image", slow)
    with pytest.raises(KeyboardInterrupt):
        read_folder(tmp_path, image_size=4, progress=cancel)
    assert len(decoded) < 10


# --- broken files --------------------------------------------------------------------------------------------------


def test_a_broken_image_stops_the_reading_and_is_named(pets):
    break_file(pets / "cat" / "2.png")
    with pytest.raises(UserError, match="--skip-broken, which counts and lists") as caught:
        read_folder(pets, image_size=4)
    assert str(pets / "cat" / "2.png") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_several_broken_images_the_first_in_row_order_is_named(tmp_path, monkeypatch):
    for number in range(40):
        paint(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    for number in [30, 20, 39]:
        break_file(tmp_path / "ab"[number % 2] / f"{number}.png")
    monkeypatch.setattr(pictures_module, "BLOCK", 2)
    for _ in range(5):
        with pytest.raises(UserError, match=r"a/20\.png"):
            read_folder(tmp_path, image_size=4)


def test_skipped_broken_images_are_listed_and_the_other_rows_stay_together(split_pets):
    break_file(split_pets / "train" / "emu" / "1.png")
    (split_pets / "test" / "cat" / "0.png").symlink_to("nowhere.png")
    pack = read_folder(split_pets, image_size=4, skip_broken=True)
    assert pack.description["broken"] == ["train/emu/1.png", "test/cat/0.png"]
    assert values(pack) == [1, 2, 4]
    assert pack.arrays["train_labels"].tolist() == [0, 1, 2]
    assert pack.description["files"]["train"] == ["train/cat/1.png", "train/dog/1.png", "train/emu/2.png"]
    assert values(pack, "test") == [6, 5]
    assert pack.arrays["test_labels"].tolist() == [0, 2]


def test_a_class_that_loses_every_image_is_an_error_even_when_skipping(pets):
    break_file(pets / "dog" / "1.png")
    with pytest.raises(
        UserError, match=r"no image of class 'dog' in .*pets can be read; replace them or remove the class"
    ):
        read_folder(pets, image_size=4, skip_broken=True)


def test_a_split_that_loses_every_image_is_an_error_even_when_skipping(split_pets):
    break_file(split_pets / "val" / "dog" / "9.png")
    with pytest.raises(UserError, match=r"no validation image in .*pets can be read"):
        read_folder(split_pets, image_size=4, skip_broken=True)


# --- folders of another shape --------------------------------------------------------------------------------------


def refusal(folder, image_size=4):
    """The one line with which both the reader and the signature refuse a folder."""
    with pytest.raises(UserError) as caught:
        read_folder(folder, image_size=image_size)
    with pytest.raises(UserError) as same:
        folder_signature(folder, image_size)
    assert str(caught.value) == str(same.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


EXPECTED = "expected FOLDER/<class>/<images> or FOLDER/train/<class>/<images>"


def test_a_missing_folder_is_named(tmp_path):
    assert refusal(tmp_path / "absent") == f"no such folder: {tmp_path / 'absent'}; {EXPECTED}"


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"x")
    assert refusal(tmp_path / "pets.zip") == f"{tmp_path / 'pets.zip'} is a file, not a folder; {EXPECTED}"


def test_an_empty_folder_is_called_empty(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path} is empty; {EXPECTED}"


def test_a_folder_of_other_files_has_no_class_folder(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    assert refusal(tmp_path) == f"{tmp_path} has no class folder; {EXPECTED}"


def test_one_class_is_too_few_and_the_folder_below_is_offered(tmp_path):
    root = build(tmp_path, dataset__cat__1=1, dataset__dog__1=1)
    message = refusal(root)
    assert f"{root} has only one class folder, 'dataset'; a classifier needs at least 2" in message
    assert f"give {root / 'dataset'}" in message
    read_folder(root / "dataset", image_size=4)


@pytest.mark.parametrize("inside", ["", "train/", "test/"])
def test_images_without_class_folders_are_refused(split_pets, inside):
    folder = split_pets / inside
    shutil.rmtree(folder)
    paint(folder / "b.png", 1)
    paint(folder / "a.png", 1)
    message = refusal(split_pets)
    assert f"images such as a.png lie directly in {folder}, without class folders" in message
    assert "put each into a folder named by its class" in message


def test_a_class_folder_without_images_is_named(pets):
    (pets / "emu").mkdir()
    (pets / "emu" / "scan.tiff").write_bytes(b"x")
    assert refusal(pets) == f"class folder {pets / 'emu'} has no PNG, JPEG, WebP, GIF or BMP image; " + (
        "add some or remove the folder"
    )


def test_a_class_that_train_lacks_is_named_with_the_nearest(split_pets):
    (split_pets / "test" / "cat").rename(split_pets / "test" / "cats")
    message = refusal(split_pets)
    assert message == f"{split_pets / 'test'} has a class that train lacks: unknown class 'cats'; did you mean 'cat'?"


def test_a_split_without_images_is_refused(split_pets):
    shutil.rmtree(split_pets / "test" / "cat")
    shutil.rmtree(split_pets / "test" / "emu")
    assert f"{split_pets / 'test'} is empty" in refusal(split_pets)
    (split_pets / "test" / "cat").mkdir()
    assert f"no image in {split_pets / 'test'}; add PNG" in refusal(split_pets)


def test_splits_without_train_are_not_taken_for_classes(split_pets):
    shutil.rmtree(split_pets / "train")
    assert f"{split_pets} has val, test but no train folder; {EXPECTED}" == refusal(split_pets)


def test_two_folders_for_one_split_are_refused(split_pets):
    build(split_pets, dev__cat__1=1)
    message = refusal(split_pets)
    assert f"both {split_pets / 'dev'} and {split_pets / 'val'} hold the validation split; remove one" in message


@pytest.mark.parametrize("image_size", [0, -3, 4097, 2_000_000_000])
def test_an_impossible_image_size_is_refused(pets, image_size):
    with pytest.raises(UserError, match=f"image size {image_size} is not possible; give 1 to 4096 pixels"):
        read_folder(pets, image_size=image_size)


@pytest.mark.parametrize("count", [10**9, 10**13])
def test_a_size_that_no_memory_holds_is_refused(count):
    with pytest.raises(UserError, match=f"{count} images of 4096 x 4096 need .* GB of memory; choose a smaller size"):
        room_for(count, 4096)


# --- signature -----------------------------------------------------------------------------------------------------


def test_a_signature_stays_while_nothing_changes(split_pets):
    signature = folder_signature(split_pets, 32)
    read_folder(split_pets, image_size=4)
    assert len(signature) == 64
    assert int(signature, 16)
    assert folder_signature(split_pets, 32) == signature


def test_a_signature_belongs_to_the_content_not_to_where_it_lies(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "copy")  # keeps times
    assert folder_signature(tmp_path / "copy", 4) == folder_signature(pets, 4)


def later(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def grow_unnoticed(path):
    before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(before, before))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: paint(root / "cat" / "3.png", 1),
        lambda root: (root / "cat" / "2.png").unlink(),
        lambda root: (root / "cat" / "2.png").rename(root / "cat" / "4.png"),
        lambda root: (root / "cat" / "2.png").rename(root / "dog" / "2.png"),
        lambda root: (root / "cat").rename(root / "cow"),
        lambda root: later(root / "dog" / "1.png"),
        lambda root: grow_unnoticed(root / "dog" / "1.png"),
        lambda root: (root / "notes.txt").write_text("x"),
        lambda root: paint(root / "train" / "cat" / "1.png", 1) or paint(root / "train" / "dog" / "1.png", 1),
    ],
    ids=["added", "removed", "renamed", "moved", "class renamed", "touched", "resized", "ignored added", "relayout"],
)
def test_every_change_changes_the_signature(pets, change):
    before = folder_signature(pets, 4)
    change(pets)
    assert folder_signature(pets, 4) != before


def test_every_option_changes_the_signature(pets, monkeypatch):
    signatures = {folder_signature(pets, 4), folder_signature(pets, 5), folder_signature(pets, 4, skip_broken=True)}
    monkeypatch.setattr(pictures_module, "READER", "another")
    assert len(signatures | {folder_signature(pets, 4)}) == 4


def test_a_signature_opens_no_image_and_notices_when_a_link_dangles(pets, tmp_path):
    (pets / "cat" / "1.png").unlink()
    (pets / "cat" / "1.png").symlink_to(tmp_path / "target.png")
    dangling = folder_signature(pets, 4)
    (tmp_path / "target.png").write_bytes(b"not an image")
    assert folder_signature(pets, 4) != dangling


def test_names_that_are_not_unicode_do_not_stop_the_signature(pets):
    os.rename(os.fsencode(pets / "cat" / "2.png"), os.fsencode(pets / "cat") + b"/\xff.png")
    assert len(folder_signature(pets, 4)) == 64
    assert values(read_folder(pets, image_size=4)) == [10, 20, 30]
