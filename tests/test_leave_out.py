"""Training images that a list names are not trained on; what is held out, and all else, stays as it was."""

import json
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
    held = {0: "", 1: "; 1 image that it names is held out"}.get(
        5 - gone, f"; {5 - gone} images that it names are held out"
    )
    assert sentence == f"{gone} training images left out, by list.csv{held}"
    assert rows_of(after.development) == set(range(240))


def test_of_a_set_with_validation_images_of_its_own_these_stay(tiny, listed):
    data = replace(tiny, own_validation=tiny.test.unlock()).with_validation(**listed.cut)
    assert rows_of(data.train) == set(range(240)) - set(LISTED) and len(data.validation) == 100
    assert told(data, "list.csv") == "5 training images left out, by list.csv"


def test_nothing_of_a_left_out_image_reaches_the_weights(tiny, listed, tmp_path):
    data = replace(tiny, own_validation=tiny.test.unlock())  # else other labels would hold other images out
    images, labels, out = tiny.development.images.clone(), tiny.development.labels.clone(), torch.tensor(LISTED)
    images[out], labels[out] = 255 - images[out], (labels[out] + 1) % 10
    other = replace(data, development=replace(tiny.development, images=images, labels=labels))
    runs = [train(listed, one, tmp_path / name, machine=CPU, plots=False) for name, one in (("a", data), ("b", other))]
    assert_identical(*runs)
    assert runs[0].summary["train_images"] == 235


def test_a_run_knows_what_it_left_out_when_the_list_is_gone(tiny, listed, tmp_path):
    heard = Heard()
    run = train(listed, tiny, tmp_path / "run", machine=CPU, plots=False, reporter=heard)
    (tmp_path / "list.csv").unlink()
    again = Run.open(run.path)
    assert again.data.left_out == tuple(map(str, LISTED)) == again.check_data(tiny).left_out
    assert any("left out, by list.csv" in line for line in heard.lines)
    assert train(listed, tiny, tmp_path / "run", machine=CPU, plots=False).path == run.path  # finished, as before
    assert (
        "left out",
        f"{again.data['trained_without']} training images named by a list, see data.json",
    ) in data_section(again, None)["rows"]
    assert name_of_group(again.recipe).endswith("leave_out list.csv") and "leave_out list.csv" in title_of(listed)
    assert str(tmp_path) in name_of_group(again.recipe, exact=True)


def test_it_was_not_trained_on_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=pixels, labels=np.arange(60) % 2)
    (tmp_path / "list.txt").write_text("".join(f"{row}\n" for row in range(10)))
    made = vary(SMALL, leave_out=str(tmp_path / "list.txt"), batch_size=8, validation=0, resolution=(1.0,))
    run = train(made, tmp_path / "some.npz", tmp_path / "run", machine=CPU, plots=False)
    seen, _ = trained_on(run, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
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
    message = r"list.csv is another list than when .*run began; put it back as it was, or choose another --out"
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
    both = [train(vary(SMALL, seed=seed), tiny, tmp_path / f"all-{seed}", machine=CPU, plots=False) for seed in (0, 1)]
    found = compare([*both, first, second])
    assert len(found.groups) == 2 and found.pairs[0].by_seed  # the same images were held out


def test_a_study_does_not_go_on_by_a_list_that_was_changed(here, capsys):
    pictures(here / "pics")
    (here / "list.txt").write_text("a/1.png\n")
    (here / "study.toml").write_text(
        'name = "cleaned"\ndataset = "pics"\nseeds = 1\n[fields]\nepochs = 1\nwidths = [8, 16, 16]\nbatch_size = 8\n'
        '[[variant]]\nname = "all"\n[[variant]]\nname = "cleaned"\nleave_out = "list.txt"\n'
    )
    assert command_line(["study", "study.toml", "--out", "study", "--threads", "1"]) == 0
    (here / "list.txt").write_text("b/1.png\n")
    assert command_line(["study", "study.toml", "--out", "study", "--seeds", "2", "--threads", "1"]) == 2
    assert "list.txt is another list than when study/cells/cleaned-s0 began" in capsys.readouterr().err


def test_campaigns_are_of_recipes_and_leave_nothing_out(here, capsys):
    (here / "list.txt").write_text("1\n")
    assert command_line(["bench", "general", "--leave-out", "list.txt"]) == 2
    assert "leave_out is for your own runs, and bench measures recipes" in capsys.readouterr().err


@pytest.mark.parametrize("left_out", [5, None, "123", [1]])
def test_a_damaged_record_of_what_was_left_out_is_one_line(tiny, tmp_path, left_out):
    run = train(SMALL, tiny, tmp_path / "run", machine=CPU, plots=False)
    told = json.loads((run.path / "data.json").read_text())
    (run.path / "data.json").write_text(json.dumps(told | {"left_out": left_out}))
    with pytest.raises(UserError, match=r"data.json is damaged: its left_out is no list of names"):
        Run.open(run.path)


def test_a_run_from_before_there_were_lists_is_opened_and_cut_as_it_was(tiny, tmp_path):
    run = train(SMALL, tiny, tmp_path / "run", machine=CPU, plots=False)
    told = json.loads((run.path / "data.json").read_text())
    del told["left_out"], told["trained_without"]
    (run.path / "data.json").write_text(json.dumps(told))
    assert torch.equal(Run.open(run.path).check_data(tiny).train.rows, tiny.with_validation(**SMALL.cut).train.rows)


def test_a_class_that_is_held_out_as_a_whole_has_none_to_lose(tiny):
    labels = tiny.development.labels.clone()
    labels[0], labels[1:] = 9, labels[1:] % 9
    data = replace(tiny, development=replace(tiny.development, labels=labels))
    fold = next(fold for fold in range(2) if 0 in data.with_validation(0, seed=0, folds=2, fold=fold).validation.rows)
    assert data.with_validation(0, seed=0, folds=2, fold=fold, leave_out=["5", "6"]).left_out == ("5", "6")


# ---------------------------------------------------------------- names


def test_a_text_file_has_a_name_in_each_line_and_comments(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeff# mine\r\n  # and yours\r\n 12 \r\n\r\ntrain 7\r\n12\r\n".encode())
    assert names_in(tmp_path / "list.txt", titles=("image",)) == [" 12 ", "train 7", "12"]


def test_numbers_are_those_that_doctor_prints(tiny, tmp_path):
    (tmp_path / "list.txt").write_text("train 12\n7\n")
    cut = tiny.with_validation(0, seed=0, leave_out=tmp_path / "list.txt")
    assert cut.left_out == ("7", "12") and tiny.with_validation(0, seed=0, leave_out=["5"]).left_out == ("5",)


def test_files_are_named_below_the_folder_or_as_one_types_them_and_accents_in_either_form(here):
    pictures(here / "pics", classes=("a", "caf\u00e9"))
    data = load_dataset("pics", validation=0)
    names = ["./a/0.png", "pics/a/1.png", str(here / "pics" / "a" / "2.png"), normalize("NFD", "caf\u00e9/3.png")]
    cut = data.with_validation(0, seed=0, leave_out=names)
    assert cut.left_out == ("a/0.png", "a/1.png", "a/2.png", "caf\u00e9/3.png") and len(cut.train) == 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", None, r"cannot read .*list.txt: No such file"),
        ("list.csv", None, r"cannot read .*list.csv: No such file"),
        ("list.json", "[1]", r"list.json is no list of images; give a .csv file with a column image, or a .txt file"),
        (
            "list.csv",
            "place\n1\n",
            r"has no column image, or several; its first line must name one \(it has 'place'\)",
        ),
        ("list.csv", "", r"must name one \(it has nothing\)"),
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


def test_links_are_named_as_they_are_and_odd_names_as_they_are_written(here):
    pictures(here / "store", classes=("a", "b"))
    for name in ("a", " c"):
        (here / "pics" / name).mkdir(parents=True)
        for number in range(12):
            (here / "pics" / name / f"{number}.png").symlink_to(here / "store" / "ab"[name == " c"] / f"{number}.png")
    data = load_dataset("pics", validation=0)
    names = ["pics/a/1.png", str(here / "pics" / "a" / "2.png"), " c/3.png", "c/4.png"]
    assert data.with_validation(0, seed=0, leave_out=names).left_out == (" c/3.png", " c/4.png", "a/1.png", "a/2.png")


def test_a_name_that_two_images_have_is_refused_unless_it_is_written_as_one_of_them(here):
    pictures(here / "pics", classes=("a", "b"))
    for form in ("NFC", "NFD"):
        shutil.copy(here / "pics" / "a" / "0.png", here / "pics" / "a" / normalize(form, "caf\u00e9.png"))
    data = load_dataset("pics", validation=0)
    names = [normalize(form, "a/caf\u00e9.png") for form in ("NFC", "NFD")]
    for name in names:
        assert data.with_validation(0, seed=0, leave_out=[name]).left_out == (name,)
    with pytest.raises(UserError, match=r"and pics has several images that are called so"):
        data.with_validation(0, seed=0, leave_out=[names[0] + " "])


def test_names_of_files_that_are_not_trained_on_say_why(here):
    for split in ("train", "test"):
        pictures(here / "pics" / split)
    data = load_dataset("pics", validation=0)
    with pytest.raises(
        UserError, match=r"names 'test/a/3.png', which is a test image of pics; only training images can be"
    ):
        data.with_validation(0, seed=0, leave_out=["test/a/3.png"])
    with pytest.raises(
        UserError,
        match=r"and pics has no such training image; if it was moved or deleted, take it off .*as in 'train/a/0.png'",
    ):
        data.with_validation(0, seed=0, leave_out=["a/0.png"])


def test_an_empty_list_leaves_nothing_out(tiny, tmp_path):
    (tmp_path / "list.csv").write_text("image,class,fault,about\n")
    cut = tiny.with_validation(0, seed=0, leave_out=tmp_path / "list.csv")
    assert len(cut.train) == 240 and told(cut, "list.csv") == "note: list.csv names no image, so none is left out"


# ---------------------------------------------------------------- the command line


def test_the_flag_is_kept_with_its_whole_path_and_told(here, capsys):
    pictures(here / "pics")
    (here / "list.txt").write_text("a/0.png\nb/5.png\n")
    assert command_line(["train", "pics", "--out", "run", "--leave-out", "list.txt", *SHORT]) == 0
    said = capsys.readouterr().err
    assert "left out, by list.txt" in said and "leave_out list.txt with " in said
    run = Run.open("run")
    assert run.recipe.leave_out == str(here / "list.txt") and run.data.left_out == ("a/0.png", "b/5.png")
    held_out = set(run.load_data().validation.rows.tolist()) & {0, 17}  # a/0.png and b/5.png, of 12 each
    trained = 24 - run.summary["validation_images"] - 2 + len(held_out)
    assert run.summary["train_images"] == trained
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
