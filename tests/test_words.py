"""Names from elsewhere, which may hold anything, as terminals, files and fonts are given them."""

import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from thumbnet.cli.main import run
from thumbnet.cli.predict import as_table
from thumbnet.data.datasets import load_dataset
from thumbnet.plots.style import save
from thumbnet.shipping.classifier import Prediction
from thumbnet.words import nats, visible, visible_lines

CLEARS_THE_SCREEN = "\x1b[2Jcat"
AS_SHOWN = "\\x1b[2Jcat"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Katze, kočka, 猫", "Katze, kočka, 猫"), (CLEARS_THE_SCREEN, AS_SHOWN), ("a\nb\t\x7f", "a\\nb\\t\\x7f"),
        ("\x9b2J", "\\x9b2J"), ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)  # fmt: skip
def test_of_a_name_nothing_is_left_that_a_terminal_obeys(name, expected):
    assert visible(name) == expected
    assert visible_lines(name) == expected.replace("\\n", "\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no file may be called so there")
def test_names_are_shown_to_a_terminal_and_written_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    for place, image in enumerate(pixels):
        folder = tmp_path / "pics" / (CLEARS_THE_SCREEN if place % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{place}.png")
    (tmp_path / "pics" / "dog" / "bad\x1b[31m.png").write_bytes(b"no image")
    for words in (
        ["data", "pics", "--skip-broken"],
        ["doctor", "pics", "--skip-broken"],
        ["data", "pics"],
        ["data", CLEARS_THE_SCREEN],
    ):
        run(words)
        told = "".join(capsys.readouterr())
        assert "\x1b" not in told and "\\x1b[" in told, words
    data = load_dataset("pics", skip_broken=True, validation=0)
    assert data.classes == (CLEARS_THE_SCREEN, "dog")
    run(["data", "pics", "--skip-broken", "--json"])
    assert CLEARS_THE_SCREEN in json.loads(capsys.readouterr().out)["classes"]


def test_a_table_of_predictions_has_a_line_for_each_file_whatever_it_is_called():
    rows = [Prediction(file=name, ranking=(("dog\r", 0.5),)) for name in ("a\nb.png", "c.png")]
    assert as_table(rows).splitlines() == ["a\\nb.png  dog\\r 50.00%", "c.png     dog\\r 50.00%"]


def test_a_figure_can_hold_any_title_and_its_lines_stay_lines(tmp_path):
    figure = Figure()
    title = figure.suptitle("a\n" + CLEARS_THE_SCREEN)
    save(figure, tmp_path / "figure.svg")
    assert title.get_text() == "a\n" + AS_SHOWN
    ElementTree.parse(tmp_path / "figure.svg")


@pytest.mark.parametrize(
    ("loss", "expected"), [(0.26755, "0.2676"), (2.3026, "2.3026"), (1.5e305, "1.5e+305"), (float("inf"), "inf")]
)
def test_a_loss_is_short_however_absurd(loss, expected):
    assert nats(loss) == expected
