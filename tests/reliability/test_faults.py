"""Full disks, folders that are not ours, memory that ends, pipes nobody reads: one line of advice, nothing torn, nothing lost."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from processes import TRAIN, begin, exit_code, instead, training, wait_for
from promises import FULL, count, held, linux
from test_kill import identity
from thumbnet.runs.run import Run

COMMAND = [sys.executable, "-m", "thumbnet.cli.main"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def advice(text):
    """The last line of what a command said, which must be the only complaint and no traceback."""
    assert "Traceback" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("thumbnet: ")]
    assert len(lines) == 1 and lines[0] == text.splitlines()[-1], text
    return lines[0]


# ------------------------------------------------------------------------------------- a full disk


def small_files(limit):
    """Called in a process: no file may grow beyond so many bytes, which writers meet like a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@linux
def test_a_file_that_cannot_grow_stops_a_run_with_its_name_and_leaves_the_last_checkpoint(tmp_path):
    assert exit_code(begin(training(tmp_path / "whole"), tmp_path / "log")) == 0
    largest = (tmp_path / "whole" / "model.safetensors").stat().st_size * 3
    cases, failed = count(1, 16), 0
    for case in range(cases):
        folder, text = tmp_path / f"run{case}", tmp_path / f"log{case}"
        limit = largest * (case + 1) // (cases + 1)
        code = exit_code(begin(training(folder, "--checkpoint-seconds", 0), text, partial(small_files, limit)))
        failed += bool(code)
        if code:  # else the last sizes were enough
            assert code == 2, text.read_text()
            told = advice(text.read_text())
            assert re.match(r"thumbnet: cannot write \S+: .*; free some space and run again$", told), told
        assert not [path for path in tmp_path.rglob(".*.tmp-*") if path.is_dir()]  # no half-made run folder
        assert exit_code(begin(training(folder), text)) == 0
        assert identity(folder) == identity(tmp_path / "whole")
    assert failed >= max(1, cases // 2)
    held("T5", "a disk that fills up costs one line with the file's name; freed, the run goes on to the same bits", cases,
         f"files limited to {largest // (cases + 1) // 1024} to {largest // 1024} KiB")  # fmt: skip


FILL = """
import json, subprocess, sys
from pathlib import Path
place, kilobytes, words = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
def train(*more):
    done = subprocess.run([sys.executable, "-m", "thumbnet.cli.main", *words, *more], capture_output=True, text=True)
    return {"code": done.returncode, "text": done.stderr}
mount(f"size={kilobytes}k")
out = [str(place / "run")]
first = train("--out", *out)
subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
second = train("--out", *out, *(["--resume"] if (place / "run" / "recipe.toml").is_file() else []))
left = [str(path) for path in place.rglob(".*.tmp-*")]
print(json.dumps([first, second, left]))
"""


def can_mount():
    """Whether this user may have a file system of its own."""
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_on_a_full_disk_a_run_says_how_much_is_free_and_goes_on_when_there_is_room(tmp_path):
    (tmp_path / "disk").mkdir()
    words = [*map(str, TRAIN), "--checkpoint-seconds", "0"]
    sizes, full = [8, *(range(200, 15_000, 1000) if FULL else ())], 0
    for kilobytes in sizes:
        script = [sys.executable, "-c", FILL, tmp_path / "disk", str(kilobytes), json.dumps(words)]
        done = subprocess.run(["unshare", "-m", *script], env=os.environ | ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        first, second, left = json.loads(done.stdout)
        if first["code"]:
            full += 1
            assert first["code"] == 2, first
            told = advice(first["text"])
            assert re.search(
                r"cannot write \S+: .*\([\d,]+ bytes are free there\); free some space and run again$", told
            )
        assert second["code"] == 0, second
        assert left == []
    assert full >= count(1, 2)
    held("T5", "a disk that fills up costs one line with the file's name; freed, the run goes on to the same bits",
         len(sizes), f"file systems of {sizes[0]} KiB to {sizes[-1]} KiB, {full} too small")  # fmt: skip


# ------------------------------------------------------------------------------------- folders that are not ours

NOBODY = 65534


@pytest.fixture
def ordinary():
    """A folder that an ordinary user owns, and how to run a command as that user: root may write everywhere."""
    place = Path(tempfile.mkdtemp(prefix="thumbnet-test-"))
    place.chmod(0o755)
    kernels, prefix = Path(os.environ["THUMBNET_CACHE"], "kernels"), []
    if kernels.is_dir():  # compiled once, and then this user's
        shutil.copytree(kernels, place / "cache" / "kernels")
    if os.geteuid() == 0:
        for path in [place, *place.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def go(*words, **environment):
        variables = (
            os.environ | ENVIRONMENT | {"HOME": str(place), "THUMBNET_CACHE": str(place / "cache")} | environment
        )
        command = [*prefix, *COMMAND, *map(str, words)]
        return subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, timeout=120)

    try:
        if (done := go("list", "models")).returncode:
            pytest.skip(f"an ordinary user cannot start thumbnet here: {done.stderr[-200:]}")
        yield place, go
    finally:
        for path in [place, *place.rglob("*")]:
            with contextlib.suppress(OSError):
                path.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)


def closed(place):
    """A folder of somebody else, or one that its owner closed."""
    folder = place / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    return folder


def cases(place, run):
    """(what, words of the command): each must fail with one line."""
    shut = closed(place)
    file = place / "file"
    file.write_text("mine")
    (place / "dangling").symlink_to(place / "gone" / "away")
    own = place / "own"
    shutil.copytree(run, own)
    for path in [own, *own.rglob("*")]:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    unreadable, unwritable = place / "unreadable", place / "unwritable"
    shutil.copytree(own, unreadable)
    shutil.copytree(own, unwritable)
    (unreadable / "summary.json").chmod(0)
    (unreadable / "recipe.toml").chmod(0)
    for path in [*unwritable.rglob("*"), unwritable]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    Image.new("L", (28, 28)).save(place / "picture.png")
    images = place / "images"
    images.mkdir()
    images.chmod(0)
    train = [*TRAIN, "--out"]
    return {
        "a run in a folder that may not be written to": [*train, shut / "run"],
        "a run below such a folder": [*train, shut / "a" / "b" / "run"],
        "a run where a file is": [*train, file],
        "a run below a file": [*train, file / "run"],
        "a run below a link to nowhere": [*train, place / "dangling" / "run"],
        "resuming where nothing is": [*train, place / "nothing", "--resume"],
        "resuming in a file": [*train, file, "--resume"],
        "a run that may not be read": ["evaluate", unreadable],
        "opening the test images of a run that may not be written to": ["evaluate", unwritable, "--split", "test"],
        "a report into a folder that may not be written to": ["report", own, "--output", shut / "page.html"],
        "predictions into such a folder": ["predict", own, place / "picture.png", "--output", shut / "x.csv"],
        "a folder of images that may not be read": ["train", images],
        "a comparison drawn into such a folder": ["compare", own, "--plot", shut / "x.png"],
        "a study in such a folder": ["study", "study.toml", "--out", shut / "study"],
    }


def test_folders_that_are_not_ours_cost_one_line_and_nothing_is_half_made(ordinary, tmp_path_factory):
    place, go = ordinary
    run = tmp_path_factory.mktemp("finished") / "run"
    assert exit_code(begin(training(run), run.parent / "log")) == 0
    (place / "study.toml").write_text('recipe = "general"\n[grid]\nepochs = [1, 2]\n')
    made = cases(place, run)
    before = {path: path.lstat().st_mtime_ns for path in place.rglob("*") if "cache" not in path.parts}
    for what, words in made.items():
        start = time.monotonic()
        done = go(*words)
        assert done.returncode in (1, 2), f"{what}: {done}"
        advice(done.stderr)
        assert time.monotonic() - start < 60, what
    others = {"cache", ".cache", ".config", "runs"}  # of fontconfig and matplotlib
    left = {path for path in place.rglob("*") if not others & set(path.parts)} - before.keys()
    assert left == set()
    held("T6", "folders that are read-only, foreign, gone, or files: one line, exit code not 0, nothing half-made", len(made),
         f"as an ordinary user: {len(made)} commands")  # fmt: skip


def test_a_cache_that_cannot_be_written_costs_time_and_not_the_run(ordinary):
    place, go = ordinary
    shut = closed(place)
    done = go(*TRAIN, "--out", place / "run", THUMBNET_CACHE=str(shut / "cache"))
    assert done.returncode == 0, done.stderr
    assert list(shut.iterdir()) == []


def test_a_run_folder_that_vanishes_while_training_costs_one_line(tmp_path):
    process = begin(training(tmp_path / "run", "--checkpoint-seconds", 0, words=instead(epochs=50)), tmp_path / "log")
    assert wait_for((tmp_path / "run" / "checkpoint").is_dir, process)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    code = exit_code(process, 30)
    assert not (tmp_path / "run").exists()
    told = (tmp_path / "log").read_text()
    assert (code, "run" in advice(told)) == (2, True), told


# ------------------------------------------------------------------------------------- memory, pipes, orphans


def little_memory():
    """Called in a process: 300 MB more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (300 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@linux
def test_out_of_memory_is_one_line_of_advice_and_leaves_no_torn_file(tmp_path):
    words = [*instead(widths="512 512 512", micro_batch=5000, batch_size=5000), "--out", tmp_path / "run"]
    assert exit_code(begin(words, tmp_path / "log", little_memory)) == 1
    assert advice((tmp_path / "log").read_text()).endswith("out of memory; try a smaller --batch-size or --image-size")
    assert not Run.open(tmp_path / "run").finished
    assert not list(tmp_path.rglob(".*.tmp-*"))
    held("T25", "memory that ends costs one line of advice and no torn file", 1, "300 MB for a batch of 5,000")


@pytest.mark.parametrize("where", ["/dev/full", "a closed pipe"])
def test_messages_that_cannot_be_written_do_not_cost_the_run(tmp_path, where):
    command = [*COMMAND, *map(str, training(tmp_path / "run"))]
    if where == "/dev/full":
        with open(where, "w") as full:
            done = subprocess.run(command, stderr=full, stdout=subprocess.DEVNULL, env=os.environ | ENVIRONMENT)
        assert done.returncode == 0
    else:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, stderr=writing, stdout=subprocess.DEVNULL, env=os.environ | ENVIRONMENT)
        os.close(writing)
    assert Run.open(tmp_path / "run").finished
    held("T24", "a log that is full, a pipe that is closed or never read do not cost the run", 1, where)


@linux
def test_a_pipe_that_nobody_reads_holds_a_run_up_and_it_can_still_be_ended_and_goes_on(tmp_path):
    import fcntl

    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    fcntl.fcntl(writing, fcntl.F_SETFL, 0)
    command = [*COMMAND, *map(str, training(tmp_path / "run"))]
    process = subprocess.Popen(command, stderr=writing, stdout=subprocess.DEVNULL, env=os.environ | ENVIRONMENT)
    end = time.monotonic() + 60
    while not (tmp_path / "run" / "recipe.toml").is_file() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGUSR1)  # another, since two of a kind that come close together may be merged
    assert process.wait(25) == 130
    os.close(reading)
    os.close(writing)
    assert exit_code(begin(training(tmp_path / "run"), tmp_path / "log")) == 0
    held("T24", "a log that is full, a pipe that is closed or never read do not cost the run", 1, "a pipe never read")


@linux
def test_a_study_that_is_ended_leaves_no_process_behind(tmp_path):
    (tmp_path / "study.toml").write_text(
        'dataset = "fashion-mini"\nrecipe = "general"\nseeds = 2\n[fields]\nwidths = [8, 16, 16]\nepochs = 40\n'
        '[[variant]]\nname = "a"\n[[variant]]\nname = "b"\nflip = false\n'
    )
    command = [*COMMAND, "study", "study.toml", "--jobs", "2", "--threads", "1"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    end = time.monotonic() + 60
    while len(list(tmp_path.rglob("cells/*/recipe.toml"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    children = children_of(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=25)
    assert process.returncode == 75, told
    assert [child for child in children if Path(f"/proc/{child}/cmdline").is_file() and alive(child)] == []
    assert len(list(tmp_path.rglob("checkpoint/*.json"))) == 2
    held("T24", "a study that is ended leaves no process behind and every run with a checkpoint", 1, "2 processes")


def children_of(pid):
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    """Running, and not merely waiting to be buried."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    return False
