"""Training images that a list names are not trained on; what is held out, and all else, stays as it was."""

import shutil
from dataclasses import replace
from unicodedata import normalize

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import CPU, Heard, assert_identical, pictures
from thumbnet import signals
from thumbnet.cli.main import run as command_line
from thumbnet.data.datasets import load_dataset
from thumbnet.data.leave_out import names_in, told
from thumbnet.errors import Interrupted, UserError
from thumbnet.judging.comparison import compare
from thumbnet.recipes import name_of_group, recipe, title_of, vary
from thumbnet.report.sections import data_section
from thumbnet.runs.run import Run
from thumbnet.shipping.new_images import trained_on
from thumbnet.training.loop import train

SMALL = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=16)
SHORT = ("--epochs", "1", "--threads", "1", "--widths", "8", "16", "16", "--batch-size", "8")
LISTED = (3, 20, 41, 100, 239)


@pytest.fixture
def listed(tmp_path):
    (tmp_path / "list.csv").write_text("class,image\n" + "".join(f"x,{row}\n" for row in LISTED))
    return vary(SMALL, leave_out=str(tmp_path / "list.csv"))


def rows_of(split):
    return set(split.rows.tolist())


@pytest.mark.parametrize("fields", [{}, {"validation": 0.3}, {"validation": 0.0}, {"folds": 4, "fold": 2}])
def test_the_same_images_are_held_out_and_of_the_others_the_listed_are_gone(tiny, listed, fields):
    plain, cut = vary(SMALL, **fields), vary(listed, **fields)
    before, after = tiny.with_validation(**plain.cut), tiny.with_validation(**cut.cut)
    assert (before.validation is None) == (after.validation is None)
    if before.validation is not None:
        assert torch.equal(before.validation.rows, after.validation.rows)
    assert rows_of(after.train) == rows_of(before.train) - set(LISTED)
    assert torch.equal(after.train.rows, after.train.rows.sort().values)
    assert after.left_out == tuple(map(str, LISTED)) and before.left_out == ()
    assert after.with_validation(**plain.cut).left_out == ()
    gone = len(before.train) - len(after.train)
    sentence = told(after, "some/list.csv")
    assert sentence.startswith(f"{gone} training image") and "of list.csv left out" in sentence
    assert ("held out as ever" in sentence) == (gone < len(LISTED))
    assert rows_of(after.development) == set(range(240))


def test_of_a_set_with_validation_images_of_its_own_these_stay(tiny, listed):
    data = replace(tiny, own_validation=tiny.test.unlock()).with_validation(**listed.cut)
    assert rows_of(data.train) == set(range(240)) - set(LISTED) and len(data.validation) == 100
    assert told(data, "list.csv") == "5 training images of list.csv left out"


def test_nothing_of_a_left_out_image_reaches_the_weights(tiny, listed, tmp_path):
    data = replace(tiny, own_validation=tiny.test.unlock())  # else other labels would hold other images out
    images, labels, out = tiny.development.images.clone(), tiny.development.labels.clone(), torch.tensor(LISTED)
    images[out], labels[out] = 255 - images[out], (labels[out] + 1) % 10
    other = replace(data, development=replace(tiny.development, images=images, labels=labels))
    runs = [train(listed, one, tmp_path / str(id(one)), machine=CPU, plots=False) for one in (data, other)]
    assert_identical(*runs)
    assert runs[0].summary["train_images"] == 235


def test_a_run_knows_what_it_left_out_when_the_list_is_gone(tiny, listed, tmp_path):
    heard = Heard()
    run = train(listed, tiny, tmp_path / "run", machine=CPU, plots=False, reporter=heard)
    (tmp_path / "list.csv").unlink()
    again = Run.open(run.path)
    assert again.data.left_out == tuple(map(str, LISTED)) == again.check_data(tiny).left_out
    assert any("of list.csv left out" in line for line in heard.lines)
    assert train(listed, tiny, tmp_path / "run", machine=CPU, plots=False).path == run.path  # finished, as before
    assert ("left out", "training images that a list of 5 names, see data.json") in data_section(again, None)["rows"]
    assert name_of_group(again.recipe).endswith("leave_out list.csv") and "leave_out list.csv" in title_of(listed)
    assert str(tmp_path) in name_of_group(again.recipe, exact=True)


def test_it_was_not_trained_on_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=pixels, labels=np.arange(60) % 2)
    (tmp_path / "list.txt").write_text("".join(f"{row}\n" for row in range(10)))
    made = vary(SMALL, leave_out=str(tmp_path / "list.txt"), batch_size=8, validation=0, resolution=(1.0,))
    run = train(made, tmp_path / "some.npz", tmp_path / "run", machine=CPU, plots=False)
    seen = trained_on(run, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    assert seen.tolist() == [False] * 10 + [True] * 50


def stop(monkeypatch, after):
    """Training stops before this step."""
    steps = iter(range(after))

    def check(self):
        if next(steps, None) is None:
            raise signals.StopRequested("SIGTERM")

    monkeypatch.setattr(signals.StopSignals, "check", check)


def test_a_stopped_run_goes_on_by_the_list_as_it_was_and_not_by_another(tiny, listed, tmp_path, monkeypatch):
    unbroken = train(listed, tiny, tmp_path / "unbroken", machine=CPU, plots=False)
    with monkeypatch.context() as patched:
        stop(patched, 5)
        with pytest.raises(Interrupted):
            train(listed, tiny, tmp_path / "run", machine=CPU, plots=False)
    shorter = (tmp_path / "list.csv").read_text().replace("x,3\n", "")
    (tmp_path / "list.csv").write_text(shorter)
    message = r"list.csv names other images than when .*run began; put the list back, or choose another --out"
    with pytest.raises(UserError, match=message):
        train(listed, tiny, tmp_path / "run", machine=CPU, plots=False)
    (tmp_path / "list.csv").unlink()
    assert_identical(train(listed, tiny, tmp_path / "run", machine=CPU, plots=False), unbroken)
    (tmp_path / "list.csv").write_text(shorter)
    with pytest.raises(UserError, match=message):  # a finished run is not given back for another list either
        train(listed, tiny, tmp_path / "run", machine=CPU, plots=False)


def test_runs_are_not_taken_for_one_recipe_where_the_list_was_changed_in_between(tiny, listed, tmp_path):
    first = train(listed, tiny, tmp_path / "first", machine=CPU, plots=False)
    second = train(vary(listed, seed=1), tiny, tmp_path / "second", machine=CPU, plots=False)
    assert compare([first, second]).groups[0].n == 2
    (tmp_path / "list.csv").write_text("image\n7\n")
    third = train(vary(listed, seed=2), tiny, tmp_path / "third", machine=CPU, plots=False)
    with pytest.raises(UserError, match=r"first and .*third left out other images by the same list, list.csv"):
        compare([first, second, third])
    plain = train(SMALL, tiny, tmp_path / "plain", machine=CPU, plots=False)
    assert len(compare([first, second, plain]).groups) == 2


# ---------------------------------------------------------------- names


def test_a_text_file_has_a_name_in_each_line_and_comments(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeff# mine\r\n 12 \r\n\r\ntrain 7\r\n12\r\n".encode())
    assert names_in(tmp_path / "list.txt") == ["12", "train 7", "12"]


def test_numbers_are_those_that_doctor_prints(tiny, tmp_path):
    (tmp_path / "list.txt").write_text("train 12\n7\n")
    cut = tiny.with_validation(0, seed=0, leave_out=tmp_path / "list.txt")
    assert cut.left_out == ("7", "12") and tiny.with_validation(0, seed=0, leave_out=["5"]).left_out == ("5",)


def test_files_are_named_below_the_folder_or_as_one_types_them_and_accents_in_either_form(here):
    pictures(here / "pics", classes=("a", "caf\u00e9"))
    data = load_dataset("pics", validation=0)
    names = ["a/0.png", "pics/a/1.png", str(here / "pics" / "a" / "2.png"), normalize("NFD", "caf\u00e9/3.png")]
    cut = data.with_validation(0, seed=0, leave_out=names)
    assert cut.left_out == ("a/0.png", "a/1.png", "a/2.png", "caf\u00e9/3.png") and len(cut.train) == 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", None, r"cannot read .*list.txt: No such file"),
        ("list.csv", None, r"cannot read .*list.csv: No such file"),
        ("list.json", "[1]", r"list.json is no list of images; give a .csv file with a column image, or a .txt file"),
        ("list.csv", "file\n1\n", r"has no column image, or several; its first line must name one \(it has 'file'\)"),
        ("list.csv", "", r"its first line must name one \(it has nothing\)"),
        ("list.txt", "240\n", r"names '240'; the training images of tiny go by number, 0 to 239"),
        ("list.txt", "-1\n", r"names '-1'; the training images of tiny go by number"),
        ("list.txt", "\u0663\n", r"names '\u0663'; the training images of tiny go by number"),
        ("list.txt", "test 3\n", r"names 'test 3'; the training images of tiny go by number"),
        ("list.txt", "all", r"names all training images of '.*' in tiny; leave some of them in"),
    ],
)
def test_a_list_that_cannot_be_followed_is_one_line(tiny, tmp_path, name, content, message):
    path = tmp_path / name
    if content == "all":
        content = "\n".join(map(str, (tiny.development.labels == 2).nonzero().flatten().tolist()))
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        train(vary(SMALL, leave_out=str(path)), tiny, tmp_path / "run", machine=CPU)
    assert not (tmp_path / "run").exists()


def test_names_of_files_that_are_not_trained_on_say_why(here):
    for split in ("train", "test"):
        pictures(here / "pics" / split)
    data = load_dataset("pics", validation=0)
    with pytest.raises(
        UserError, match=r"names 'test/a/3.png', which is a test image of pics; only training images can be"
    ):
        data.with_validation(0, seed=0, leave_out=["test/a/3.png"])
    with pytest.raises(UserError, match=r"and pics has no such training image; give names as in 'train/a/0.png'"):
        data.with_validation(0, seed=0, leave_out=["a/0.png"])


def test_an_empty_list_leaves_nothing_out(tiny, tmp_path):
    (tmp_path / "list.csv").write_text("image,class,fault,about\n")
    cut = tiny.with_validation(0, seed=0, leave_out=tmp_path / "list.csv")
    assert len(cut.train) == 240 and told(cut, "list.csv") == "0 training images of list.csv left out"


# ---------------------------------------------------------------- the command line


def test_the_flag_is_kept_with_its_whole_path_and_told(here, capsys):
    pictures(here / "pics")
    (here / "list.txt").write_text("a/0.png\nb/5.png\n")
    assert command_line(["train", "pics", "--out", "run", "--leave-out", "list.txt", *SHORT]) == 0
    said = capsys.readouterr().err
    assert "of list.txt left out" in said and "leave_out list.txt with " in said
    run = Run.open("run")
    assert run.recipe.leave_out == str(here / "list.txt") and run.data.left_out == ("a/0.png", "b/5.png")
    assert run.summary["train_images"] + run.summary["validation_images"] in (22, 23, 24)
    assert command_line(["preview", "pics", "--leave-out", "list.txt"]) == 0
    again = ["train", "pics", "--out", "again", "--config", "run/recipe.toml", "--threads", "1"]
    assert command_line(again) == 0
    one, other = (load_file(here / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_bad_list_is_told_before_any_of_several_runs_is_trained(here, capsys):
    pictures(here / "pics")
    (here / "list.txt").write_text("a/99.png\n")
    words = ["train", "pics", "--out", "many", "--leave-out", "list.txt", "--seeds", "2", *SHORT]
    assert command_line(words) == 2
    assert "and pics has no such training image" in capsys.readouterr().err
    (here / "study.toml").write_text(
        'name = "cleaned"\ndataset = "pics"\nseeds = 2\n[fields]\nepochs = 1\nwidths = [8, 16, 16]\nbatch_size = 8\n'
        '[[variant]]\nname = "all"\n[[variant]]\nname = "cleaned"\nleave_out = "list.txt"\n'
    )
    assert command_line(["study", "study.toml", "--out", "study"]) == 2
    assert "and pics has no such training image" in capsys.readouterr().err
    assert not (here / "many").exists() and not (here / "study").exists()
    shutil.rmtree(here / "pics")
