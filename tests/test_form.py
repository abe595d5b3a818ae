"""A competition's table filled with our answers: its rows, its columns, one image for each row."""

import csv
import io

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
PROBABILITIES = np.array([[0.1, 0.2, 0.7], [0.75, 0.25 - 3e-8, 3e-8]], np.float32)


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
            "id,frog,DOG,cat\n7,0.699999988,0.200000003,0.100000001\n8,2.99999989e-08,0.24999997,0.75\n",
        ),
        ('id,label\n"a, b",\n8\n', 'id,label\n"a, b",frog\n8,cat\n'),  # a row that ends early
    ],
)  # fmt: skip
def test_the_column_of_the_class_or_those_of_all_classes_are_filled_and_the_rest_stays(tmp_path, given, filled):
    assert filled_in(form_of(tmp_path, given), PROBABILITIES, [0, 1], CLASSES) == filled


def test_one_column_called_as_one_of_two_classes_gets_its_probability(tmp_path):
    form = form_of(tmp_path, "id,dog\n7,0.5\n8,0.5\n", ("cat", "dog"))
    assert filled_in(form, PROBABILITIES[:, :2], [1, 0], ("cat", "dog")) == "id,dog\n7,0.24999997\n8,0.200000003\n"


def test_classes_that_differ_by_case_alone_are_told_apart(tmp_path):
    form = form_of(tmp_path, "id,a,A\n7,,\n", ("A", "a"))
    assert filled_in(form, PROBABILITIES[:1, :2], [0], ("A", "a")) == "id,a,A\n7,0.200000003,0.100000001\n"
    with pytest.raises(
        UserError, match=r"there must be one called label, or one for each class \(there is none for 'A'\)"
    ):
        form_of(tmp_path, "id,a,á\n7,,\n", ("A", "a"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,label\n", r"sample\.csv has no row to be filled; each asks for one image"),
        ("id,a,b\n1,,\n", r"columns 'id', 'a', 'b'; beside that of the images, 'id', there must be one called label, or one for"),
        ("id,cat,Dog\n1,,\n", r"there must be one called label, or one for each class \(there is none for 'frog'\)"),
        ("id,a,b\n1,,\n", r"or one for each class \(cat, Dog, frog\)"),
        ("id,cat,CAT,Dog\n1,,\n", r"there must be one called label, or one for each class"),
        ("id,label,label\n1,,\n", r"each column needs a title of its own; it has 'id', 'label', 'label'"),
        ("id,\n1,\n", r"each column needs a title of its own"),
        ("id\n1\n", r"^\S*sample\.csv has only the column 'id'; there must be one for the images and one for their classes"),
        ("", r"sample\.csv has nothing in it; there must be one for the images"),
        ("id,label\n1,a,b\n", r"sample\.csv, line 2: it has more cells than there are columns; quote commas in texts"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_say_what_is_wanted_is_refused(tmp_path, text, told):
    with pytest.raises(UserError, match=told):
        form_of(tmp_path, text)


def test_images_are_found_by_path_by_its_end_or_by_these_without_the_ending(tmp_path):
    form = form_of(tmp_path, "id,label\n b/2.png ,\n./1.PNG,\n3,\n3,\nt\\4,\n")
    names = ["a/1.png", "b/2.png", "3.jpg", "data/t/4.png", "data/u/4.png"]
    assert places_in(form, names, numbered=False) == [1, 0, 2, 2, 3]
    assert places_in(form, ["b/2.png", "./1.PNG", "3", "t\\4"], numbered=False) == [0, 1, 2, 2, 3]
    headless = form_of(tmp_path, "1.png,label\n2.png,\n")
    with pytest.raises(UserError, match=r"does not name its columns, its first line has '1\.png', 'label'; add titles"):
        places_in(headless, ["a/1.png", "a/2.png"], numbered=False)
    with pytest.raises(
        UserError, match=r"asks for './1\.PNG', and several images are called so: a/1\.png and c/1\.png"
    ):
        places_in(form, [*names, "c/1.png", "3.jpg"], numbered=False)  # one given twice is one
    with pytest.raises(
        UserError,
        match=r"asks for '3', and none of the images given is called so, or ends so; they are called as 'a/1\.png' is",
    ):
        places_in(form, ["a/1.png", "b/2.png"], numbered=False)


def test_images_without_names_go_row_by_row_where_that_can_be_meant(tmp_path):
    assert places_in(form_of(tmp_path, "id,label\n1,\n2,\n5,\n"), ["t:0", "t:1", "t:2"], numbered=True) == [0, 1, 2]
    assert places_in(form_of(tmp_path, "id,label\nb,\na,\n"), ["t:0", "t:1"], numbered=True) == [0, 1]
    with pytest.raises(
        UserError, match=r"has 2 rows and there are 3 images without names, which go row by row; give as many"
    ):
        places_in(form_of(tmp_path, "id,label\n1,\n2,\n"), ["t:0", "t:1", "t:2"], numbered=True)
    with pytest.raises(
        UserError, match=r"asks for 1 after a larger number or again, and images without names go row by row"
    ):
        places_in(form_of(tmp_path, "id,label\n3,\n1,\n"), ["t:0", "t:1"], numbered=True)


def test_what_is_probably_not_meant_is_told(tmp_path):
    form = form_of(tmp_path, "id,has_cat\n1,0.5\n1,0.5\n")
    written = f"{form.path} has '0.5' in 'has_cat', no class of the run; names of classes are written there"
    again, unasked = "1 row asks again for an image of another row", f"2 images are not asked for in {form.path}"
    assert doubts(form, CLASSES, ["1", "2", "3", "3"], [0, 0]) == [written, again, unasked]
    two = f"{written}; called '1', it would get the probability of that class"
    assert doubts(form, ("0", "1"), ["1", "2"], [0, 1]) == [two]
    assert doubts(form_of(tmp_path, "id,label\n1,cat\n2,\n"), CLASSES, ["1", "2"], [0, 1]) == []
    ten = form_of(tmp_path, "id,cat,Dog,frog,ship\n1,,,,0.1\n")
    assert doubts(ten, CLASSES, ["1"], [0]) == [f"left as {ten.path} has it: 'ship'"]


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
        (["--top", "2"], "--like answers each row of its table; leave out --top, --sure, --explain and --skip-broken"),
    ):
        assert command([*asked, *words]) == 2
        assert told in capsys.readouterr().err


def test_pictures_fill_a_table_of_probabilities_in_its_order(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run)
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


def test_a_table_of_pixels_is_answered_by_its_own_names_where_it_has_some(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run)
    head, *lines = (run / "test.csv").read_text().splitlines()
    named = [f"id,{head}", *(f"n{4 - place},{line}" for place, line in enumerate(lines))]
    (tmp_path / "named.csv").write_text("\n".join(named) + "\n")
    (tmp_path / "sample.csv").write_text("id,label\n" + "".join(f"n{number},\n" for number in range(5)))
    asked = ["predict", "run", str(tmp_path / "named.csv"), "--device", "cpu"]
    assert command([*asked, "--like", str(tmp_path / "sample.csv")]) == 0
    assert capsys.readouterr().out == "id,label\nn0,0\nn1,1\nn2,0\nn3,1\nn4,0\n"
    assert command([*asked, "--format", "csv"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "file",
        "n4",
        "n3",
        "n2",
        "n1",
        "n0",
    ]


def test_a_broken_image_leaves_no_answer_and_no_advice_that_does_not_help(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run)
    (tmp_path / "1.png").write_bytes(b"no image")
    Image.new("L", (16, 16)).save(tmp_path / "2.png")
    (tmp_path / "sample.csv").write_text("id,label\n1,\n")
    words = [
        "predict",
        "run",
        str(tmp_path / "1.png"),
        str(tmp_path / "2.png"),
        "--like",
        str(tmp_path / "sample.csv"),
        "--device",
        "cpu",
    ]
    assert command(words) == 2
    told = capsys.readouterr().err
    assert "--like answers each row of" in told and "--skip-broken" not in told
