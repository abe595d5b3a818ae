"""Every message that a user can meet stands in a test: some words of each error of the package are found in the tests' text."""

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import thumbnet
from conftest import CPU
from thumbnet.cli.main import run as command_line
from thumbnet.data.cifar import read_cifar10
from thumbnet.data.idx import read_fashion_mnist
from thumbnet.doctor import resuming
from thumbnet.doctor.resuming import check_resuming
from thumbnet.errors import TrainingFailed, UserError
from thumbnet.judging.evaluation import evaluate, open_split
from thumbnet.measuring.measured_run import in_fresh_process
from thumbnet.recipes import recipe
from thumbnet.runs.run import Run
from thumbnet.studies.classic import classic_study
from thumbnet.studies.study_file import read_study
from thumbnet.training.loop import train

SOURCE, TESTS = Path(thumbnet.__file__).parent, Path(__file__).parent
ERRORS = {"UserError", "TrainingFailed", "Interrupted", "ThumbnetError", "Unfit", "_MirrorFailed", "_Broken"}
WINDOW = 3  # words in a row that the test must have


def words(text):
    """Words without signs; what stands between the braces of an f-string separates."""
    return re.findall(r"[A-Za-z0-9]+", text)


def constant_parts(node):
    """The texts in an expression, one for each piece between inserted values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [part.value for part in node.values if isinstance(part, ast.Constant)]
    if isinstance(node, ast.BinOp):
        return constant_parts(node.left) + constant_parts(node.right)
    return []


def messages():
    """(file:line, its constant parts) of every error that is made with a text."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS
            if made and node.args and (parts := constant_parts(node.args[0])):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", parts


def test_every_message_of_an_error_is_tested():
    sources = [path.read_text().replace("\\", "") for path in TESTS.rglob("*.py")]
    known = {row for source in sources for size in range(1, WINDOW + 1) for row in windows(source, size)}
    found = dict(messages())
    assert len(found) > 100
    untested = {}
    for place, parts in found.items():
        size = min(WINDOW, max(len(words(part)) for part in parts))
        rows = [window for part in parts for window in windows(part, size)]
        if size > 1 and not any(row in known for row in rows):  # of one word are those that pass another message on
            untested[place] = " | ".join(parts)
    assert untested == {}


def windows(text, size):
    """Every so many words in a row."""
    found = words(text)
    return [tuple(found[start : start + size]) for start in range(len(found) - size + 1)]


# ------------------------------------------------------------------------------------- those that no other test meets


@pytest.fixture
def said(capsys):
    """What a command complains of, in its one line, and its exit code."""

    def ask(*arguments):
        code = command_line([str(argument) for argument in arguments])
        return code, capsys.readouterr().err.strip().splitlines()[-1]

    return ask


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    short = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=32)
    return train(short, tiny, tmp_path_factory.mktemp("messages") / "run", machine=CPU, plots=False)


@pytest.mark.parametrize(("words_", "told"), [
    ("train fashion-mini --seeds 2 --resume", "--resume with --seeds needs the --out of the first call, which holds its runs"),
    ("train fashion-mini --threads 100000", r"threads is 100000, and this machine has \d+ cores?; give 1 to \d+"),
    ("doctor --labels", "is for data; name a data set or folder, or leave it out to examine this machine"),
    ("doctor --resuming", "is for data; name a data set or folder, or leave it out to examine this machine"),
    ("predict run", r"IMAGE\|FOLDER is missing; type thumbnet predict RUN\|EXPORT IMAGE\|FOLDER... "),
    ("preview fashion-mini --rows 51", "a grid of 51 x 5; give 1 to 50 rows and columns"),
    ("compare RUN RUN", r"run is named twice; name each run once"),
    ("predict RUN broken.png", r"cannot read image broken.png: .*, or skip such files \(--skip-broken\)"),
    ("train fashion-mini --widths 8 16 99999", "widths is 99999; it must be 1 or more and at most 16384"),
    ("train fashion-mini --config deep.toml", "deep.toml is (nested too deeply|not TOML)"),
    ("train fashion-mini --config long.toml", "long.toml is not TOML: it has more than 1,048,576 bytes"),
    ("doctor fashion-mini --resuming --runs taken", "taken is taken; give another --runs"),
])  # fmt: skip
def test_a_command_says_what_is_wrong_and_what_to_do(finished, said, tmp_path, monkeypatch, words_, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "deep.toml").write_text("x = " + "[" * 4000)
    (tmp_path / "long.toml").write_text("#" * (2 << 20))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    code, line = said(*(finished.path if word == "RUN" else word for word in words_.split()))
    assert code == 2
    assert re.search(told, line), line


def test_a_number_of_views_that_there_is_not_is_refused(finished, tiny):
    with pytest.raises(UserError, match="views is 3; choose 1, 2 or 6"):
        evaluate(finished, data=tiny, views=3)


@pytest.mark.parametrize("field", ["learning_rate", "batch_size"])  # a number, a whole number
def test_a_recipe_file_with_a_number_beyond_all_floats_is_refused(tmp_path, field):
    path = tmp_path / "study.toml"
    path.write_text(f"[grid]\n{field} = [" + "9" * 400 + "]")
    with pytest.raises(UserError, match=f"{field} has 400 digits; give a smaller number"):
        read_study(path)


def test_the_report_has_rows_on_two_data_sets_only():
    with pytest.raises(UserError, match="the report has no rows on 'fashion-mini'; choose cifar10 or cifar100"):
        classic_study(scale=1, seeds=1, only="fashion-mini")


def test_a_set_without_test_images_and_an_unknown_split_are_told(finished, tiny, tmp_path):
    with pytest.raises(UserError, match="tiny has no test split; put one into tiny"):
        open_split(finished, replace(tiny, test=None), "test")
    pictures = Run.open(changed(finished, tmp_path / "pictures", broken=[]))
    with pytest.raises(UserError, match="tiny has no test split; put its images into tiny/test/<class>/"):
        open_split(pictures, replace(tiny, test=None), "test")
    with pytest.raises(UserError, match="unknown split 'training'; choose validation or test"):
        open_split(finished, tiny, "training")


def test_a_picture_broken_after_training_is_told_without_advice_that_no_command_takes(quick, tmp_path):
    photos = tmp_path / "photos"
    for name, shade in (("dark", 20), ("light", 230)):
        (photos / name).mkdir(parents=True)
        for index in range(20):
            Image.new("L", (8, 8), shade + index).save(photos / name / f"{index}.png")
    run = train(replace(quick, batch_size=8, micro_batch=0), str(photos), tmp_path / "run", machine=CPU, plots=False)
    (photos / "dark" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0\.png.*; when .*run was trained, it was readable or not there") as caught:
        evaluate(run)
    assert "--skip-broken" not in str(caught.value)


def test_a_run_on_pictures_called_as_a_set_that_was_published_later_stays_one(finished, tmp_path):
    old = Run.open(changed(finished, tmp_path / "old", name="mnist", broken=[], location=str(tmp_path)))
    assert not old.data.is_of("mnist") and old.data.is_of(str(tmp_path))
    assert f"thumbnet train {tmp_path} --out" in old.resume_command


def changed(run, folder, **data):
    """A copy of a run with another data.json."""
    shutil.copytree(run.path, folder)
    told = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(told | data))
    return folder


def test_a_run_folder_says_what_is_wrong_with_it(finished, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"points at .*gone, which is gone; name another run folder"):
        Run.open(tmp_path / "link")
    for name, data, told in (
        ("a", {"channels": 10**9}, "is damaged: its channels are 1000000000"),
        ("b", {"image_size": [1, 10**6]}, r"is damaged: its image_size is \[1, 1000000\]"),
        ("c", {"classes": ["a"]}, "is damaged: its classes are no list of 2 to 100000 names"),
        ("d", {"name": 3}, "is damaged: 'name' is '3'"),
    ):
        with pytest.raises(UserError, match=told):
            Run.open(changed(finished, tmp_path / name, **data))
    folder = changed(finished, tmp_path / "e")
    with (folder / "recipe.toml").open("a") as file:
        file.write("colour = 'blue'\n")
    with pytest.raises(UserError, match="has unknown fields: colour"):
        Run.open(folder)


def test_a_run_folder_that_is_gone_is_not_made_anew_by_what_is_written_into_it(finished, tmp_path):
    run = Run.open(changed(finished, tmp_path / "run"))
    shutil.rmtree(run.path)
    for write in (lambda: run.log_epoch({"epoch": 1}), lambda: run.save_calibration({}), lambda: run.finish({})):
        with pytest.raises(UserError, match=r"cannot write .*: the run folder is gone; look for it, or train again"):
            write()
    assert not run.path.exists()


def test_weights_that_are_lost_or_changed_are_not_used(finished, tmp_path):
    folder = changed(finished, tmp_path / "run")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"is not what training wrote \(SHA-256 [0-9a-f]{64}\); train again"):
        Run.open(folder).model()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has lost its model.safetensors; train again"):
        Run.open(folder).model()


def test_a_run_that_ended_before_it_could_be_killed_shows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "start", lambda *ignored: subprocess.Popen(["true"]))
    monkeypatch.setattr(resuming, "end", lambda process, log: process.wait())
    with pytest.raises(
        TrainingFailed, match=r"general ended before it could be killed, so nothing was shown; see .*log"
    ):
        check_resuming("fashion-mini", 5400, recipe("general"), tmp_path / "runs", [], lambda line: None)


def test_a_seed_whose_process_fails_is_named(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TrainingFailed, match=r"the run with seed 7 failed \(exit code 1\); --resume keeps the others"):
        in_fresh_process({"changes": {"seed": 7}})


def test_a_folder_without_the_files_of_fashion_mnist_says_which_it_lacks(tmp_path):
    with pytest.raises(
        UserError, match=r"lacks train-images-idx3-ubyte \(or .*\.gz\); put the four files of Fashion-MNIST there"
    ):
        read_fashion_mnist(tmp_path)


def test_a_batch_of_cifar_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    for name in (
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
        "batches.meta",
    ):
        (tmp_path / name).write_bytes(b"x")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot read .*: Permission denied; check its permissions and the disk"):
        read_cifar10(tmp_path)
