"""The doctor's list of training images: which are on it, and that train takes it."""

import csv
import json

import numpy as np
import pytest
import torch

from conftest import pictures
from thumbnet.cli.main import run as command_line
from thumbnet.data.datasets import assemble
from thumbnet.data.embedded import read_fashion_mini
from thumbnet.data.pack import Pack
from thumbnet.doctor import examine_dataset
from thumbnet.doctor.dataset import Diagnosis
from thumbnet.doctor.duplicates import DuplicatePair, Place
from thumbnet.doctor.labels import CheckedLabels, SuspectLabel
from thumbnet.doctor.listing import as_list, to_leave_out


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


def found(**parts):
    """A diagnosis with these findings."""
    nothing = dict(
        exact=(), conflicting=(), near=(), constant=(), broken=(), ignored=(), balance={}, sizes={}, modes={}
    )
    counts = dict(leaked_exact=0, leaked=0, leaked_validation_exact=0, leaked_validation=0)
    return Diagnosis(**{"name": "set", "shared_groups": {}, "images": {}, "files": {}, **nothing, **counts, **parts})


def train(*rows):
    return tuple(Place("train", row) for row in rows)


def listed(diagnosis):
    return {fault.place.row: fault.fault for fault in to_leave_out(diagnosis)}


def pair(first, second, *, same_label=True):
    return DuplicatePair(first, second, 0.9, False, same_label)


def test_of_equal_training_images_the_first_stays():
    group = train(4, 7, 9)
    assert listed(found(exact=(group,))) == {7: "equal", 9: "equal"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_of_those_equal_to_an_image_that_is_measured_on_none_stays(split):
    assert listed(found(exact=((*train(4, 7), Place(split, 0)),))) == {4: "equal", 7: "equal"}
    assert listed(found(exact=((Place(split, 0), Place(split, 1)),))) == {}


def test_nor_of_equal_images_whose_labels_differ():
    group = train(4, 7)
    told = to_leave_out(found(exact=(group,), conflicting=(group,)))
    assert [(fault.place.row, fault.about) for fault in told] == [
        (4, "train 7, labels differ"),
        (7, "train 4, labels differ"),
    ]


def test_of_alike_images_one_stays_unless_the_other_is_measured_on():
    (a, b, c), test = train(1, 2, 3), Place("test", 0)
    assert listed(found(near=(pair(a, b),))) == {2: "alike"}
    assert listed(found(near=(pair(a, b), pair(b, c)))) == {2: "alike"}  # a and c were not found alike
    assert listed(found(near=(pair(a, b), pair(a, test)))) == {1: "alike"}
    assert listed(found(near=(pair(test, Place("test", 1)),))) == {}
    copies = ((b, test),)  # b stands for the test image, too
    assert listed(found(exact=copies, near=(pair(b, c),))) == {2: "equal", 3: "alike"}
    assert listed(found(exact=((a, b),), near=(pair(a, test),))) == {2: "equal", 1: "alike"}
    assert listed(found(exact=((a, b),), near=(pair(a, c),))) == {2: "equal", 3: "alike"}
    [fault] = to_leave_out(found(near=(pair(a, test, same_label=False),)))
    assert fault.about == "test 0, of another class, correlation 0.900"


def test_images_of_one_colour_and_doubted_labels_are_listed_once_each():
    suspects = tuple(SuspectLabel(Place("train", row), "cat", "dog", 0.01, 0.975, 0.93) for row in (8, 5))
    checked = CheckedLabels(100, 0.9, (0.8, 0.95), 0.1, 2.4, True, suspects)
    diagnosis = found(constant=(*train(5), Place("test", 1)), labels=checked)
    assert [(f.place.row, f.fault, f.about) for f in to_leave_out(diagnosis)] == [
        (5, "one colour and label", "wrong: 93%; dog 97.5%, cat 1.0%"), (8, "label", "wrong: 93%; dog 97.5%, cat 1.0%"),
    ]  # fmt: skip


def test_without_the_listed_images_the_doctor_finds_no_fault_of_training():
    images = read_fashion_mini().arrays["train_images"][:700]
    training, test = images[:600].copy(), images[600:].copy()
    test[:5], training[100:103], training[300] = training[:5], training[200:203], 77
    training[400:404] = (training[500:504] * 0.7).astype(np.uint8)
    labels = np.arange(600) % 10

    def examined(rows):
        arrays = {"train_images": training[rows], "train_labels": labels[rows]}
        arrays |= {"test_images": test, "test_labels": np.arange(100) % 10}
        data = assemble("planted", Pack(arrays, {"classes": list("abcdefghij")}), {"location": "memory"})
        return data, examine_dataset(data)

    data, before = examined(np.arange(600))
    faults = to_leave_out(before)
    rows = [fault.place.row for fault in faults]
    assert set(range(5)) | {300} <= set(rows) and len(rows) == len(set(rows)) >= 13
    written = list(csv.DictReader(as_list(faults, data).splitlines()))
    assert [row["image"] for row in written] == [str(row) for row in rows]
    assert {row["fault"] for row in written} == {"equal", "one colour", "alike"}
    assert all(row["class"] == "abcdefghij"[int(row["image"]) % 10] for row in written)
    _, after = examined(np.setdiff1d(np.arange(600), rows))
    assert after.leaked == 0 and not after.exact and not after.constant
    assert not [pair for pair in after.near if pair.first.split == "train"]


def test_train_takes_what_the_command_writes(here, capsys):
    pictures(here / "pics")
    assert command_line(["doctor", "pics", "--list", "pics.csv"]) == 0
    said = capsys.readouterr().out
    assert "list   pics.csv names 24 training images; delete the rows of those to be kept" in said
    assert "then: thumbnet train pics --leave-out pics.csv" in said
    lines = (here / "pics.csv").read_text().splitlines()
    assert lines[0] == "image,class,fault,about,chance" and "a/0.png,a,one colour,," in lines
    assert command_line(["train", "pics", "--leave-out", "pics.csv", "--out", "run"]) == 2
    assert "pics.csv names all training images of 'a' in pics; leave some of them in" in capsys.readouterr().err
    (here / "pics.csv").write_text("\n".join(lines[:6]) + "\n")
    short = ["--epochs", "1", "--threads", "1", "--widths", "8", "16", "16", "--batch-size", "8"]
    assert command_line(["train", "pics", "--leave-out", "pics.csv", "--out", "run", *short]) == 0
    assert "left out, by pics.csv" in capsys.readouterr().err


def test_json_says_where_it_is_and_a_clean_set_gives_an_empty_one(here, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.savez("clean.npz", images=images, labels=np.arange(40) % 2)
    assert command_line(["doctor", "clean.npz", "--list", "clean.csv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["list"], told["listed"]) == ("clean.csv", 0)
    assert (here / "clean.csv").read_text() == "image,class,fault,about,chance\n"
    assert command_line(["doctor", "clean.npz", "--list", "clean.csv"]) == 2
    told = "clean.csv is there already, and may have been read and changed; give another --list, or remove it"
    assert told in capsys.readouterr().err
    assert command_line(["doctor", "clean.npz", "--list", "again.csv"]) == 0
    assert "again.csv names no image" in capsys.readouterr().out
    assert command_line(["doctor", "clean.npz", "--list", "no/such/folder/x.csv"]) in (0, 2)
    assert command_line(["doctor", "clean.npz", "--list", "clean.txt"]) == 2
    assert command_line(["doctor", "clean.npz", "--resuming", "--list", "clean.csv"]) == 2
    assert "--list changes nothing with --resuming" in capsys.readouterr().err
