"""Names from elsewhere, which may hold anything, as terminals, files and fonts are given them."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from thumbnet.cli.predict import as_table
from thumbnet.data.datasets import load_dataset
from thumbnet.plots.style import save
from thumbnet.runs.data_record import DataRecord
from thumbnet.shipping.classifier import Prediction
from thumbnet.shipping.exported import facts_of
from thumbnet.words import nats, printable

CLEARS_THE_SCREEN = "\x1b[2Jcat"
AS_SHOWN = "\\x1b[2Jcat"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Katze, kočka, 猫", "Katze, kočka, 猫"), (CLEARS_THE_SCREEN, AS_SHOWN), ("a\nb\t\x7f", "a\\nb\\t\\x7f"),
        ("\x9b2J", "\\x9b2J"), ("caf\udce9", "caf\\udce9"),
    ],
)  # fmt: skip
def test_of_a_name_nothing_is_left_that_a_terminal_obeys(name, expected):
    assert printable(name) == expected


def test_classes_of_arrays_tell_a_terminal_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "cache"))
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 4, 4), dtype=np.uint8), np.arange(8) % 2
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=labels, classes=[CLEARS_THE_SCREEN, "dog"])
    assert load_dataset(tmp_path / "set.npz").classes == (AS_SHOWN, "dog")
    named = np.where(labels, "dog", CLEARS_THE_SCREEN)
    np.savez(tmp_path / "named.npz", train_images=images, train_labels=named)
    assert load_dataset(tmp_path / "named.npz").classes == (AS_SHOWN, "dog")


def test_classes_of_a_run_and_of_an_export_from_elsewhere_tell_a_terminal_nothing(tmp_path):
    told = {"name": "x", "location": "x", "channels": 1, "image_size": [4, 4], "fingerprint": "x"}
    (tmp_path / "data.json").write_text(json.dumps(told | {"classes": [CLEARS_THE_SCREEN, "dog"]}))
    assert DataRecord.read(tmp_path / "data.json").classes == (AS_SHOWN, "dog")
    facts = {"format": 1, "thumbnet": "0", "recipe": "x", "data": "x", "channels": 1, "image_size": [4, 4]}
    facts |= {"temperature": 1.0, "views": 1, "weights": "x", "classes": [CLEARS_THE_SCREEN, "dog"]}
    assert facts_of(tmp_path / "x.onnx", json.dumps(facts)).classes == (AS_SHOWN, "dog")


def test_a_table_of_predictions_has_a_line_for_each_file_whatever_it_is_called():
    rows = [Prediction(file=name, ranking=(("dog", 0.5),)) for name in ("a\nb.png", "c.png")]
    assert as_table(rows).splitlines() == ["a\\nb.png  dog 50.00%", "c.png     dog 50.00%"]


def test_lines_of_a_title_stay_lines(tmp_path):
    figure = Figure()
    title = figure.suptitle("kočka\n" + CLEARS_THE_SCREEN)
    save(figure, tmp_path / "figure.png")
    assert title.get_text() == "kočka\n" + AS_SHOWN


@pytest.mark.parametrize(
    ("loss", "expected"), [(0.26755, "0.2676"), (2.3026, "2.3026"), (1.5e305, "1.5e+305"), (float("inf"), "inf")]
)
def test_a_loss_is_short_however_absurd(loss, expected):
    assert nats(loss) == expected
