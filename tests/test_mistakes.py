"""What a user can mend: one line that says what was received and what to do, and nothing half made."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import pictures
from thumbnet.cli.main import run as command_line

SHORT = ("--epochs", "1", "--threads", "1", "--widths", "8", "16", "16")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("train cifar-10", ["no folder 'cifar-10' here", "unknown data set 'cifar-10'", "did you mean 'cifar10'"]),
        ("train CIFAR10", ["unknown data set 'CIFAR10'", "did you mean 'cifar10'"]),
        ("trian cifar10", ["unknown command 'trian'; did you mean train?"]),
        ("help", ["unknown command 'help'; thumbnet --help lists all"]),
        ("train fashion-mini --recipe generel", ["unknown recipe 'generel'", "did you mean 'general'"]),
        ("train fashion-mini --model resnet81", ["unknown model 'resnet81'", "did you mean 'resnet18'"]),
        ("train fashion-mini --epoch 3", ["unknown option --epoch", "did you mean --epochs"]),
        ("train fashion-mini --lr 0.1", ["unknown option --lr", "did you mean --learning-rate"]),
        ("train fashion-mini --zzz 0.1", ["unknown option --zzz; thumbnet train --help lists all options"]),
        ("train fashion-mini --flip no", ["--flip takes no value, and 'no' follows it; type --flip or --no-flip"]),
        ("evaluate taken --views 1 1", ["taken is not a run folder"]),
        ("evaluate taken --json yes", ["taken is not a run folder"]),
        ("train fashion-mini --widths 16,32", ["--widths 16,32: separate the values with spaces: --widths 16 32"]),
        ("train --widths 16 32 fashion-mini --epochs 1", [
            "NAME|PATH is missing: 'fashion-mini' was read as a value of --widths; type thumbnet train fashion-mini --widths"]),
        ("train fashion-mini --config table.toml", ["the table [train] is not read; write its options at the top of the file"]),
        ("predict taken x.png --json --output o.csv", ["--json, and --output for csv: leave one of them out"]),
        ("predict taken x.png --json --format table", ["--json, and --format for table: leave one of them out"]),
        ("train fashion-mini --epochs 0", ["epochs is 0", "it must be 0.01 or more"]),
        ("train fashion-mini --batch-size 1.5", ["--batch-size", "'1.5' is not a whole number"]),
        ("train fashion-mini --epochs ten", ["--epochs ten: 'ten' is not a number"]),
        ("train fashion-mini --learning-rate fast", ["--learning-rate fast: 'fast' is not a number"]),
        ("train fashion-mini --warmup 0.1 --schedule constant", ["warmup has no effect without schedule cosine or linear"]),
        ("train fashion-mini --optimizer adamm", ["unknown optimizer 'adamm'; did you mean 'adam'?"]),
        ("train fashion-mini --batch-size 6000", ["batch_size 6000 is larger than the 5,400 training images"]),
        ("train fashion-mini --device cuda", ["device cuda is not available here", "--device cpu"]),
        ("train fashion-mini --threads 0", ["threads is 0", "give 1 to"]),
        ("train fashion-mini --gpu-memory-limit 3GB --device cpu", ["--gpu-memory-limit 3072MB needs a CUDA device"]),
        ("train fashion-mini --gpu-memory-limit 3kB", ["--gpu-memory-limit", "'3kB' is no amount of memory", "3072MB or 3GB"]),
        ("train fashion-mini --dropout 0.1 0.2", ["dropout has 2 rates for model 'speednet_slim', which takes 1"]),
        ("train fashion-mini --config absent.toml", ["cannot read the config file absent.toml"]),
        ("train fashion-mini --config broken.toml", ["broken.toml is not TOML"]),
        ("train fashion-mini --config unknown.toml", ["unknown option epohs in", "unknown.toml", "did you mean epochs?"]),
        ("train fashion-mini --config fraction.toml", ["batch_size", "'1.5' is not a whole number"]),
        ("train fashion-mini --out taken", ["taken is taken; choose another --out"]),
        ("train fashion-mini --out taken/file.txt/x", ["cannot write taken/file.txt/x", "Not a directory"]),
        ("train fashion-mini --out taken --resume", ["taken is not a run folder: it has no recipe.toml"]),
        ("train fashion-mini --resume --out new", [
            "there is no run in new to go on with; leave out --resume to begin one there"]),
        ("train fashion-mini --resume", ["nothing to resume", "--out"]),
        ("train", ["NAME|PATH is missing; type thumbnet train NAME|PATH"]),
        ("list", ["recipes|models|datasets|augmentations is missing; type thumbnet list"]),
        ("evaluate", ["name what to measure, as in: thumbnet evaluate runs/latest"]),
        ("train ./nowhere", ["there is no folder ./nowhere"]),
        ("train empty/", ["empty"]),
        ("train one/", ["one", "class"]),
        ("train hollow/", ["hollow/b"]),
        ("train spoilt/", ["spoilt/b/bad.png", "--skip-broken"]),
        ("train fashion-mini --validation 1", ["validation is 1", "below 1"]),
        ("evaluate nowhere", ["there is no run folder nowhere", "thumbnet train"]),
        ("evaluate taken", ["taken is not a run folder"]),
        ("evaluate taken --views 3", ["--views", '"3"']),
        ("evaluate taken --split train", ['"train"', '"validation"', '"test"']),
        ("predict taken absent.png", ["absent.png"]),
        ("predict taken", ["IMAGE|FOLDER is missing; type thumbnet predict RUN|EXPORT IMAGE|FOLDER"]),
        ("preview fashion-mini --rows 0", ["rows is 0"]),
        ("preview fashion-mini --device cuda", ["device cuda is not available here"]),
        ("train fashion-mini --crop 40", ["crop 40 is not smaller than the images of 28 x 28 pixels"]),
        ("train fashion-mini --image-size 64", ["image_size", "images in files"]),
        ("bench general --data-dir .", ["data_dir . is for the files of published sets, not for fashion-mini"]),
        (
            "train small --image-size 4 --recipe general --batch-size 4",
            ["cannot take images of 4 x 4 pixels at resolution 0.75; use larger ones, or --resolution 4"],
        ),
        (
            "train small --image-size 16 --recipe general --batch-size 4",
            ["speednet_slim cannot take images of 16 x 16 pixels at resolution 0.", "use larger ones, or --resolution 1"],
        ),
        ("train fashion-mini --out " + "x" * 300, ["File name too long"]),
        ("evaluate " + "x" * 300, ["File name too long"]),
        ("list recipe", ['"recipe"', '"recipes"']),
        ("data cifar10 --data-dir absent", ["the data folder absent does not exist"]),
        ("data cifar10 --data-dir taken", ["taken holds no cifar10"]),
        ("data fashion-mini --data-dir taken", ["is for sets that come as files; fashion-mini lies inside the package"]),
        ("train own --validation 0.2", ["validation 0.2 has no effect: own brings its own validation images; leave it out"]),
        ("preview own --validation 0.2", ["validation 0.2 has no effect"]),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_in_one_line_with_exit_code_2_and_nothing_is_made(words, parts, here, capsys):
    (here / "taken").mkdir()
    (here / "taken" / "file.txt").write_text("mine")
    (here / "empty").mkdir()
    pictures(here / "one", classes=("a",))
    pictures(here / "hollow")
    for picture in (here / "hollow" / "b").iterdir():
        picture.unlink()
    pictures(here / "small")
    pictures(here / "own" / "train")
    pictures(here / "own" / "val")
    pictures(here / "spoilt")
    (here / "spoilt" / "b" / "bad.png").write_bytes(b"not a picture")
    (here / "broken.toml").write_text("epochs = = 3\n")
    (here / "unknown.toml").write_text("epohs = 3\n")
    (here / "fraction.toml").write_text("batch_size = 1.5\n")
    (here / "table.toml").write_text("[train]\nepochs = 1\n")
    before = sorted(here.rglob("*"))

    code = command_line(words.split())

    printed = capsys.readouterr()
    assert code == 2, printed.err
    complaint = [line for line in printed.err.splitlines() if line.startswith("thumbnet: ")]
    assert len(complaint) == 1
    assert "Traceback" not in printed.err
    assert [part for part in parts if part not in complaint[0]] == [], complaint[0]
    assert printed.out == ""
    assert sorted(here.rglob("*")) == before
    assert (here / "taken" / "file.txt").read_text() == "mine"


def test_the_folder_one_is_in_does_not_become_a_run(here, capsys):
    assert command_line(["train", "fashion-mini", "--out", "."]) == 2
    assert "--out . is the folder you are in; name one to be made" in capsys.readouterr().err
    assert not list(here.iterdir())


def cifar_like(folder: Path, **changes):
    """A small set in CIFAR-10's layout, with parts replaced: real structure, invented pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    content = {"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [k % 10 for k in range(20)]}
    content |= changes
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        (folder / name).write_bytes(pickle.dumps({key.encode(): value for key, value in content.items()}, protocol=2))
    meta = {b"label_names": [letter.encode() for letter in "abcdefghij"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    ("changes", "spoil", "part"),
    [
        (
            {},
            lambda folder: (folder / "data_batch_3").write_bytes((folder / "data_batch_3").read_bytes()[:-999]),
            "data_batch_3",
        ),
        ({}, lambda folder: (folder / "test_batch").rename(folder / "test_batch.bak"), "test_batch"),
        ({"data": np.zeros((20, 3071), np.uint8)}, None, "3072"),
        ({"labels": [10] * 20}, None, "label"),
        ({"labels": [1] * 19}, None, "19"),
        ({"labels": Payload()}, None, "system"),
    ],
    ids=["truncated", "renamed", "shape", "label", "count", "code"],
)
def test_a_damaged_or_hostile_cifar_file_is_refused_by_name(changes, spoil, part, here, capsys):
    cifar_like(here / "cifar-10-batches-py", **changes)
    if spoil:
        spoil(here / "cifar-10-batches-py")
    assert command_line(["train", "cifar10", "--data-dir", str(here), *SHORT]) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("thumbnet: ") and part in complaint
    assert not (here / "executed").exists()
    assert not (here / "runs").exists()


def test_a_disk_that_is_full_is_told_in_one_line(tmp_path):
    """A limit on the size of files stands in for the disk: it ends in the same error of the same call."""
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); "
        "from thumbnet.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", limited, "train", "fashion-mini", "--epochs", "1", "--threads", "1", "--out", "run"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("thumbnet: cannot write run/model.safetensors") and "run again" in last
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not [path for path in (tmp_path / "run").rglob("*.tmp-*")]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_refused_in_one_line(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    # A first run loads every module, since nobody may not be allowed to read the interpreter's.
    as_nobody = (
        "import os, sys; from thumbnet.cli.main import run; words = sys.argv[1:]; run([*words, '--out', 'first']); "
        "os.setgid(65534); os.setuid(65534); sys.exit(run([*words, '--out', 'closed/run']))"
    )
    words = [sys.executable, "-c", as_nobody, "train", "fashion-mini", *SHORT]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2, result.stderr
    assert "cannot write closed/run: Permission denied" in result.stderr.splitlines()[-1]
