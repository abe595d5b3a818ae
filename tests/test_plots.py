"""What all figures share."""

import warnings

import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from thumbnet.plots import style
from thumbnet.report.pictures import as_svg

OTHER = "STIXGeneral"  # comes with matplotlib, as DejaVu Sans does


def letters(family: str) -> set[int]:
    """The code points that a font has."""
    return set(FT2Font(font_manager.findfont(family)).get_charmap())


def drawn(text: str, path) -> bytes:
    figure = Figure(figsize=(1, 1))
    axes = figure.subplots()
    axes.set_xticks([0], labels=[text])
    style.save(figure, path)
    return path.read_bytes()


def test_a_letter_that_the_first_font_lacks_is_drawn_by_another_that_is_installed(tmp_path, monkeypatch):
    lacking = chr(min(letters(OTHER) - letters("DejaVu Sans")))
    monkeypatch.setattr(style, "WIDER", ("No Such Font",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        box, plain = drawn(lacking, tmp_path / "box.png"), drawn("cat", tmp_path / "plain.png")
    monkeypatch.setattr(style, "WIDER", ("No Such Font", OTHER))
    assert drawn(lacking, tmp_path / "letter.png") != box
    assert drawn("cat", tmp_path / "cat.png") == plain


@pytest.mark.parametrize("text", ["cat", "\N{OGHAM LETTER BEITH}\U0001f600"])
def test_equal_figures_are_equal_files_whatever_letters_they_have(text):
    def figure() -> Figure:
        made = Figure(figsize=(1, 1))
        made.suptitle(text)
        return made

    assert as_svg(figure(), "").source == as_svg(figure(), "").source


@pytest.mark.parametrize(("ending", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_figure_is_written_as_its_name_says_and_alike_each_time(ending, begins, tmp_path):
    for folder in ("one", "two"):
        figure = Figure()
        figure.subplots().set_title("猫 & cat")
        style.save(figure, tmp_path / folder / f"x{ending}")
    written = (tmp_path / "one" / f"x{ending}").read_bytes()
    assert written.startswith(begins)
    assert written == (tmp_path / "two" / f"x{ending}").read_bytes()
