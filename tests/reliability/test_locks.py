"""Two that want the same: one wins, the others are told by whom, readers never see half of anything, the dead hold nothing."""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest

from processes import CONTEXT, begin, exit_code, send, training, wait_for
from promises import count, held, linux
from test_kill import identity, make_images
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import UserError
from thumbnet.files import write_json
from thumbnet.locks import locked
from thumbnet.reading import read_json
from thumbnet.runs.checkpoints import load_checkpoint, save_checkpoint
from thumbnet.runs.run import Run
from thumbnet.studies.study import run_study, write_plan
from thumbnet.studies.study_file import study_of


def at_once(folder):
    """Called in a process: wait for the file that starts all of them."""
    while not (folder / "go").is_file():
        time.sleep(0.001)


def together(folder, commands):
    """Exit codes and last lines of commands started at the same moment."""
    logs = [folder / f"log{number}" for number in range(len(commands))]
    started = [begin(words, log, partial(at_once, folder)) for words, log in zip(commands, logs, strict=True)]
    time.sleep(0.3)
    (folder / "go").touch()
    codes = [exit_code(process) for process in started]
    (folder / "go").unlink()
    told = [log.read_text().splitlines()[-1] for log in logs]
    for log in logs:
        log.unlink()
    return list(zip(codes, told, strict=True))


def test_of_several_that_begin_one_run_one_wins_and_the_others_are_told(tmp_path):
    rounds = count(1, 20)
    for number in range(rounds):
        folder = tmp_path / f"run{number}"
        ended = together(tmp_path, [training(folder)] * 4)
        assert sorted(code for code, _ in ended) == [0, 2, 2, 2], ended
        for code, told in ended:
            if code:
                assert re.match(
                    rf"thumbnet: (another process has just begun a run in )?{folder}( is taken)?; choose another", told
                )
        assert Run.open(folder).finished
    held("T7", "of several processes that want one folder one wins; the others end at once and say so", 4 * rounds,
         f"{rounds} rounds of four that begin one run")  # fmt: skip


def test_of_several_that_go_on_with_one_run_one_wins_and_the_others_are_told_by_whom(tmp_path):
    rounds = count(1, 10)
    for number in range(rounds):
        folder = tmp_path / f"run{number}"
        process = begin(training(folder, "--checkpoint-seconds", 0), tmp_path / "log")
        assert wait_for((folder / "checkpoint").is_dir, process)
        send(process, signal.SIGKILL)  # its lock is free at once
        exit_code(process)
        ended = together(tmp_path, [training(folder)] * 4)
        winners = [told for code, told in ended if code == 0]
        assert winners, ended
        for code, told in ended:
            assert code in (0, 2)
            if code:
                assert re.search(rf"is training in {folder} \(process \d+ on \S+ since \S+\); wait for it", told), told
        assert not (folder / ".lock-holder").exists()
        assert len(Run.open(folder).metrics) == 2
    held("T7", "of several processes that want one folder one wins; the others end at once and say so", 4 * rounds,
         f"{rounds} rounds of four that go on with a run whose owner was killed")  # fmt: skip


def test_the_lock_of_a_killed_owner_is_free_and_its_name_is_not_blamed(tmp_path):
    folder = tmp_path / "run"
    process = begin(training(folder, "--checkpoint-seconds", 0), tmp_path / "log")
    assert wait_for((folder / "checkpoint").is_dir, process)
    send(process, signal.SIGKILL)
    exit_code(process)
    assert (folder / ".lock-holder").is_file()  # what it left
    assert exit_code(begin(training(folder), tmp_path / "log")) == 0
    assert not (folder / ".lock-holder").exists()


def test_what_a_killed_owner_was_writing_is_cleared_away_by_the_next(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    process = begin(training(folder, "--checkpoint-seconds", 0), tmp_path / "log")
    assert wait_for((folder / "checkpoint").is_dir, process)
    send(process, signal.SIGKILL)
    exit_code(process)
    (folder / f".model.safetensors.tmp-{process.pid}").write_bytes(b"half")
    (folder / "plots").mkdir(exist_ok=True)
    (folder / "plots" / f".curves.png.tmp-{process.pid}").write_bytes(b"half")
    assert exit_code(begin(training(folder), tmp_path / "log")) == 0
    assert not list(folder.rglob(".*.tmp-*"))

    make_images(tmp_path / "images")
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "cache"))
    load_dataset(tmp_path / "images")
    [pack] = (tmp_path / "cache" / "packs").glob("*.safetensors")
    pack.rename(pack.with_name(f".{pack.name}.tmp-{process.pid}"))
    load_dataset(tmp_path / "images")
    assert pack.is_file() and not list(pack.parent.glob(".*.tmp-*"))


def test_who_waits_for_a_conversion_is_told_for_whom(tmp_path, monkeypatch):
    make_images(tmp_path / "images")
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "cache"))
    load_dataset(tmp_path / "images")
    [pack] = (tmp_path / "cache" / "packs").glob("*.safetensors")
    pack.unlink()
    told = []
    with locked(pack.with_name(f".{pack.name}.lock")):
        waiting = threading.Thread(
            target=load_dataset, args=[tmp_path / "images"], kwargs={"progress": lambda *row: told.append(row)}
        )
        waiting.start()
        for _ in range(1000):
            if told:
                break
            time.sleep(0.01)
        assert not pack.exists()
    waiting.join()
    assert re.fullmatch(
        rf"waiting for process {os.getpid()} on \S+ since \S+, which converts the same images", told[0][0]
    )
    assert pack.is_file()


def test_a_study_that_another_process_is_at_is_left_to_it(tmp_path):
    study = study_of({"variant": [{"name": "a", "epochs": 1}]}, default_name="s")
    write_plan(study, tmp_path / "study")
    with (
        locked(tmp_path / "study" / ".lock"),
        pytest.raises(UserError, match=rf"another process is at the study in .*\(process {os.getpid()} on"),
    ):
        run_study(study, tmp_path / "study")
    assert not list((tmp_path / "study" / "cells").glob("*.log"))


@linux
def test_of_several_that_convert_one_data_set_one_does_and_all_get_the_same(tmp_path, monkeypatch):
    make_images(tmp_path / "images")
    rounds = count(1, 20)
    for number in range(rounds):
        cache = tmp_path / f"cache{number}"
        monkeypatch.setenv("THUMBNET_CACHE", str(cache))
        queue = CONTEXT.Queue()
        workers = [
            CONTEXT.Process(target=convert, args=(str(cache), str(tmp_path / "images"), queue)) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        found = [queue.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
        assert len({fingerprint for fingerprint, _ in found}) == 1
        assert sum(read for _, read in found) == 1, "converted more than once"
        assert len(list((cache / "packs").glob("*.safetensors"))) == 1
    held("T7", "of several processes that convert one data set one does, and all read the same pack", 4 * rounds,
         f"{rounds} rounds of four")  # fmt: skip


def convert(cache, folder, queue):
    """In a process: (fingerprint, whether this one read the images)."""
    os.environ["THUMBNET_CACHE"] = cache
    from thumbnet.data import pictures as module
    from thumbnet.data.datasets import load_dataset

    keep, read = module.read_pictures, []

    def reading(*arguments, **options):
        read.append(1)
        time.sleep(0.2)  # so that the others come meanwhile
        return keep(*arguments, **options)

    module.read_pictures = reading
    data = load_dataset(folder)
    queue.put((data.fingerprint, len(read)))


@pytest.mark.parametrize("what", ["JSON", "checkpoint"])
def test_a_reader_never_sees_half_of_what_is_being_written(tmp_path, what):
    stop, path, reads, writes = threading.Event(), tmp_path / "x.json", 0, count(100, 1000)

    def place(number):
        return {"epoch": number, "step": 0, "epochs": 3.0, "seconds": 1.0, "training_seconds": 1.0}

    def state(number):
        return {"w": np.full(5000, float(number)), "totals": np.zeros(4)}

    def write():
        for number in range(1, writes + 1):
            if what == "JSON":
                write_json(path, {"number": number, "filling": [number] * 2000})
            else:
                save_checkpoint(tmp_path / "c", state(number), place(number), "me")
        stop.set()

    if what == "JSON":
        write_json(path, {"number": 0, "filling": [0] * 2000})
    else:
        save_checkpoint(tmp_path / "c", state(0), place(0), "me")
    writer = threading.Thread(target=write)
    writer.start()
    last = 0
    while not stop.is_set():
        if what == "JSON":
            seen = read_json(path, {"number": int, "filling": list})
            assert seen["filling"] == [seen["number"]] * 2000
            number = seen["number"]
        else:  # states older than the last two are deleted under the reader, who then finds a newer one
            checkpoint = load_checkpoint(tmp_path / "c", "me", lambda arrays: None)
            number = checkpoint.position["epoch"]
            assert (checkpoint.arrays["w"] == number).all()
        assert number >= last
        last, reads = number, reads + 1
    writer.join()
    assert reads > 5
    held("T7", "a reader never sees half of a file that is being replaced", reads, f"{what}, replaced {writes} times")


def test_a_finished_run_read_by_several_at_once_is_the_same_for_all(tmp_path):
    assert exit_code(begin(training(tmp_path / "run"), tmp_path / "log")) == 0
    expected = identity(tmp_path / "run")
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        assert pool.map(identity, [tmp_path / "run"] * 6) == [expected] * 6
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["model_sha256"]
