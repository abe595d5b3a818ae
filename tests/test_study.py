"""Studies: plans, resuming, refusals, folds, the statistics at the end, and the report's experiments."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import CPU, pictures, thumbnet
from thumbnet.cli.main import run as command_line
from thumbnet.cli.study import study_named
from thumbnet.errors import UserError
from thumbnet.recipes import recipe
from thumbnet.studies.cells import Running, start, start_up_seconds
from thumbnet.studies.classic import CHANGES, REPORTED, classic_study
from thumbnet.studies.study import estimated_seconds, judge_study, looks_before, run_study, write_plan
from thumbnet.studies.study_file import read_study, study_of

TINY = """
seeds = {seeds}
[fields]
epochs = 1
widths = [8, 16, 16]
batch_size = 500
{rows}
"""
TWO = """
[[variant]]
name = "smooth"
[[variant]]
name = "sharp"
label_smoothing = 0.0
"""


def written(folder: Path, rows: str = TWO, name: str = "s.toml", seeds: int = 2) -> Path:
    path = folder / name
    path.write_text(TINY.format(rows=rows, seeds=seeds))
    return path


# ---------------------------------------------------------------- reading


def test_a_file_of_the_other_command_is_told_as_such(tmp_path):
    from thumbnet.studies.sweep_file import read_sweep

    (tmp_path / "rates.toml").write_text("[search]\ncrop = [1, 2]\n")
    with pytest.raises(UserError, match=r"rates.toml is a sweep file, with a table \[search\]; type thumbnet sweep"):
        read_study(tmp_path / "rates.toml")
    with pytest.raises(UserError, match=r"s.toml is a study file; type thumbnet study"):
        read_sweep(written(tmp_path))


def test_a_study_is_every_variant_times_every_seed(tmp_path):
    study = read_study(written(tmp_path))
    assert [variant.name for variant in study.variants] == ["smooth", "sharp"]
    assert [cell.name for cell in study.cells()] == ["smooth-s0", "sharp-s0", "smooth-s1", "sharp-s1"]
    assert read_study(tmp_path / "s.toml", seeds=4).seeds == (0, 1, 2, 3)
    (tmp_path / "named.toml").write_text("seeds = [5, 6]\n" + TWO)
    with pytest.raises(UserError, match="names its seeds one by one; leave out --seeds 4"):
        read_study(tmp_path / "named.toml", seeds=4)
    assert study.cells()[3].recipe == recipe(
        "general", epochs=1, widths=(8, 16, 16), batch_size=500, label_smoothing=0.0, seed=1
    )


def test_a_grid_is_the_product_of_its_values():
    study = study_of({"grid": {"flip": [True, False], "epochs": [1, 2, 3]}}, default_name="g")
    assert len(study.variants) == 6
    assert study.variants[1].name == "flip yes, epochs 2"
    assert (study.variants[4].recipe.flip, study.variants[4].recipe.epochs) == (False, 2)


def test_a_row_of_another_model_leaves_the_recipes_widths_out():
    row = {"model": "resnet18", "optimizer": "sgd", "learning_rate": 0.1}
    study = study_of({"recipe": "general", "variant": [{"name": "as it is"}, row]}, default_name="models")
    assert [variant.recipe.widths for variant in study.variants] == [recipe("general").widths, ()]


def test_seeds_are_counted_or_named():
    rows = {"variant": [{"name": "a"}]}
    assert study_of(rows | {"seeds": 2, "first_seed": 5}, default_name="s").seeds == (5, 6)
    assert study_of(rows | {"seeds": [3, 1]}, default_name="s").seeds == (3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing to study"),
        ("[grid]", "the grid is empty"),
        ("[grid]\nflip = []", "grid: flip is []; give a list of values"),
        ("[grid]\nflip = true", "grid: flip is True; give a list"),
        ("[grid]\nflipp = [true]", "unknown recipe field 'flipp'; did you mean 'flip'"),
        ("[[variant]]\nlable_smoothing = 1", "unknown recipe field 'lable_smoothing'; did you mean 'label_smoothing'"),
        ("[[variant]]\nepochs = 0", "epochs is 0"),
        ("[[variant]]\nseed = 3", "seed is set by the study itself"),
        ("[[variant]]\nname = 'a'\n[[variant]]\nname = 'a'", "two variants are named 'a'"),
        ("[[variant]]\nname = 'a b'\n[[variant]]\nname = 'a-b'", "differ in signs only"),
        ("[[variant]]\nname = 'a'\n[grid]\nflip = [true]", "either a grid or variants"),
        ("seeds = 0\n[[variant]]\nname = 'a'", "seeds is 0; give a whole number, 1 or more"),
        ("seeds = [1, 1]\n[[variant]]\nname = 'a'", "give different whole numbers"),
        ("seeds = 1.5\n[[variant]]\nname = 'a'", "seeds is 1.5"),
        ("sedes = 3\n[[variant]]\nname = 'a'", "unknown key 'sedes'; did you mean 'seeds'"),
        ("recipe = 'generel'\n[[variant]]\nname = 'a'", "unknown recipe 'generel'; did you mean 'general'"),
        (f"dataset = '{'9' * 300}'\n[[variant]]\nname = 'a'", "unknown data set '999"),
        ("dataset = 'cifar11'\n[[variant]]\nname = 'a'", "unknown data set 'cifar11'; did you mean"),
        ("metric = 'f1'\n[[variant]]\nname = 'a'", "metric is 'f1'; choose accuracy, balanced_accuracy, top5 or loss"),
        ("name = '../up'\n[[variant]]\nname = 'a'", "give one that a folder can have"),
        ("fields = 3\n[[variant]]\nname = 'a'", "fields is not a table"),
        ("variant = 3", "variant is not a list of tables"),
        ("seeds = 3 4", "is not TOML"),
        ("seeds = 9999\n[grid]\nepochs = [1, 2]", "19,998 runs are more than 10,000"),
    ],
)
def test_a_file_that_says_no_study_is_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_study(path)
    assert message in str(error.value) and "bad.toml" in str(error.value)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- running


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two variants and two seeds, run by the command."""
    folder = tmp_path_factory.mktemp("study")
    written(folder)
    result = thumbnet("study", "s.toml", "--threads", 1, "--jobs", 2, "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_the_command_trains_every_cell_and_writes_plan_numbers_and_page(finished):
    folder, result = finished
    study = folder / "studies" / "s"
    assert {path.name for path in (study / "cells").iterdir() if path.is_dir()} == {
        "smooth-s0", "smooth-s1", "sharp-s0", "sharp-s1",
    }  # fmt: skip
    found = json.loads(result.stdout)
    [comparison] = found["comparisons"]
    assert [(group["name"], group["n"]) for group in comparison["groups"]] == [("smooth", 2), ("sharp", 2)]
    assert json.loads((study / "study.json").read_text())["comparisons"] == found["comparisons"]
    page = (study / "study.html").read_text()
    assert comparison["pairs"][0]["sentence"].split('"')[-1] in page
    assert "4/4" in result.stderr
    for words in ("What was trained", "general", "Seeds 0 1", 'href="cells/smooth-s1/"', "label_smoothing"):
        assert words in page, words


def test_a_study_never_opens_the_test_images(finished):
    folder, _ = finished
    assert not list(folder.rglob("test-openings.jsonl"))


def test_called_again_it_trains_nothing(finished):
    folder, _ = finished
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    result = thumbnet("study", "s.toml", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "4 finished already" in result.stderr
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}


@pytest.mark.parametrize(
    ("rows", "difference"),
    [
        (TWO.replace("0.0", "0.05"), "label_smoothing of sharp-s0 was 0.0, now 0.05"),
        ("[[variant]]\nname = 'smooth'", "it has sharp-s0, which the new one lacks (and 1 more)"),
        (TWO + "[[variant]]\nname = 'third'\nflip = false", "it lacks third-s0 (and 1 more)"),
        (
            "[[variant]]" + TWO.split("[[variant]]")[2] + "\n[[variant]]" + TWO.split("[[variant]]")[1],
            "its variants came in the order smooth, sharp, now sharp, smooth",
        ),
    ],
)
def test_a_changed_plan_is_refused_with_the_difference(rows, difference, finished, tmp_path):
    folder, _ = finished
    study = read_study(written(tmp_path, rows))
    with pytest.raises(UserError, match="holds another plan") as error:
        run_study(study, folder / "studies" / "s")
    assert difference in str(error.value)


def test_runs_of_another_plan_are_not_counted_as_done(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    written(tmp_path / "copy", TWO.replace("0.0", "0.05"))
    done = thumbnet("study", "s.toml", "--plan", "--threads", 1, cwd=tmp_path / "copy")
    assert done.returncode == 0 and "are done" not in done.stdout and "for 4 runs" in done.stdout
    assert "studies/s holds another plan: label_smoothing of sharp-s0 was 0.0, now 0.05; give another" in done.stderr


def test_a_plan_from_before_there_was_a_field_is_the_same_plan(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    folder = tmp_path / "copy" / "studies" / "s"
    plan = json.loads((folder / "plan.json").read_text())
    for cell in plan["cells"].values():
        del cell["balance"], cell["start_from"], cell["leave_out"], cell["loss"], cell["augment"], cell["own"]
    (folder / "plan.json").write_text(json.dumps(plan))
    study = read_study(tmp_path / "copy" / "s.toml")
    write_plan(study, folder)
    assert json.loads((folder / "plan.json").read_text())["cells"] == json.loads(json.dumps(study.plan()["cells"]))


def test_seeds_may_be_added_and_that_it_was_judged_before_is_told(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    written(tmp_path / "copy", seeds=3)
    result = thumbnet("study", "s.toml", "--threads", 1, "--json", cwd=tmp_path / "copy")
    assert result.returncode == 0, result.stderr
    assert "6 runs, 4 finished already" in result.stderr
    [comparison] = json.loads(result.stdout)["comparisons"]
    assert [group["n"] for group in comparison["groups"]] == [3, 3]
    said = "seeds were added after it had been judged with n = 2: p values are for one look, not for several"
    assert said in comparison["warnings"]


def test_with_folds_it_is_told_with_how_many_seeds_it_was_judged_and_not_with_how_many_runs(tmp_path):
    for seeds in (2, 3):
        (tmp_path / "cells").mkdir(exist_ok=True)
        write_plan(study_of({"variant": [{"name": "a"}], "folds": 5, "seeds": seeds}, default_name="s"), tmp_path)
        (tmp_path / "study.json").write_text("{}")
    assert looks_before(tmp_path) == [2]


def test_a_study_whose_runs_hold_nothing_out_is_refused_before_it_trains():
    table = {"variant": [{"name": "a"}], "fields": {"validation": 0.0}}
    with pytest.raises(
        UserError, match=r"variant 'a' trains on all images \(validation 0\), so that nothing is left to judge"
    ):
        study_of(table, default_name="s")
    assert study_of(table | {"folds": 3}, default_name="s").folds == 3


def test_a_data_dir_is_passed_on_to_published_sets_only_and_refused_where_there_are_none(tmp_path, monkeypatch):
    pictures(tmp_path / "pics")
    sets = ("cifar10", str(tmp_path / "pics"), "fashion-mini")
    rows = [{"name": f"row {number}", "dataset": name} for number, name in enumerate(sets)]
    study, passed = study_of({"seeds": 1, "variant": rows}, default_name="mixed"), []
    monkeypatch.setattr("thumbnet.studies.cells.subprocess.Popen", lambda words, **options: passed.append(words))
    (tmp_path / "cells").mkdir()
    for cell in study.cells():
        start(cell, tmp_path, Running(), CPU, 1, tmp_path)
    assert [any(word.startswith("--data-dir=") for word in words) for words in passed] == [True, False, False]
    local = study_of({"seeds": 1, "variant": rows[1:]}, default_name="local")
    for call in (
        lambda: run_study(local, tmp_path / "out", data_dir=tmp_path),
        lambda: estimated_seconds(local, data_dir=tmp_path),
    ):
        with pytest.raises(
            UserError, match=r"is for the files of published sets, not for .*pics, fashion-mini; leave it out"
        ):
            call()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is taken and holds no plan of ours"):
        run_study(read_study(written(tmp_path)), tmp_path / "taken")


def test_a_stopped_study_exits_75_and_goes_on_where_it_was(tmp_path):
    written(tmp_path, TWO.replace("0.0", "0.0\nepochs = 8"), seeds=1)
    command = [sys.executable, "-m", "thumbnet.cli.main", "study", "s.toml", "--threads", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    cells = tmp_path / "studies" / "s" / "cells"
    for _ in range(3_000):
        if (cells / "sharp-s0" / "metrics.jsonl").is_file():
            break
        time.sleep(0.02)  # the cell trains a second or two more
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "the same command goes on" in errors
    assert list((cells / "sharp-s0" / "checkpoint").glob("*.json"))
    epochs = len((cells / "sharp-s0" / "metrics.jsonl").read_text().splitlines())
    assert 1 <= epochs < 8
    study = read_study(tmp_path / "s.toml")
    done = run_study(study, tmp_path / "studies" / "s", machine=CPU)
    assert len(done) == 2
    assert "continuing after step" in (cells / "sharp-s0.log").read_text()


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path):
    fails = "[[variant]]\nname = 'wild'\nlearning_rate = 1e30\noptimizer = 'sgd'\n"
    written(tmp_path, f"{fails}[[variant]]\nname = 'tame'\n", seeds=1)
    result = thumbnet("study", "s.toml", "--threads", 1, cwd=tmp_path)
    assert result.returncode == 1
    assert "1 of 2 runs failed; see" in result.stderr and ", then run the study again" in result.stderr
    cells = tmp_path / "studies" / "s" / "cells"
    assert "the loss is" in (cells / "wild-s0.log").read_text()
    assert (cells / "tame-s0" / "summary.json").is_file()  # it was begun after the other had failed


def test_a_study_decodes_pictures_as_its_file_or_the_command_says(here, capsys):
    pictures(here / "photos", count=20)
    (here / "photos" / "a" / "torn.png").write_bytes(b"\x89PNG torn")
    rows = "[fields]\nepochs = 1\nwidths = [8, 16, 16]\nbatch_size = 10\n[[variant]]\nname = 'one'\n"
    (here / "s.toml").write_text(f"dataset = 'photos'\nseeds = 1\nimage_size = 40\nskip_broken = true\n{rows}")
    assert command_line(["study", "s.toml", "--image-size", "24", "--threads", "1"]) == 0
    data = json.loads((here / "studies" / "s" / "cells" / "one-s0" / "data.json").read_text())
    assert (data["image_size"], data["broken"]) == ([24, 24], ["a/torn.png"])
    plan = json.loads((here / "studies" / "s" / "plan.json").read_text())
    assert plan["cells"]["one-s0"]["image_size"] == 24 and plan["cells"]["one-s0"]["skip_broken"] is True
    assert command_line(["study", "s.toml"]) == 2
    assert "image_size of one-s0 was 24, now 40; give another --out" in capsys.readouterr().err
    assert command_line(["study", "s.toml", "--image-size", "32"]) == 2  # as it is where nothing is said
    assert "image_size of one-s0 was 24, now None; give another --out" in capsys.readouterr().err


def test_a_recipe_that_the_file_does_not_name_is_made_to_fit_a_folder_and_what_is_stated_stays(tmp_path):
    pictures(tmp_path / "photos", count=20)
    rows = {"variant": [{"name": "as it is"}, {"name": "large", "batch_size": 18}, {"name": "smooth", "crop": 0}]}
    told = []
    study = study_of({"dataset": str(tmp_path / "photos"), **rows}, default_name="s", tell=told.append)
    fitted = [(row.recipe.batch_size, row.recipe.epochs) for row in study.variants]
    assert fitted == [
        (8, 75),
        (18, 75),
        (8, 75),
    ]  # of 36 images: 300 steps; the rows differ in what they say and no more
    few = "36 training images, few for general: "
    assert told == [f"{few}epochs 75 (not 11), batch_size 8 (not 100)"]  # once
    shared = study_of({"dataset": str(tmp_path / "photos"), "fields": {"batch_size": 18}, **rows}, default_name="s")
    assert (shared.variants[0].recipe.batch_size, shared.variants[0].recipe.epochs) == (18, 150)
    folded = study_of({"dataset": str(tmp_path / "photos"), "folds": 2, **rows}, default_name="s")
    assert folded.variants[0].recipe.epochs == 150  # of 20 images
    pictures(tmp_path / "fewer", count=12)
    said_of_few = []
    study_of({"dataset": str(tmp_path / "fewer"), **rows}, default_name="s", tell=said_of_few.append)
    assert said_of_few[0].startswith("2 classes have fewer than 20 training images: a, b")
    named = study_of(
        {"dataset": str(tmp_path / "photos"), "recipe": "general", **rows}, default_name="s", tell=told.append
    )
    assert named.variants[0].recipe == recipe("general") and len(told) == 1
    (tmp_path / "s.toml").write_text(
        f"dataset = '{tmp_path / 'photos'}'\n[[variant]]\nname = 'a'\n[[variant]]\ncrop = 0\n"
    )
    said = thumbnet("study", "s.toml", "--plan", cwd=tmp_path)
    assert said.returncode == 0 and f"note: {few}epochs 75 (not 11), batch_size 8 (not 100)" in said.stderr


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"image_size": 24}, "image_size is for images in files, and none are trained on here; leave it out"),
        ({"image_size": "large"}, "image_size is 'large'; give a whole number of pixels from 1 to 4096"),
        ({"image_size": 0}, "image_size is 0; give a whole number of pixels from 1 to 4096"),
        ({"skip_broken": 1}, "skip_broken is 1; give true or false"),
    ],
)
def test_pictures_cannot_be_decoded_like_this(table, message):
    with pytest.raises(UserError, match=message):
        study_of({"variant": [{"name": "a"}], **table}, default_name="s")
    with pytest.raises(UserError, match="skip_broken is for images in files, and none are trained on here"):
        study_named("classic", None, None, None, {"skip_broken": True})


def test_jobs_train_side_by_side_and_folds_count_as_one_seed(tmp_path):
    written(tmp_path).write_text("folds = 2\n" + TINY.format(rows=TWO, seeds=1))
    lines = []
    study = read_study(tmp_path / "s.toml")
    done = run_study(study, tmp_path / "out", jobs=2, machine=CPU, tell=lines.append)
    assert len(done) == 4 and "4/4" in lines[-1]
    [found] = judge_study(study, done)
    assert [group.n for group in found.groups] == [1, 1]
    halves = [run.predictions("validation").rows.tolist() for cell, run in done if cell.name.startswith("smooth-s0")]
    assert sorted(halves[0] + halves[1]) == list(range(6_000))


def test_planning_trains_nothing(tmp_path):
    written(tmp_path)
    result = thumbnet("study", "s.toml", "--plan", cwd=tmp_path)
    assert "2 variants x 2 seeds = 4 runs" in result.stdout
    assert re.search(r"smooth .*, about [\d:]+( s)? a run", result.stdout)
    assert re.search(r"about [\d:]+( s)? on this machine for 4 runs, one at a time\n", result.stdout)
    assert os.listdir(tmp_path) == ["s.toml"]


def test_the_start_of_its_process_counts_for_each_run(tmp_path, monkeypatch):
    written(tmp_path)
    monkeypatch.setattr("thumbnet.studies.study.start_up_seconds", lambda: 1_000.0)
    seconds = estimated_seconds(read_study(tmp_path / "s.toml"), machine=CPU)
    assert seconds.keys() == {"smooth", "sharp"} and all(1_000 < value < 1_500 for value in seconds.values())
    assert 0.1 < start_up_seconds() < 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "nothing.toml"], "there is no study file nothing.toml"),
        (["study", "clasic"], "there is no study file clasic; did you mean 'classic'? Else give a TOML file"),
        (["study", "s.toml", "--scale", "0.1"], "--scale is for thumbnet study classic"),
        (["study", "classic", "--scale", "0"], "scale is 0"),
        (["study", "classic", "--scale", "2", "--plan"], "scale is 2"),
        (["study", "s.toml", "--jobs", "0"], "jobs is 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, message, tmp_path):
    written(tmp_path)
    result = thumbnet(*words, cwd=tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert message in result.stderr


# ---------------------------------------------------------------- the original report


def test_the_classic_study_has_every_row_of_the_report():
    study = classic_study()
    rows = {variant.name: variant for variant in study.variants}
    assert list(rows) == [row.variant for row in REPORTED] == list(CHANGES)
    assert {variant.recipe.epochs for variant in rows.values()} == {160}
    pre = rows["CIFAR-10, pre-activation"].recipe
    assert pre == recipe("cifar10-classic")
    assert rows["CIFAR-10, pre-activation, L2 0.01"].recipe.l2 == 0.01
    assert rows["CIFAR-10, post-activation"].recipe.model == "resnet50_classic"
    dropout = [rows[name].recipe.dropout for name in list(rows)[3:]]
    assert dropout == [(0, 0, 0), (0, 0, 0.2), (0.15, 0.2, 0.2)]
    stated = rows["CIFAR-10, pre-activation"].stated
    assert (stated["reported, test"], stated["reported loss"], stated["reported gap"]) == ("83.40%", "0.6280", "-")
    stated = rows["CIFAR-100, dropout in three places"].stated
    assert (stated["reported, test"], stated["reported loss"], stated["reported gap"]) == (
        "80.26%",
        "2.0996",
        "about 5",
    )
    assert study.metrics == {"cifar10": "accuracy", "cifar100": "top5"}


def test_scale_shrinks_epochs_and_the_drops_follow():
    from thumbnet.recipes.schedule import rate_factor

    study = classic_study(scale=0.1, seeds=2, only="cifar10")
    assert {variant.recipe.epochs for variant in study.variants} == {16}
    assert study.seeds == (0, 1)
    assert {variant.dataset for variant in study.variants} == {"cifar10"}
    chosen = study.variants[0].recipe
    factors = [rate_factor(chosen, epoch, 0, 10) for epoch in range(16)]
    whole = [rate_factor(recipe("cifar10-classic"), epoch, 0, 10) for epoch in range(0, 160, 10)]
    assert factors[:8] == [1] * 8 and factors[-1] == pytest.approx(0.01)
    assert sum(a != b for a, b in zip(factors, whole, strict=True)) <= 2  # "above 80": the drop falls one epoch later
