"""Runs that are killed or told to stop at any instant, and go on: the same bits as a run never interrupted."""

import fcntl
import hashlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path

import pytest

from conftest import ONE_THREAD
from processes import begin, exit_code, instead, send, training, wait_for
from promises import FULL, count, held, linux
from thumbnet.doctor.resuming import differences_between
from thumbnet.recipes import RECIPES
from thumbnet.recipes import recipe as named_recipe
from thumbnet.runs.run import Run

CLOCKS = ("training_seconds", "images_per_second")


def identity(folder):
    """A hash of everything a finished run holds but the time it took."""
    run = Run.open(folder)
    assert run.finished
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    rows = [{key: value for key, value in row.items() if key not in CLOCKS} for row in run.metrics]
    digest.update(json.dumps([rows, run.temperature]).encode())
    digest.update(run.predictions("validation").logits.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """(identity, seconds) of the run that nothing happened to, with checkpoints as often as in the others."""
    folder = tmp_path_factory.mktemp("unbroken")
    seconds = []
    for name in ("first", "second"):
        start = time.monotonic()
        assert exit_code(begin(training(folder / name, "--checkpoint-seconds", 0), folder / "log")) == 0, log(folder)
        seconds.append(time.monotonic() - start)
    assert identity(folder / "first") == identity(folder / "second")
    return identity(folder / "first"), seconds[-1]


def log(folder):
    return (folder / "log").read_text(errors="replace")


def saving(folder):
    """Whether a file of a checkpoint is being written."""
    try:
        return any(name.startswith(".") for name in os.listdir(folder / "checkpoint"))
    except OSError:
        return False


def test_killed_at_random_instants_and_resumed_a_run_ends_with_the_same_bits(unbroken, tmp_path):
    expected, seconds = unbroken
    seed = random.SystemRandom().randrange(2**32)
    print("seed of the instants", seed)
    generator, kills, wanted, runs, in_saves = random.Random(seed), 0, count(8, 50), 0, 0
    while kills < wanted:
        runs += 1
        folder = tmp_path / f"run{runs}"
        for attempt in range(6):  # five kills, then it may end
            process = begin(training(folder, "--checkpoint-seconds", 0), tmp_path / "log")
            if attempt < 5 and kills < wanted:
                if kills % 2:
                    wait_for(partial(saving, folder), process)
                    time.sleep(generator.choice([0, 0, 0.0005, 0.002]))
                else:
                    process.join(generator.uniform(0, seconds))
                before = newest(folder)
                send(process, signal.SIGKILL)
                kills += exit_code(process) == -signal.SIGKILL
                in_saves += saving(folder)  # what it was writing lies there
                check_nothing_lost(before, folder)
                continue
            assert exit_code(process) == 0, (seed, log(tmp_path))
        assert identity(folder) == expected, seed
    assert in_saves >= max(1, wanted // 8), "too few kills met a save for this to say anything"
    promise = "a run killed (kill -9) at random instants and resumed ends with the same bits as one never interrupted"
    held("T1", promise, kills, f"{runs} runs, {in_saves} kills while a file was being written; seed {seed}")


def newest(folder):
    """Epoch and step of the newest checkpoint, or None."""
    from thumbnet.runs.checkpoints import manifests, place_of

    found = manifests(folder / "checkpoint")
    return place_of(found[0]) if found else None


def check_nothing_lost(before, folder):
    """A kill loses no state that was there: a later one is, or the run is finished and needs none."""
    after = newest(folder)
    assert before is None or (after is not None and after >= before) or (folder / "summary.json").is_file()


# ------------------------------------------------------------------------------------- signals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def stop_in(module, name, number, call=1):
    """Called in a process: let the `call`-th call of a function send this process a signal first."""
    import importlib

    owner = importlib.import_module(module)
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    keep, calls = getattr(owner, name.split(".")[-1]), []

    def replaced(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return keep(*arguments, **options)

    setattr(owner, name.split(".")[-1], replaced)


PLACES = {  # where in a run, and the exit code: nothing is left to resume once the last step is done
    "warm-up": ("thumbnet.training.loop", "fit_whitening", 1),
    "the first batch": ("thumbnet.training.step", "augment", 1),
    "a later batch": ("thumbnet.training.step", "augment", 9),
    "an update": ("thumbnet.training.optimize", "Muon.step", 5),
    "evaluation": ("thumbnet.training.loop", "predict_logits", 1),
    "saving": ("thumbnet.runs.run", "save_checkpoint", 3),
    "drawing": ("thumbnet.plots.curves", "save_run_plots", 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_a_run_with_a_checkpoint_wherever_it_comes_and_it_goes_on_to_the_same_bits(
    unbroken, tmp_path, place
):
    module, name, call = PLACES[place]
    signals = SIGNALS if count(0, 1) else SIGNALS[list(PLACES).index(place) % 3 :][:1]
    for number in signals:
        folder = tmp_path / number.name
        start = time.monotonic()
        often = ["--checkpoint-seconds", 0] if place == "saving" else []
        process = begin(training(folder, *often), tmp_path / "log", partial(stop_in, module, name, number, call))
        assert exit_code(process, 25) == 75, log(tmp_path)
        took = time.monotonic() - start
        told = log(tmp_path).splitlines()[-1]
        assert told.startswith(f"thumbnet: stopped by {number.name} "), told
        finished = place == "drawing"  # the last step was done: it ended whole, without its report
        assert (folder / "summary.json").is_file() == finished
        assert finished or newest(folder) is not None
        whole = f"stopped by {number.name} when the run was finished; {folder} is whole"
        assert (whole if finished else "continue with: thumbnet train") in told
        assert exit_code(begin(training(folder), tmp_path / "log")) == 0, log(tmp_path)
        assert identity(folder) == unbroken[0]
        promise = "SIGTERM, SIGINT or SIGUSR1 ends a run with a checkpoint and exit code 75 within 25 s; resumed, the same bits"
        held("T4", promise, 1, f"in {place}: {took:.1f} s with starting it")


def test_a_signal_at_a_random_instant_ends_a_run_with_a_checkpoint(unbroken, tmp_path):
    expected, seconds = unbroken
    generator, cases, slowest = random.Random(11), count(1, 12), 0.0
    for case in range(cases):
        folder = tmp_path / f"run{case}"
        process = begin(training(folder), tmp_path / "log")
        assert wait_for((folder / "recipe.toml").is_file, process)
        process.join(generator.uniform(0, 0.7 * seconds))
        start = time.monotonic()
        if process.is_alive():
            send(process, SIGNALS[case % 3])
        code = exit_code(process, 25)
        slowest = max(slowest, time.monotonic() - start)
        assert code == 75 or (code == 0 and Run.open(folder).finished), log(tmp_path)
        assert exit_code(begin(training(folder), tmp_path / "log")) == 0, log(tmp_path)
        assert identity(folder) == expected
    promise = (
        "SIGTERM, SIGINT or SIGUSR1 ends a run with a checkpoint and exit code 75 within 25 s; resumed, the same bits"
    )
    held("T4", promise, cases, f"at random instants: {slowest:.1f} s at most")


def slow_evaluation(mark):
    """Called in a process: a validation pass that takes a minute and asks for no signals.

    Touches `mark` when it begins, and removes it when the first signal was noted: a second one sent before that may be merged
    with it by the system.
    """
    from thumbnet.training import loop as module

    def wait(*arguments, poll, **options):
        Path(mark).touch()
        while not poll.__self__.received:
            time.sleep(0.01)
        Path(mark).unlink()
        time.sleep(60)

    module.predict_logits = wait


def test_a_second_signal_ends_a_run_at_once(unbroken, tmp_path):
    mark = tmp_path / "evaluating"
    process = begin(training(tmp_path / "run"), tmp_path / "log", partial(slow_evaluation, str(mark)))
    assert wait_for(mark.is_file, process)
    send(process, signal.SIGTERM)
    assert wait_for(lambda: not mark.exists(), process)
    time.sleep(0.3)
    assert process.is_alive()
    start = time.monotonic()
    send(process, signal.SIGTERM)
    assert exit_code(process, 10) == 130
    assert time.monotonic() - start < 5
    assert log(tmp_path).splitlines()[-1] == "thumbnet: stopped"
    assert exit_code(begin(training(tmp_path / "run"), tmp_path / "log")) == 0
    assert identity(tmp_path / "run") == unbroken[0]
    held("T4", "a second signal ends a run at once", 1, "exit code 130")


def ignoring_hangups():
    """Called in a process: what nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def as_in_a_terminal():
    """Called in a process: the tests themselves may run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("ignored", [True, False])
def test_a_terminal_that_closes_stops_a_run_unless_nohup_says_otherwise(unbroken, tmp_path, ignored):
    folder = tmp_path / "run"
    process = begin(training(folder), tmp_path / "log", ignoring_hangups if ignored else as_in_a_terminal)
    assert wait_for((folder / "recipe.toml").is_file, process)
    time.sleep(0.2)
    send(process, signal.SIGHUP)
    assert exit_code(process, 25) == (0 if ignored else 75), log(tmp_path)
    assert exit_code(begin(training(folder), tmp_path / "log")) == 0
    assert identity(folder) == unbroken[0]


# ------------------------------------------------------------------------------------- every recipe


def killing_once():
    """Called in a process: one kill instead of three."""
    from thumbnet.doctor import resuming

    resuming.KILLS = 1


def test_doctor_offers_the_same_test_of_ones_own_recipe_and_notices_other_bits(tmp_path):
    words = ["doctor", "fashion-mini", "--resuming", "--threads", 1, "--precision", "fp32", "--runs", tmp_path / "runs"]
    assert exit_code(begin(words, tmp_path / "log", killing_once if count(1, 0) else None), 240) == 0, log(tmp_path)
    told = log(tmp_path).splitlines()[-1]
    assert re.fullmatch(
        r"ok     general, killed after steps \d+(, \d+, \d+)? of 12 and resumed, ends with the same bits", told
    )
    whole, cut = Run.open(tmp_path / "runs" / "whole"), Run.open(tmp_path / "runs" / "cut")
    assert differences_between(whole, cut) == []
    content = bytearray((cut.path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (cut.path / "model.safetensors").write_bytes(content)
    assert differences_between(whole, cut) == ["the weights"]
    rows = [row | {"train_loss": row["train_loss"] + 1e-12} for row in cut.metrics]
    (cut.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert differences_between(whole, cut) == ["the weights", "the metrics"]


# In the quick run of the tests one of each kind: small, long with every mixture of images, one with torch's own layers.
@pytest.mark.parametrize("name", RECIPES if FULL else ["general", "cifar10-96"])
def test_every_named_recipe_resumes_to_the_same_bits(tmp_path, name):
    words = [
        "train", tmp_path / "images", "--recipe", name, "--epochs", 2, "--batch-size", 64, "--micro-batch", 32,
        "--threads", 1, "--no-report", "--validation", 0.2, "--checkpoint-seconds", 0,
    ]  # fmt: skip
    make_images(tmp_path / "images")
    if named_recipe(name).widths:  # narrow, so that it is quick
        words += ["--widths", 8, 16, 24, "--depth", 2]

    def go(folder, prepare=None):
        resume = ["--resume"] if folder.exists() else []
        return exit_code(begin([*words, "--out", folder, *resume], tmp_path / "log", prepare), 120)

    assert go(tmp_path / "whole") == 0, log(tmp_path)
    place = partial(stop_in, "thumbnet.training.step", "augment", signal.SIGKILL, 3)
    assert go(tmp_path / "cut", place) == -signal.SIGKILL, log(tmp_path)
    assert go(tmp_path / "cut") == 0, log(tmp_path)
    assert identity(tmp_path / "cut") == identity(tmp_path / "whole")
    held("T1r", "every named recipe, killed and resumed, ends with the same bits", 1, name)


def make_images(folder):
    """160 pictures of 32 x 32 pixels in two classes that differ in brightness."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 160)):
        (folder / name).mkdir(parents=True)
        for number in range(80):
            pixels = generator.integers(level, level + 60, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def as_a_terminal_starts_it():
    """Called in a process: the terminal becomes its own, so that Ctrl-C reaches it, also where the tests ignore that."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@linux
def test_in_a_terminal_there_is_a_bar_and_ctrl_c_leaves_a_checkpoint_and_one_line(tmp_path):
    folder = tmp_path / "run"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "thumbnet.cli.main", *map(str, training(folder, words=instead(epochs=1000)))],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=os.environ | ONE_THREAD | {"TERM": "xterm"},
        preexec_fn=as_a_terminal_starts_it,
    )  # fmt: skip
    os.close(theirs)
    seen, pressed = b"", False
    while True:
        try:
            seen += os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
        if not pressed and b"epoch" in seen and b"%" in seen:
            os.write(ours, b"\x03")
            pressed = True
    os.close(ours)
    assert process.wait(25) == 75, seen.decode()
    shown = seen.decode()
    assert "\u2501" in shown  # of the bar
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "").strip().splitlines()[-1]
    assert last.startswith("thumbnet: stopped by SIGINT in epoch ") and "continue with: thumbnet train" in last
    assert "Traceback" not in shown and newest(folder) is not None
    held("T4", "Ctrl-C in a terminal ends a run with a checkpoint and one line", 1, "exit code 75")
