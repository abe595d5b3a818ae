"""`thumbnet evaluate FOLDER` of several runs: each measured once, means over seeds, nothing opened where it is refused."""

import json
import shutil
from statistics import fmean

import pytest

from conftest import pictures
from conftest import thumbnet as command
from thumbnet.judging.statistics import accuracy_interval
from thumbnet.runs.run import Run

FAST = ("--epochs", "1", "--widths", "8", "16", "16", "--batch-size", "8", "--no-report", "--threads", "1")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Two seeds of one recipe in runs/, on pictures with a test split."""
    folder = tmp_path_factory.mktemp("several")
    pictures(folder / "mine" / "train", count=12)
    pictures(folder / "mine" / "test", count=6)
    done = command("train", "mine", "--seeds", "2", "--out", "five", *FAST, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_each_run_is_measured_and_their_mean_told(here):
    shown = command("evaluate", "five", cwd=here)
    assert shown.returncode == 0, shown.stderr
    values = [Run.open(here / "five" / f"s{seed}").summary["validation_accuracy"] for seed in (0, 1)]
    lines = shown.stdout.splitlines()
    assert lines[0] == "2 runs on the validation images of mine, 1 view"
    assert lines[2].split()[:4] == ["five/s0", "0", "2", f"{values[0]:.2%}"]
    assert lines[3].split()[:4] == ["five/s1", "1", "2", f"{values[1]:.2%}"]
    assert "top-5" not in shown.stdout  # of two classes
    assert f"mean accuracy {fmean(values):.2%}" in lines[-1] and lines[-1].endswith("n = 2")


def test_the_test_images_are_opened_once_for_each_and_json_has_all(here, tmp_path):
    shutil.copytree(here, tmp_path / "there")
    done = command("evaluate", "five", "--split", "test", "--json", cwd=tmp_path / "there")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["run"] for row in found["runs"]] == ["five/s0", "five/s1"]
    assert [row["test_openings"] for row in found["runs"]] == [1, 1] == [row["images"] // 12 for row in found["runs"]]
    values = [row["accuracy"] for row in found["runs"]]
    [group] = found["groups"]
    assert (group["n"], group["mean"]) == (2, pytest.approx(fmean(values)))
    expected = accuracy_interval(values)
    assert group["interval95"] == (expected and pytest.approx(expected))
    kept = [Run.open(tmp_path / "there" / "five" / f"s{seed}").evaluations[-1]["accuracy"] for seed in (0, 1)]
    assert kept == values
    again = command(
        "compare", "five", "--split", "test", cwd=tmp_path / "there"
    )  # what was measured is what compare takes
    assert f"{fmean(values):.2%}" in again.stdout


def test_a_seed_that_is_there_twice_is_refused_before_anything_is_opened(here, tmp_path):
    shutil.copytree(here, tmp_path / "there")
    shutil.copytree(here / "five" / "s0", tmp_path / "there" / "five" / "twice")
    done = command("evaluate", "five", "--split", "test", cwd=tmp_path / "there")
    assert done.returncode == 2 and "have the same recipe and seed 0; name one of them" in done.stderr
    assert [Run.open(path).test_openings for path in sorted((tmp_path / "there" / "five").iterdir())] == [0, 0, 0]


def test_each_recipe_has_a_mean_of_its_own_whatever_the_views(here, tmp_path):
    shutil.copytree(here, tmp_path / "there")
    done = command("train", "mine", "--out", "other", *FAST, "--learning-rate", "0.2", cwd=tmp_path / "there")
    assert done.returncode == 0, done.stderr
    words = ("evaluate", "five", "other", "--split", "test", "--views", "2", "--uncertain", "0.5", "--json")
    found = json.loads(command(*words, cwd=tmp_path / "there").stdout)
    assert [group["n"] for group in found["groups"]] == [2, 1]
    assert [(row["views"], row["uncertain"]) for row in found["runs"]] == [(2, 0.5)] * 3
    values = [row["accuracy"] for row in found["runs"]]
    assert [group["mean"] for group in found["groups"]] == [pytest.approx(fmean(values[:2])), values[2]]


def test_what_one_run_cannot_is_refused_before_anything_is_opened(here, tmp_path):
    shutil.copytree(here, tmp_path / "there")
    more = ("--out", "five/other", *FAST, "--no-flip")
    assert command("train", "mine", *more, cwd=tmp_path / "there").returncode == 0
    done = command("evaluate", "five", "--split", "test", "--views", "2", cwd=tmp_path / "there")
    assert done.returncode == 2 and "five/other: views is 2, and the run was trained without mirror" in done.stderr
    assert [Run.open(path).test_openings for path in sorted((tmp_path / "there" / "five").iterdir())] == [0, 0, 0]


def test_all_are_measured_on_the_same_test_images(here, tmp_path):
    """Those of the first, though the second was trained on a copy that lacks some of them."""
    shutil.copytree(here, tmp_path / "there")
    there = tmp_path / "there"
    shutil.copytree(there / "mine", there / "copy")
    next((there / "copy" / "test" / "a").iterdir()).unlink()
    assert command("train", "copy", "--out", "other", "--seed", "7", *FAST, cwd=there).returncode == 0
    found = json.loads(command("evaluate", "five/s0", "other", "--split", "test", "--json", cwd=there).stdout)
    assert [row["images"] for row in found["runs"]] == [12, 12]


def test_runs_of_other_data_are_refused_before_anything_is_opened(here, tmp_path):
    shutil.copytree(here, tmp_path / "there")
    pictures(tmp_path / "there" / "others" / "train", classes=("x", "y"), count=9)
    pictures(tmp_path / "there" / "others" / "test", classes=("x", "y"), count=3)
    assert command("train", "others", "--out", "five/other", *FAST, cwd=tmp_path / "there").returncode == 0
    done = command("evaluate", "five", "--split", "test", cwd=tmp_path / "there")
    assert done.returncode == 2 and "have different classes; only runs on the same data compare" in done.stderr
    assert [Run.open(path).test_openings for path in sorted((tmp_path / "there" / "five").iterdir())] == [0, 0, 0]


@pytest.mark.parametrize("option", [("--confusion", "c.csv"), ("--predictions", "p.csv"), ("--robustness",)])
def test_what_is_of_one_run_is_refused(option, here):
    done = command("evaluate", "five", *option, cwd=here)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"{option[0]} is of one run, and these are 2; name one of them")


def test_a_folder_without_runs_says_so(here):
    done = command("evaluate", "mine", cwd=here)
    assert done.returncode == 2 and "mine is not a run folder and holds no finished run" in done.stderr


def test_nothing_to_measure_is_one_line(here):
    done = command("evaluate", cwd=here)
    assert done.returncode == 2 and "name what to measure, as in: thumbnet evaluate runs/latest" in done.stderr
