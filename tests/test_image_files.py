"""Which files of a path are images, in what order."""

import os

import pytest

from thumbnet.data.images import decode_image, image_files, is_image_name, natural_key
from thumbnet.errors import UserError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.jpeg", "a.jpe", "a.jfif", "a.webp", "a.gif", "a.bmp", "a.b.png"])
def test_image_names_are_told_by_their_ending(name):
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["a.txt", "png", ".png", ".a.png", "a.png.txt", "a.tiff", ""])
def test_other_and_hidden_names_are_no_image_names(name):
    assert not is_image_name(name)


def test_numbers_in_names_sort_by_value():
    names = ["10", "b", "2", "a10", "A2", "a2b", "1", "02", "a", ""]
    assert sorted(names, key=natural_key) == ["", "1", "02", "2", "10", "a", "A2", "a2b", "a10", "b"]


def test_a_file_gives_itself_even_under_another_name(tmp_path):
    touch(tmp_path / "upload")
    assert image_files(tmp_path / "upload") == ([tmp_path / "upload"], [])


def test_a_folder_gives_its_images_at_any_depth_in_natural_order(tmp_path):
    touch(*(tmp_path / name for name in ["10.png", "2.png", "sub/10/x.jpg", "sub/9/x.JPG", "sub/notes.txt", "9.webp"]))
    touch(*(tmp_path / name for name in [".hidden.png", ".cache/a.png", "sub/.ipynb_checkpoints/b.png"]))
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)[0]]
    assert found == ["2.png", "9.webp", "10.png", "sub/9/x.JPG", "sub/10/x.jpg"]


def test_a_hidden_folder_is_read_when_it_is_asked_for(tmp_path):
    touch(tmp_path / ".photos" / "a.png")
    assert image_files(tmp_path / ".photos") == ([tmp_path / ".photos" / "a.png"], [])


def test_links_that_form_loops_end_and_other_links_are_followed(tmp_path):
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "2.png", tmp_path.parent / "elsewhere" / "3.png")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "above").symlink_to(tmp_path.parent)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "out").symlink_to(tmp_path.parent / "elsewhere")
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)[0]]
    assert found == [
        "a/1.png", "a/to_b/2.png", "a/to_b/out/3.png",
        "b/2.png", "b/out/3.png", "b/to_a/1.png",
    ]  # fmt: skip


def test_a_dangling_link_is_given_so_that_its_loss_is_noticed_and_a_pipe_is_not(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert image_files(tmp_path) == ([tmp_path / "gone.png"], [tmp_path / "pipe.png"])
    with pytest.raises(UserError, match=r"gone\.png: No such file"):
        decode_image(tmp_path / "gone.png", channels=3, size=(8, 8))


def test_a_missing_path_and_a_folder_without_images_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"no such file or folder: .*absent"):
        image_files(tmp_path / "absent")
    touch(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"no image in folder .*give a folder that holds PNG") as caught:
        image_files(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may open every folder")
def test_a_folder_that_may_not_be_opened_is_an_error_not_a_gap(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "closed" / "b.png")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(UserError, match=r"cannot open folder .*closed: Permission denied"):
            image_files(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_pipe_is_neither_file_nor_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"cannot open folder .*pipe: Not a directory"):
        image_files(tmp_path / "pipe")
