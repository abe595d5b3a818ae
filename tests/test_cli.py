"""The command line as its users meet it: what it prints, where, and how it ends."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import CPU, pictures, thumbnet
from thumbnet.cli.main import COMMANDS
from thumbnet.cli.main import run as command_line
from thumbnet.cli.train import guessing, outcome
from thumbnet.files import write_json
from thumbnet.machine import Moment, moment, others_note
from thumbnet.recipes import recipe, vary
from thumbnet.runs.run import Run
from thumbnet.training.loop import train

SHORT = ("--epochs", "1", "--threads", "1", "--widths", "8", "16", "16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one finished run, made by the real command."""
    place = tmp_path_factory.mktemp("cli")
    result = thumbnet("train", "fashion-mini", *SHORT, "--out", "runs/first", "--json", cwd=place)
    assert result.returncode == 0, result.stderr
    return place, result


# ------------------------------------------------------------------------------------- what it prints


def test_help_names_every_command_and_what_it_does(tmp_path):
    result = thumbnet("--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in result.stdout
    assert "Train a classifier" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_ends_well_and_shows_an_example(command, capsys):
    assert command_line([command, "--help"]) == 0
    assert f"Example: thumbnet {command}" in " ".join(capsys.readouterr().out.split())


def test_every_recipe_field_is_a_flag(capsys):
    import dataclasses

    from thumbnet.recipes import Recipe

    command_line(["train", "--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(Recipe):
        if field.name != "name":
            assert f"--{field.name.replace('_', '-')}" in shown


def test_train_json_is_one_object_on_stdout_and_prose_goes_to_stderr(trained):
    place, result = trained
    summary = json.loads(result.stdout)
    assert summary.keys() >= {
        "run", "recipe", "seed", "device", "epochs", "validation_accuracy", "train_seconds", "wall_seconds", "images_per_second"
    }  # fmt: skip
    assert summary["run"] == "runs/first"
    assert 0.5 < summary["validation_accuracy"] <= 1
    assert "epoch   1/1" in result.stderr
    assert "\r" not in result.stderr and "\x1b" not in result.stderr
    assert (place / "runs" / "latest").resolve() == (place / "runs" / "first").resolve()


def test_evaluate_json_has_the_promised_keys(trained):
    place, _ = trained
    result = thumbnet("evaluate", "runs/latest", "--json", "--threads", "1", cwd=place)
    scores = json.loads(result.stdout)
    assert scores.keys() >= {"run", "split", "images", "accuracy", "top5", "loss", "views", "interval95"}
    assert (scores["split"], scores["images"], scores["views"]) == ("validation", 600, 1)
    low, high = scores["interval95"]
    assert low < scores["accuracy"] < high
    balanced = scores["balanced_accuracy"]
    assert balanced == pytest.approx(scores["accuracy"])  # each class has sixty images
    text = thumbnet("evaluate", "runs/latest", "--threads", "1", cwd=place).stdout
    told = f"balanced     {balanced:.2%}  (accuracy, all classes counting alike); macro F1 {scores['macro_f1']:.4f}"
    assert told in text.splitlines()


def test_evaluate_counts_the_openings_of_the_test_split_and_says_so(trained):
    place, _ = trained
    for count, more in ((1, ()), (1, ("--confusion", "of-the-same.csv")), (2, ("--views", "2"))):
        result = thumbnet("evaluate", "runs/first", "--split", "test", "--threads", "1", *more, cwd=place)
        assert result.returncode == 0
        assert (
            f"on 1,000 test images of fashion-mini (test set opened {count} time{'s' * (count > 1)} for this run)"
            in result.stdout
        )
        assert ("opened 1 time before for this run" in result.stderr) == (count == 2)
        assert ("nothing was opened" in result.stderr) == bool(more) * (count == 1)
    words = ("--robustness", "--images", "2", "--split", "test", "--threads", "1")
    corrupted = thumbnet("evaluate", "runs/first", *words, cwd=place)
    assert "opened 2 times before for this run" in corrupted.stderr
    assert (
        "2 test images of fashion-mini, corrupted, in one view (test set opened 3 times for this run)"
        in corrupted.stdout
    )
    looks = [json.loads(line) for line in (place / "runs" / "first" / "test-openings.jsonl").read_text().splitlines()]
    assert [look["images"] for look in looks] == [1_000, 1_000, 2]


def test_predict_prints_tables_csv_and_json_for_files_and_folders(trained, tmp_path):
    place, _ = trained
    with np.load(Path(sys.modules["thumbnet.data.embedded"].__file__).parent / "fashion-mini.npz") as stored:
        for index in range(3):
            Image.fromarray(stored["test_images"][index, 0]).save(tmp_path / f"{index}, {index}.png")
    run = str(place / "runs" / "first")
    table = thumbnet("predict", run, tmp_path, "--top", "2", cwd=place).stdout.splitlines()
    assert len(table) == 3 and all("%" in line for line in table)
    csv = thumbnet("predict", run, tmp_path, "--format", "csv", "--output", tmp_path / "out.csv", cwd=place)
    assert csv.stdout == ""
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "file,class,probability" and lines[1].startswith('"')
    found = json.loads(thumbnet("predict", run, tmp_path / "1, 1.png", "--json", "--top", "3", cwd=place).stdout)
    assert len(found["images"]) == 1 and len(found["images"][0]["ranking"]) == 3


def test_data_notices_a_bit_that_changed_in_the_cache_since_the_conversion(here, capsys, monkeypatch):
    monkeypatch.setenv("THUMBNET_CACHE", str(here / "cache"))
    pictures(here / "pets")
    assert command_line(["data", "pets"]) == 0
    [pack] = (here / "cache" / "packs").glob("*.safetensors")
    content = bytearray(pack.read_bytes())
    content[-40_000] ^= 1
    pack.write_bytes(content)
    assert command_line(["data", "pets"]) == 2
    assert "train_images has SHA-256" in capsys.readouterr().err


def test_preview_draws_both_pages_and_estimates(here, capsys):
    words = ["preview", "fashion-mini", "--rows", "2", "--across", "3", "--threads", "1", "--json"]
    assert command_line(words) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["parameters"] == 912_776 and seen["step_seconds"] > 0 and seen["steps"] == 54 * recipe("general").epochs
    sizes = []
    for page in ("stored", "augmented"):
        with Image.open(seen[page]) as picture:
            sizes.append(picture.size)
            assert len(picture.convert("L").getcolors(10_000)) > 50  # not an empty page
    assert sizes[0] == sizes[1]
    assert Path(seen["stored"]).read_bytes() != Path(seen["augmented"]).read_bytes()


def test_half_an_epoch_may_be_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "fashion-mini", "--epochs", "0.5", "--widths", "8", "16", "16", "--out", "run", "--no-report"]
    assert command_line([*words, "--threads", "1"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 0.5


def test_a_fault_of_ours_has_a_traceback_and_an_exit_code_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr("thumbnet.cli.main.make_app", lambda: {}["missing"])
    assert command_line(["list", "recipes"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_out_of_memory_advises_flags_that_the_command_has(command, capsys, monkeypatch):
    command_line([command, "--help"])
    text = capsys.readouterr().out
    flags = [flag for flag in ("--batch-size", "--image-size") if f"{flag} " in text]

    def fail():
        raise RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("thumbnet.cli.main.make_app", fail)
    assert command_line([command, "x"]) == 1
    told = f"try a smaller {' or '.join(flags)}" if flags else "end what else needs much of it, and run again"
    assert capsys.readouterr().err == f"thumbnet: out of memory; {told}\n"


@pytest.mark.parametrize("what", ["recipes", "models", "datasets", "augmentations"])
def test_list_shows_every_name(what, capsys):
    from thumbnet import list_datasets, list_models, list_recipes

    assert command_line(["list", what, "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)[what]]
    known = {"recipes": list_recipes, "models": list_models, "datasets": list_datasets}
    assert (
        names
        == known.get(
            what, lambda: ["flip", "alternate_flip", "zoom", "shift", "crop", "jitter", "cutout", "cutmix", "mixup"]
        )()
    )
    assert command_line(["list", what]) == 0
    shown = capsys.readouterr().out
    assert [name for name in names if name not in shown] == []


def test_data_describes_a_folder_and_names_what_it_ignored(here, capsys):
    pictures(here / "pics")
    (here / "pics" / "notes.txt").write_text("hello")
    assert command_line(["data", "pics", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["classes"] == {"a": 12, "b": 12}
    assert described["ignored"] == ["notes.txt"]


def test_a_folder_of_pictures_is_trained_evaluated_and_predicted(here, capsys):
    pictures(here / "pics" / "train")
    pictures(here / "pics" / "test", classes=("b", "a"), count=3)
    words = ["train", "pics", "--batch-size", "8", "--out", "run", "--validation", "0.25", *SHORT]
    assert command_line(words) == 0
    assert command_line(["evaluate", "run", "--split", "test", "--json", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["support"] == [3, 3]
    assert command_line(["predict", "run", "pics/test", "--threads", "1"]) == 0


# ------------------------------------------------------------------------------------- configuration


def test_a_config_file_lies_below_flags_and_above_defaults(here):
    (here / "c.toml").write_text(
        "epochs = 1\nlearning_rate = 0.02\nflip = false\ndropout = [0.1]\nthreads = 1\nwidths = [8, 16, 16]\n"
    )
    for words in (["--config", "c.toml", "train", "fashion-mini"], ["train", "fashion-mini", "--config", "c.toml"]):
        out = f"run{len(words[0])}"
        assert command_line([*words, "--learning-rate", "0.05", "--out", out]) == 0
        recipe = Run.open(out).recipe
        assert (recipe.epochs, recipe.learning_rate, recipe.flip, recipe.dropout) == (1, 0.05, False, (0.1,))


def test_the_recipe_file_of_a_run_repeats_it(trained, monkeypatch):
    place, _ = trained
    monkeypatch.chdir(place)
    words = ["train", "fashion-mini", "--config", "runs/first/recipe.toml", "--threads", "1", "--out", "runs/again"]
    assert command_line(words) == 0
    first, again = (load_file(place / "runs" / name / "model.safetensors") for name in ("first", "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_complete_recipe_may_hold_out_a_part_where_the_data_bring_a_validation_split(here):
    pictures(here / "own" / "train", count=6)
    pictures(here / "own" / "val", count=2)
    assert (
        command_line(["train", "own", "--epochs", "1", "--batch-size", "4", "--widths", "8", "16", "16", "--out", "a"])
        == 0
    )
    assert command_line(["train", "own", "--config", "a/recipe.toml", "--out", "b"]) == 0
    assert Run.open(here / "b").summary["validation_images"] == 4


def test_broken_pictures_are_counted_and_listed_when_asked_for(here, capsys):
    pictures(here / "pics")
    (here / "pics" / "b" / "bad.png").write_bytes(b"not a picture")
    assert command_line(["data", "pics", "--skip-broken"]) == 0
    assert "broken       1: b/bad.png" in capsys.readouterr().out


def test_resuming_with_another_recipe_or_field_is_refused(trained, capsys, monkeypatch):
    place, _ = trained
    monkeypatch.chdir(place)
    assert command_line(["train", "fashion-mini", "--out", "runs/first", "--resume", "--seed", "4"]) == 2
    assert "seed 4 (there 0)" in capsys.readouterr().err
    words = ["train", "fashion-mini", "--out", "runs/first", "--resume", "--recipe", "cifar10-resnet18"]
    assert command_line(words) == 2
    assert "was begun with recipe 'general', not 'cifar10-resnet18'" in capsys.readouterr().err


def test_a_run_on_a_folder_is_resumed_with_the_image_size_it_began_with(here, capsys, monkeypatch):
    from thumbnet import signals

    pictures(here / "pics")
    with monkeypatch.context() as patched:
        patched.setattr(
            signals.StopSignals, "check", lambda self: (_ for _ in ()).throw(signals.StopRequested("SIGTERM"))
        )
        assert command_line(["train", "pics", "--batch-size", "4", "--image-size", "24", "--out", "run", *SHORT]) == 75
    pictures(here / "others")
    assert command_line(["train", "others", "--out", "run", "--resume"]) == 2
    assert "was begun on" in capsys.readouterr().err
    assert command_line(["train", "pics", "--out", "run", "--resume"]) == 0
    assert Run.open("run").data["image_size"] == [24, 24]


# ------------------------------------------------------------------------------------- signals


TWO_EPOCHS = (
    "train", "fashion-mini", "--epochs", "2", "--threads", "1", "--dropout", "0.1", "--zoom", "0.1",
    "--widths", "16", "32", "64", "--no-report",
)  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The weights of two epochs that nothing interrupted."""
    place = tmp_path_factory.mktemp("unbroken")
    whole = thumbnet(*TWO_EPOCHS, "--out", "whole", cwd=place)
    assert whole.returncode == 0, whole.stderr
    return load_file(place / "whole" / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_in_a_checkpoint_exit_75_and_a_resume_to_the_same_bits(number, unbroken, tmp_path):
    command = [sys.executable, "-m", "thumbnet.cli.main", *TWO_EPOCHS, "--out", "cut"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch   1/2" in line:
            break
    time.sleep(0.02)  # into the second epoch
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert f"stopped by {number.name} in epoch 2" in told
    assert "continue with: thumbnet train fashion-mini --out cut --resume" in told

    resumed = thumbnet("train", "fashion-mini", "--out", "cut", "--resume", "--no-report", cwd=tmp_path)

    assert resumed.returncode == 0, resumed.stderr
    cut = load_file(tmp_path / "cut" / "model.safetensors")
    assert unbroken.keys() == cut.keys()
    assert all(torch.equal(unbroken[name], cut[name]) for name in unbroken)


def test_output_cut_off_by_its_reader_is_no_error(trained):
    place, _ = trained
    shell = f"{sys.executable} -m thumbnet.cli.main list models | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell], cwd=place, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_output_that_a_full_disk_does_not_take_is_told_in_one_line(trained):
    place, _ = trained
    words = [sys.executable, "-m", "thumbnet.cli.main", "list", "models"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(words, cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr == "thumbnet: the output: No space left on device; free some space and run again\n"


def test_the_recipe_of_a_run_with_a_fraction_of_an_epoch_repeats_it_though_fractions_cannot_be_typed(here, capsys):
    (here / "part.toml").write_text("epochs = 0.1\nwidths = [8, 16, 16]\n")
    assert command_line(["train", "fashion-mini", "--config", "part.toml", "--out", "one", "--threads", "1"]) == 0
    assert command_line(["train", "fashion-mini", "--config", "one/recipe.toml", "--out", "two", "--threads", "1"]) == 0
    assert (here / "one" / "model.safetensors").read_bytes() == (here / "two" / "model.safetensors").read_bytes()


def test_letters_that_the_terminal_lacks_do_not_end_a_command(here):
    pictures(here / "pics", classes=("\u732b", "\u72ac"))
    command = [sys.executable, "-m", "thumbnet.cli.main", "data", "pics"]
    done = subprocess.run(
        command, cwd=here, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert (done.returncode, "\\u732b" in done.stdout) == (0, True), done.stderr


# ------------------------------------------------------------------------------------- where output goes


@pytest.fixture
def picture(trained, here):
    """A file to classify, in the folder that one is in."""
    Image.fromarray(np.full((28, 28), 90, np.uint8)).save(here / "a.png")
    return trained[0] / "runs" / "first", "a.png"


def test_a_pipe_gets_what_is_written_and_stays_a_pipe(picture, here):
    run, file = picture
    commands = {
        "said.csv": ["predict", run, file, "--output"],
        "confusion.png": ["evaluate", run, "--confusion"],
        "model.onnx": ["export", run],
    }
    starts = {"said.csv": b"file,class,probability\n", "confusion.png": b"\x89PNG", "model.onnx": b"\x08"}
    for name, words in commands.items():
        os.mkfifo(here / name)
        with subprocess.Popen(["cat", name], stdout=subprocess.PIPE) as reader:
            try:
                assert command_line([str(word) for word in [*words, name]]) == 0
                assert (here / name).is_fifo()
                assert reader.communicate(timeout=10)[0].startswith(starts[name])
            finally:
                reader.kill()


def test_where_stdout_goes_is_written_into_behind_what_stands_there(picture, here):
    run, file = picture
    (here / "printed").symlink_to("/proc/self/fd/1")  # as /dev/stdout is, which no test may put at risk
    (here / "all").write_text("before\n")
    with open(here / "all", "a") as output:
        words = ["predict", run, file, "--output", "printed", "--format", "csv"]
        done = subprocess.run([sys.executable, "-m", "thumbnet.cli.main", *words], stdout=output, timeout=60)
    assert (done.returncode, (here / "printed").is_symlink()) == (0, True)
    assert (here / "all").read_text().startswith("before\nfile,class,probability\na.png,")


def test_a_terminal_behind_a_link_is_written_into_and_a_link_to_a_file_gives_way(picture, here):
    run, file = picture
    (here / "kept").write_text("kept")
    (here / "said.csv").symlink_to("kept")
    assert command_line(["predict", str(run), file, "--output", "said.csv"]) == 0
    assert not (here / "said.csv").is_symlink() and (here / "kept").read_text() == "kept"
    ours, theirs = os.openpty()
    (here / "terminal").symlink_to(os.ttyname(theirs))
    assert command_line(["predict", str(run), file, "--output", "terminal", "--format", "csv"]) == 0
    assert (here / "terminal").is_symlink()
    assert os.read(ours, 100).startswith(b"file,class,probability")
    for descriptor in (ours, theirs):
        os.close(descriptor)


def test_a_pipe_without_permission_and_a_whole_disk_are_refused_before_work_is_done(here, capsys, monkeypatch):
    os.mkfifo(here / "said.csv")
    words = ["predict", "run", "a.png", "--output", "said.csv"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert command_line(words) == 2
    assert "cannot write said.csv: you lack the permission; choose another place" in capsys.readouterr().err
    monkeypatch.setattr("thumbnet.files.stat.S_ISBLK", lambda mode: True)
    assert command_line(words) == 2
    assert "cannot write said.csv: it is a whole disk; give the name of a file" in capsys.readouterr().err


def test_names_that_are_not_unicode_go_through_training_and_into_all_that_is_written(here):
    pictures(here / "pics", count=4)
    pics = os.fsencode(here / "pics")
    os.rename(pics + b"/b", pics + b"/\xffb")
    os.rename(pics + b"/a/0.png", pics + b"/a/\xfe.png")
    (here / os.fsdecode(b"pics/a/\xfd.txt")).touch()
    os.rename(pics, here / os.fsdecode(b"\xfcpics"))
    name = os.fsdecode(b"\xfcpics")
    short = ["--epochs", "1", "--threads", "1", "--widths", "8", "16", "16", "--batch-size", "4", "--out", "run"]
    for words in (
        ["data", name],
        ["train", name, *short],
        ["evaluate", "run", "--predictions", "all.csv", "--confusion", "confusion.png"],
        ["evaluate", "run", "--confusion", "confusion.csv"],
        ["predict", "run", name],
        ["predict", "run", name, "--output", "said.csv"],
        ["predict", "run", name, "--output", "said.json"],
        ["predict", "run", os.path.join(name, "a"), "--explain", "why"],
        ["doctor", name, "--output", "doctor.html"],
        ["report", "run"],
        ["export", "run", "exported"],
    ):
        assert command_line(words) == 0, words
    assert Run.open(here / "run").classes == ("a", "\\udcffb")
    said = (here / "said.csv").read_text(encoding="utf-8")
    assert "\\udcfcpics/a/\\udcfe.png," in said and "\\udcfcpics/\\udcffb/0.png," in said
    files = [row["file"] for row in json.loads((here / "said.json").read_text())["images"]]
    assert all(Path(file).is_file() for file in files) and len(files) == 8


# ------------------------------------------------------------------------------------- small folders, files left out


def test_uneven_classes_are_told_with_the_remedy_unless_it_is_taken(here, capsys):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (66, 28, 28), dtype=np.uint8), np.array(["many"] * 60 + ["few"] * 6)
    np.savez(here / "uneven.npz", images=images, labels=labels)
    short = ("--epochs", "1", "--widths", "8", "8", "8", "--threads", "1", "--no-report")
    told = "note: classes are uneven: many has 60 training images, few 6; --balance 1 lets every class count alike"
    for words, expected in (([], True), (["--balance", "0.5"], False)):
        assert command_line(["train", "uneven.npz", *words, *short]) == 0
        assert (told in capsys.readouterr().err) == expected
    assert command_line(["train", "uneven.npz", "--class-weights", "balanced"]) == 2
    assert "did you mean --balance?" in capsys.readouterr().err


def test_a_small_folder_trains_with_a_recipe_that_fits_it_and_what_was_left_out_is_told(here, capsys):
    pictures(here / "pics")
    (here / "pics" / "b" / "bad.png").write_bytes(b"not a picture")
    (here / "pics" / "a" / "scan.tiff").write_bytes(b"II*")
    assert (
        command_line(["train", "pics", "--skip-broken", "--out", "run", "--epochs", "3", "--widths", "8", "16", "16"])
        == 0
    )
    told = capsys.readouterr().err
    assert "note: 1 file cannot be read and is left out: b/bad.png" in told
    assert (
        "note: 1 file is ignored, no PNG, JPEG, WebP, GIF or BMP image or outside the class folders: a/scan.tiff"
        in told
    )
    assert "note: 2 classes have fewer than 20 training images: a, b; what is learnt of them is little" in told
    assert "note: 22 training images, few for general: batch_size 8 (not 100)" in told
    made = Run.open("run")
    assert made.recipe.batch_size == 8 and made.recipe.epochs == 3
    assert "batch_size = 8" in (here / "run" / "changes.toml").read_text()
    capsys.readouterr()

    assert command_line(["train", "pics", "--skip-broken", "--recipe", "general", "--out", "other"]) == 2
    assert (
        "batch_size 100 is larger than the 22 training images of pics; give less, as in --batch-size 8, or more images"
        in capsys.readouterr().err
    )

    assert command_line(["predict", "run", "pics", "--skip-broken", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["ignored"] == ["pics/a/scan.tiff"]
    assert "ignored: 1 file, no PNG, JPEG, WebP, GIF or BMP by the name: pics/a/scan.tiff" in printed.err

    assert command_line(["train", "pics", "--skip-broken", "--out", "run"]) == 2
    assert "run holds a finished run; choose another --out" in capsys.readouterr().err


def test_a_folder_above_runs_names_one_of_them(trained, capsys, monkeypatch):
    place, _ = trained
    monkeypatch.chdir(place)
    assert command_line(["export", "runs", "model.pt2"]) == 2
    assert "runs is not a run folder: it has no recipe.toml; there is runs/" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_how_the_command_is_typed_and_breaks_no_line_of_its_own(command, capsys):
    assert command_line([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: thumbnet {command} ") and "[ARGS" not in text
    described = getattr(importlib.import_module(f"thumbnet.cli.{command}"), command + "_" * (command == "list")).__doc__
    assert not re.search(r"^    .*\n    ", described, re.M)  # a parameter's second line would be broken there


@pytest.mark.parametrize(
    "words", [["data"], ["doctor"], ["train", "--epochs", "1", "--widths", "8", "16", "16", "--out", "run"]]
)
def test_three_images_of_a_class_are_enough(words, here, capsys):
    pictures(here / "pics", count=3)
    assert command_line([words[0], "pics", *words[1:]]) == 0
    if words[0] == "train":
        assert Run.open("run").summary["validation_images"] == 2


def test_programs_that_compute_beside_a_training_are_told_and_its_own_work_is_not():
    began, cores = Moment(when=10.0, by_all=100.0, by_this=5.0), 2
    assert others_note(began, Moment(when=14.0, by_all=104.0, by_this=8.9), cores) is None
    busy = others_note(began, Moment(when=14.0, by_all=108.0, by_this=9.0), cores)
    assert busy is not None and "keep 1.0 of 2 cores busy" in busy and "--threads 1 may be faster" in busy
    assert others_note(None, began, cores) is None and others_note(began, began, cores) is None


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="Linux tells it there")
def test_a_moment_counts_the_work_of_this_process():
    before = moment()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    now = moment()
    assert 0.25 < now.by_this - before.by_this < 0.6 and now.by_all - before.by_all > 0.1


def test_a_run_that_may_only_guess_is_told_so(tiny, quick, tmp_path):
    run = train(vary(quick, epochs=1), tiny, tmp_path / "run", machine=CPU)
    kept = run.predictions("validation")
    name, part = kept.commonest()
    [note] = guessing(run, part)
    assert note.startswith(
        f"note        always answering {name!r} would already be right for {part:.2%}; this network may be no better"
    )
    assert guessing(run, part + 1e-6) == []
    summary = run.summary | {"validation_interval95": [part - 0.1, part + 0.1]}
    write_json(run.path / "summary.json", summary)
    assert note in outcome(run)
    run.predictions_path("validation", 1).unlink()
    assert guessing(run, 0.0) == []  # nothing is known
