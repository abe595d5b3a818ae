"""A competition's table filled with our answers: its rows, its columns, one image for each row."""

import csv
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from conftest import CPU
from thumbnet.cli.main import run as command
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import UserError
from thumbnet.recipes import recipe
from thumbnet.shipping.form import doubts, filled_in, places_in, read_form
from thumbnet.training.loop import train

CLASSES = ("cat", "Dog", "frog")
RANKINGS = [(("frog", 0.7), ("Dog", 0.2), ("cat", 0.1)), (("cat", 0.6), ("Dog", 0.3), ("frog", 0.1))]


def form_of(tmp_path, text, classes=CLASSES):
    path = tmp_path / "sample.csv"
    path.write_text(text, encoding="utf-8")
    return read_form(path, classes)


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ("id,label\n7,cat\n8,cat\n", "id,label\n7,frog\n8,cat\n"),
        ("ImageId;Label\n1;0\n2;0\n", "ImageId,Label\n1,frog\n2,cat\n"),
        ("\ufeffwhat,image\n,a.png\n,b.png\n", "what,image\nfrog,a.png\ncat,b.png\n"),
        ("id,label,Usage\n7,x,Public\n8,x,Private\n", "id,label,Usage\n7,frog,Public\n8,cat,Private\n"),
        (
            "id,frog,DOG,cat\n7,0.3,0.3,0.3\n8,0,0,0\n",
            "id,frog,DOG,cat\n7,0.700000,0.200000,0.100000\n8,0.100000,0.300000,0.600000\n",
        ),
        ('id,label\n"a, b",\n8\n', 'id,label\n"a, b",frog\n8,cat\n'),  # a row that ends early
    ],
)
def test_the_column_of_the_class_or_those_of_all_classes_are_filled_and_the_rest_stays(tmp_path, given, filled):
    assert filled_in(form_of(tmp_path, given), RANKINGS) == filled


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,label\n", r"sample\.csv has no row to be filled; each asks for one image"),
        ("id,a,b\n1,,\n", r"columns 'id', 'a', 'b'; beside that of the images, 'id', there must be one called label, or one for"),
        ("id,cat,Dog\n1,,\n", r"there must be one called label, or one for each class \(cat, Dog, frog\)"),
        ("id,label,label\n1,,\n", r"each column needs a title of its own; it has 'id', 'label', 'label'"),
        ("id,\n1,\n", r"each column needs a title of its own"),
        ("id\n1\n", r"columns 'id'; beside that of the images"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_say_what_is_wanted_is_refused(tmp_path, text, told):
    with pytest.raises(UserError, match=told):
        form_of(tmp_path, text)


def test_images_are_found_by_path_name_or_name_without_ending_and_numbered_ones_go_row_by_row(tmp_path):
    form = form_of(tmp_path, "id,label\n b/2.png ,\n1.png,\n3,\n3,\n")
    assert places_in(form, ["a/1.png", "b/2.png", "3.jpg"], numbered=False) == [1, 0, 2, 2]
    assert places_in(form, ["t.csv:0", "t.csv:1", "t.csv:2", "t.csv:3"], numbered=True) == [0, 1, 2, 3]
    twice = ["a/1.png", "c/1.png", "b/2.png", "3.jpg", "3.jpg"]  # the last two are one image, given twice
    with pytest.raises(UserError, match=r"asks for '1\.png', and several images are called so: a/1\.png and c/1\.png"):
        places_in(form, twice, numbered=False)
    with pytest.raises(
        UserError, match=r"asks for '3', and none of the images given is called so \(the first is 'a/1\.png'\)"
    ):
        places_in(form, ["a/1.png", "b/2.png"], numbered=False)
    with pytest.raises(UserError, match=r"has 4 rows and there are 2 images without names, which go row by row"):
        places_in(form, ["t.csv:0", "t.csv:1"], numbered=True)


def test_what_is_probably_not_meant_is_told(tmp_path):
    form = form_of(tmp_path, "id,has_cat\n1,0.5\n1,0.5\n")
    assert doubts(form, CLASSES, [0, 0], 3) == [
        f"{form.path} has '0.5' in 'has_cat', no class of the run; names of classes are written there",
        f"2 images are not asked for in {form.path}",
    ]
    assert doubts(form_of(tmp_path, "id,label\n1,cat\n2,\n"), CLASSES, [0, 1], 2) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network that knows 0 and 1 by the side that is bright, trained on a table of pixels."""
    folder = tmp_path_factory.mktemp("digits")
    lines = [["label", *(f"pixel{place}" for place in range(256))]]
    for number in range(80):
        image = np.full((16, 16), number, np.uint8)
        image[:, 8 * (number % 2) : 8 * (number % 2) + 8] = 200
        lines.append([number % 2, *image.flatten()])
    with open(folder / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    with open(folder / "test.csv", "w", newline="") as file:
        csv.writer(file).writerows([line[1:] for line in [lines[0], *lines[1:6]]])
    whole = {"resolution": (1.0,), "flip": False, "alternate_flip": False}
    made = recipe("general", widths=(8, 16, 16), epochs=6, batch_size=20, **whole)
    train(made, load_dataset(folder / "train.csv"), folder / "run", machine=CPU)
    return folder


def test_a_table_of_pixels_fills_a_submission(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run)
    (tmp_path / "sample.csv").write_text("ImageId,Label\n" + "".join(f"{row},0\n" for row in range(1, 6)))
    asked = ["predict", "run", "test.csv", "--like", str(tmp_path / "sample.csv"), "--device", "cpu"]
    assert command([*asked, "--output", str(tmp_path / "mine.csv")]) == 0
    assert (tmp_path / "mine.csv").read_text() == "ImageId,Label\n1,0\n2,1\n3,0\n4,1\n5,0\n"
    assert "5 predictions in" in capsys.readouterr().err
    for words, told in (
        (["--json"], "--like writes CSV; leave out --json"),
        (["--format", "table"], "--like writes CSV; leave out --format"),
        (["--output", "said.txt"], "--like writes CSV; leave out the ending of said.txt"),
        (["--top", "2"], "--like fills the columns that its table has; leave out --top and --sure"),
    ):
        assert command([*asked, *words]) == 2
        assert told in capsys.readouterr().err


def test_pictures_fill_a_table_of_probabilities_in_its_order(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run)
    shutil.rmtree("test", ignore_errors=True)
    (run / "test").mkdir()
    for number in range(3):
        image = np.zeros((16, 16), np.uint8)
        image[:, 8 * (number % 2) : 8 * (number % 2) + 8] = 200
        Image.fromarray(image).save(run / "test" / f"{number}.png")
    (tmp_path / "sample.csv").write_text("id,1,0\n1,0.5,0.5\n0,0.5,0.5\n")
    assert command(["predict", "run", "test", "--like", str(tmp_path / "sample.csv"), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert [row["id"] for row in rows] == ["1", "0"]
    assert float(rows[0]["1"]) > 0.6 and float(rows[1]["0"]) > 0.6
    assert all(abs(float(row["0"]) + float(row["1"]) - 1) < 1e-5 for row in rows)
    assert "note: 1 image is not asked for in" in printed.err
