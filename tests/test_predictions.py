"""Saved predictions: the same again after reading, damaged files refused, every score computable from them."""

import csv
import dataclasses
import io

import numpy as np
import pytest
import torch

from thumbnet.errors import UserError
from thumbnet.runs.predictions import Predictions, load_predictions


@pytest.fixture
def some():
    random = torch.Generator().manual_seed(0)
    return Predictions(
        split="test",
        views=1,
        classes=("ant", "bee", "<b>cat</b>"),
        fingerprint="0123456789abcdef",
        rows=torch.arange(7) * 3,
        labels=torch.tensor([0, 1, 2, 0, 1, 2, 0]),
        logits=torch.randn(7, 3, generator=random),
    )


def test_what_is_saved_is_read_again(some, tmp_path):
    some.save(tmp_path / "a.npz")
    again = load_predictions(tmp_path / "a.npz")
    assert again.same_images(some) and torch.equal(again.logits, some.logits)
    assert (again.split, again.views, again.classes) == ("test", 1, some.classes)


def test_names_of_files_come_back_and_stand_in_the_csv(some, tmp_path):
    names = (*(f"cat/{number}, a.png" for number in range(6)), "cat/\udcff.png")
    named = dataclasses.replace(some, files=names)
    named.save(tmp_path / "a.npz")
    assert load_predictions(tmp_path / "a.npz").files == names
    named.save_csv(tmp_path / "a.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [row["file"] for row in rows] == [*names[:-1], "cat/\\udcff.png"]
    dataclasses.replace(some, files=names[:3]).save(tmp_path / "a.npz")
    with pytest.raises(UserError, match="its arrays do not fit together"):
        load_predictions(tmp_path / "a.npz")


def test_the_archive_is_plain_numpy(some, tmp_path):
    some.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"split", "views", "classes", "fingerprint", "rows", "labels", "logits"}


def test_other_images_are_not_taken_for_the_same(some):
    added = dataclasses.replace(some, split="validation")
    assert added.same_images(dataclasses.replace(added, fingerprint="f" * 16))  # test images were added in between
    for change in ({"rows": some.rows + 1}, {"fingerprint": "f" * 16}, {"labels": some.labels.flip(0)}):
        assert not some.same_images(dataclasses.replace(some, **change))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_damaged_file_is_named(content, tmp_path):
    path = tmp_path / "predictions.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"predictions\.npz does not hold predictions"):
        load_predictions(path)


def test_an_archive_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", logits=np.array([print], dtype=object))
    with pytest.raises(UserError, match="does not hold predictions"):
        load_predictions(tmp_path / "a.npz")


def test_arrays_that_do_not_fit_together_are_refused(some, tmp_path):
    dataclasses.replace(some, logits=some.logits[:5]).save(tmp_path / "a.npz")
    with pytest.raises(UserError, match="do not fit together"):
        load_predictions(tmp_path / "a.npz")


def test_logits_that_are_no_numbers_are_refused(some, tmp_path):
    some.logits[1, 0] = float("nan")
    some.save(tmp_path / "x.npz")
    with pytest.raises(UserError, match="some of its logits are no finite numbers"):
        load_predictions(tmp_path / "x.npz")


def test_hits_are_those_among_the_first_guesses():
    logits = torch.tensor([[3.0, 2, 1, 0, 0, 0, 0], [0, 3, 2, 1, 0, 0, 0]])
    said = Predictions("test", 1, tuple("abcdefg"), "f", torch.arange(2), torch.tensor([0, 2]), logits)
    assert said.hits(1).tolist() == [True, False] and said.hits(2).tolist() == [True, True]


def test_a_row_of_the_csv_says_class_prediction_and_probability(some):
    rows = list(csv.DictReader(io.StringIO(some.as_csv(temperature=2.0))))
    assert len(rows) == 7
    probabilities = (some.logits.double() / 2).softmax(1)
    for i, row in enumerate(rows):
        assert (int(row["image"]), row["class"]) == (3 * i, some.classes[some.labels[i]])
        assert float(row["probability"]) == pytest.approx(probabilities[i].max().item(), abs=1e-6)
        assert row["correct"] == str(int(row["class"] == row["predicted"]))


def test_the_commonest_class_and_its_part(some):
    assert some.commonest() == ("ant", 3 / 7)
