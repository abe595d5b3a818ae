"""Sweeps: what is proposed and kept, what may be claimed of the best, and what a sweep file may not say."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from conftest import CPU, ONE_THREAD, pictures
from conftest import thumbnet as thumbnet_command
from thumbnet.cli.main import run as command_line
from thumbnet.cli.sweep import places
from thumbnet.errors import Interrupted, TrainingFailed, UserError
from thumbnet.files import write_json
from thumbnet.reading import read_json
from thumbnet.recipes import recipe, vary
from thumbnet.recipes.recipe_file import write_recipe
from thumbnet.runs.run import Run
from thumbnet.studies import sweep as sweeping
from thumbnet.studies.sweep import (
    Found,
    Range,
    Trial,
    Trials,
    at_work,
    changed_fields,
    found_in,
    in_words,
    run_sweep,
    values_by_field,
    write_sweep,
)  # fmt: skip
from thumbnet.studies.sweep_file import read_sweep, sweep_of
from thumbnet.training.loop import train

pytest.importorskip("optuna", reason="sweeps need the extra `tune`")

SEARCH = {"learning_rate": {"low": 0.01, "high": 1.0, "log": True}, "crop": {"low": 0, "high": 4}}
FILE = {"dataset": "fashion-mini", "recipe": "general", "trials": 12, "search": SEARCH}


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run folder that stands for every trial's."""
    made = recipe("general", widths=(8, 8, 16), epochs=1, batch_size=32)
    return train(made, tiny, tmp_path_factory.mktemp("finished") / "run", machine=CPU).path


@pytest.fixture
def by_rule(finished, monkeypatch):
    """Trials end at once and reach what a function of their recipe says, None for failure; gives the cells begun."""
    begun = []

    def use(rule):
        def start(cell, folder, running, machine, threads, data_dir):
            begun.append(cell.recipe)
            value = rule(cell.recipe)
            out = folder / "cells" / cell.name
            if value is not None:
                shutil.copytree(finished, out)
                write_recipe(cell.recipe, out)
                write_json(out / "summary.json", read_json(out / "summary.json") | {"validation_accuracy": value})
            process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({int(value is None)})"])
            running.processes[cell.name] = (process, cell, 0.0)

        monkeypatch.setattr(sweeping, "start", start)
        return begun

    return use


def near_a_third(made):
    return 1 - abs(made.learning_rate - 0.3) / 2 - made.crop / 100


def test_the_best_is_found_and_told_with_what_mattered(by_rule, tmp_path):
    begun = by_rule(near_a_third)
    sweep = sweep_of(FILE, default_name="rates")
    found = run_sweep(sweep, tmp_path / "out")
    assert len(begun) == len(found.trials) == 12
    assert begun[0] == sweep.recipe  # the first trial is the recipe as it is
    assert {made.seed for made in begun} == {0}
    assert found.best.value == max(row.value for row in found.trials) == near_a_third(found.recipe)
    assert found.best.value > near_a_third(sweep.recipe)
    assert changed_fields(sweep, found).keys() <= {"learning_rate", "crop"}
    assert all(0.01 <= made.learning_rate <= 1 and made.crop in range(5) for made in begun)
    assert sum(found.importance.values()) == pytest.approx(1) and found.importance["learning_rate"] > 0.5
    assert len(values_by_field(found)["crop"][0]) == 12
    write_sweep(sweep, tmp_path / "out", found, None)
    told = read_json(tmp_path / "out" / "sweep.json")
    assert told["best"] == found.best.number and len(told["trials"]) == 12 and told["fresh_seeds"] is None
    assert "learning_rate" in (tmp_path / "out" / "best.toml").read_text()


def test_more_trials_go_on_and_are_the_same_as_without_a_stop(by_rule, tmp_path):
    by_rule(near_a_third)
    whole = run_sweep(sweep_of(FILE, default_name="rates"), tmp_path / "whole")
    run_sweep(sweep_of(FILE | {"trials": 5}, default_name="rates"), tmp_path / "parts")
    begun = by_rule(near_a_third)
    before = len(begun)
    parts = run_sweep(sweep_of(FILE, default_name="rates"), tmp_path / "parts")
    assert len(begun) - before == 7
    assert parts.trials == whole.trials and parts.best == whole.best


def test_a_trial_that_was_stopped_is_gone_on_with_and_one_that_had_ended_is_kept(by_rule, finished, tmp_path):
    begun = by_rule(near_a_third)
    sweep = sweep_of(FILE | {"trials": 4}, default_name="rates")
    run_sweep(sweep_of(FILE | {"trials": 2}, default_name="rates"), tmp_path / "out")
    left = Trials(sweep, tmp_path / "out")
    stopped, heard_of_by_nobody = left.cell(left.propose()), left.cell(left.propose())
    there = tmp_path / "out" / "cells" / heard_of_by_nobody.name
    shutil.copytree(finished, there)
    write_recipe(heard_of_by_nobody.recipe, there)
    del begun[:]
    found = run_sweep(sweep, tmp_path / "out")
    assert begun == [stopped.recipe]
    assert [row.number for row in found.trials] == [0, 1, 2, 3]
    assert found.trials[3].value == read_json(finished / "summary.json")["validation_accuracy"]


def test_failed_trials_are_counted_and_passed_over(by_rule, tmp_path):
    said = []
    by_rule(lambda made: None if made.crop >= 2 else near_a_third(made))
    found = run_sweep(sweep_of(FILE, default_name="rates"), tmp_path / "out", tell=said.append)
    failed = [row for row in found.trials if row.value is None]
    assert failed and all(row.changes["crop"] >= 2 for row in failed) and found.recipe.crop < 2
    assert sum("failed; see" in line for line in said) == len(failed)


def test_where_every_trial_fails_that_is_the_outcome(by_rule, tmp_path):
    by_rule(lambda made: None)
    with pytest.raises(TrainingFailed, match=r"every trial failed; see .*cells.*, and search other values"):
        run_sweep(sweep_of(FILE | {"trials": 2}, default_name="rates"), tmp_path / "out")


def test_values_that_do_not_go_together_are_told_and_count_as_made(by_rule, tmp_path):
    by_rule(near_a_third)
    said = []
    search = {"batch_size": [100, 125], "micro_batch": [0, 50]}
    found = run_sweep(sweep_of(FILE | {"search": search}, default_name="b"), tmp_path / "out", tell=said.append)
    assert any("not made: micro_batch 50 does not divide batch_size 125" in line for line in said)
    assert len(found.trials) == 12 and found.best.value is not None


def test_lists_of_values_are_tried_as_the_field_has_them(by_rule, tmp_path):
    begun = by_rule(lambda made: 0.9 if made.widths == (16, 32, 32) and not made.flip else 0.5)
    search = {"widths": [[8, 8, 16], [16, 32, 32]], "flip": [True, False], "optimizer": ["muon", "sgd"]}
    sweep = sweep_of(FILE | {"search": search}, default_name="lists")
    found = run_sweep(sweep, tmp_path / "out", jobs=2)
    assert {made.widths for made in begun} == {(8, 8, 16), (16, 32, 32)} and {made.flip for made in begun} == {
        True,
        False,
    }
    assert found.best.value == 0.9 and found.recipe.widths == (16, 32, 32) and found.recipe.flip is False


def test_models_are_searched_each_with_widths_it_takes(tmp_path):
    fields = {"optimizer": "sgd", "learning_rate": 0.1}
    table = {"recipe": "general", "fields": fields, "search": {"model": ["speednet_slim", "resnet18"]}}
    sweep = sweep_of(table, default_name="models")
    other = Trials(sweep, tmp_path).recipe_with({"model": "resnet18"})
    found = Found((), Trial(1, {"model": "resnet18"}, 0.5), other)
    assert other.widths == () and in_words(changed_fields(sweep, found)) == "model resnet18, widths none"
    assert Trials(sweep, tmp_path).recipe_with({"model": "speednet_slim"}) == sweep.recipe


def test_balanced_accuracy_is_what_trials_are_judged_by_where_it_is_the_metric(by_rule, finished, tmp_path):
    by_rule(lambda made: 0.123)  # accuracy
    found = run_sweep(sweep_of(FILE | {"metric": "balanced_accuracy", "trials": 1}, default_name="r"), tmp_path / "out")
    assert found.best.value == read_json(finished / "summary.json")["validation_balanced_accuracy"] != 0.123


def test_a_loss_is_made_small(finished, tmp_path):
    trials = Trials(sweep_of(FILE | {"metric": "loss"}, default_name="loss"), tmp_path)
    for value in (0.7, 0.4, 0.9):
        trials.record(trials.propose(), value)
    assert found_in(trials, tmp_path).best.value == 0.4


def test_a_plan_from_before_there_was_a_field_is_the_same_plan(by_rule, tmp_path):
    by_rule(near_a_third)
    sweep = sweep_of(FILE | {"trials": 1}, default_name="rates")
    run_sweep(sweep, tmp_path / "out")
    path = tmp_path / "out" / "plan.json"
    plan = json.loads(path.read_text())
    del plan["recipe"]["balance"]
    path.write_text(json.dumps(plan))
    run_sweep(sweep, tmp_path / "out")
    assert "balance" in json.loads(path.read_text())["recipe"]


def test_another_plan_in_the_folder_is_refused(by_rule, tmp_path):
    by_rule(near_a_third)
    run_sweep(sweep_of(FILE | {"trials": 1}, default_name="rates"), tmp_path / "out")
    other = sweep_of(FILE | {"search": {"crop": SEARCH["crop"]}}, default_name="rates")
    with pytest.raises(
        UserError, match=r"holds another plan: search was .*learning_rate.*, now .*; give another --out"
    ):
        run_sweep(other, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with (
        pytest.raises(UserError, match="is taken and holds no plan of ours; give another --out"),
        at_work(tmp_path / "mine"),
    ):
        pass
    with (
        at_work(tmp_path / "out"),
        pytest.raises(UserError, match="another process is at the sweep"),
        at_work(tmp_path / "out"),
    ):
        pass


def test_a_sweep_decodes_pictures_as_its_file_or_the_command_says(by_rule, tmp_path):
    pictures(tmp_path / "photos")
    table = FILE | {"dataset": str(tmp_path / "photos"), "image_size": 24, "skip_broken": True, "trials": 2}
    sweep = sweep_of(table, default_name="s")
    assert sweep.decoding == {"image_size": 24, "skip_broken": True}
    by_rule(near_a_third)
    found = run_sweep(sweep, tmp_path / "out")
    fresh = sweep.on_fresh_seeds(found.best, found.recipe, 2)
    assert all(variant.decoding == sweep.decoding for variant in fresh.variants)
    judged = SimpleNamespace(pairs=[SimpleNamespace(difference=None)])
    assert "--config out/best.toml --image-size 24 --skip-broken" in " ".join(places(Path("out"), sweep, found, judged))
    with pytest.raises(UserError, match="image_size was 24, now None; give another --out"):
        run_sweep(sweep_of(table | {"image_size": 32}, default_name="s"), tmp_path / "out")
    with pytest.raises(UserError, match="image_size is for images in files, and none are trained on here"):
        sweep_of(FILE | {"image_size": 24}, default_name="s")


def test_a_recipe_that_the_file_does_not_name_is_made_to_fit_a_folder(tmp_path):
    pictures(tmp_path / "photos", count=20)
    table = {"dataset": str(tmp_path / "photos"), "search": {"crop": [0, 1]}}
    told = []
    fitted = sweep_of(table, default_name="s", tell=told.append).recipe
    assert (fitted.batch_size, fitted.epochs) == (8, 75)
    assert told == ["36 training images, few for general: epochs 75 (not 11), batch_size 8 (not 100)"]
    named = sweep_of(table | {"recipe": "general"}, default_name="s", tell=told.append).recipe
    assert (named.batch_size, named.epochs, len(told)) == (100, 11, 1)


def test_a_signal_stops_between_trials(by_rule, tmp_path):
    by_rule(lambda made: os.kill(os.getpid(), signal.SIGTERM) or 0.5)
    with pytest.raises(Interrupted, match="stopped by SIGTERM; the same command goes on with the sweep"):
        run_sweep(sweep_of(FILE, default_name="rates"), tmp_path / "out")


def test_the_best_is_tried_on_seeds_that_no_trial_had():
    sweep = sweep_of(FILE | {"seeds": 3}, default_name="rates")
    study = sweep.on_fresh_seeds(Trial(4, {"crop": 3}, 0.9), recipe("general", crop=3), 12, ["trial-2"])
    assert study.seeds == (1, 2, 3) and [variant.name for variant in study.variants] == ["baseline", "best trial"]
    assert all(cell.recipe.seed != sweep.recipe.seed for cell in study.cells())
    assert "trial 4 of 12" in study.about and "before: trial-2" in study.about


@pytest.mark.parametrize(
    ("code", "why"), [(2, "device cuda is not available"), (75, "stopped by SIGTERM"), (-9, "was ended")]
)
def test_a_trial_that_could_not_be_trained_is_no_failure_of_its_values(code, why, by_rule, tmp_path, monkeypatch):
    """A GPU that is not there, a run held by a process that outlived its sweep, a kill."""

    def start(cell, folder, running, machine, threads, data_dir):
        (folder / "cells" / f"{cell.name}.log").write_text(f"loading\nthumbnet: {why}\n")
        program = f"import os; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
        running.processes[cell.name] = (subprocess.Popen([sys.executable, "-c", program]), cell, 0.0)

    sweep = sweep_of(FILE | {"trials": 3}, default_name="rates")
    monkeypatch.setattr(sweeping, "start", start)
    with pytest.raises(
        TrainingFailed, match=rf"trial 0 could not be trained: .*{why}.*; then the same command goes on"
    ):
        run_sweep(sweep, tmp_path / "out")
    begun = by_rule(near_a_third)
    found = run_sweep(sweep, tmp_path / "out")
    assert begun[0] == sweep.recipe and len(begun) == 3 and all(row.value is not None for row in found.trials)


def test_a_line_torn_by_a_power_cut_costs_that_line(by_rule, tmp_path):
    by_rule(near_a_third)
    sweep = sweep_of(FILE | {"trials": 4}, default_name="rates")
    before = run_sweep(sweep, tmp_path / "out")
    path = tmp_path / "out" / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # the outcome of trial 3; its run is there
    assert run_sweep(sweep, tmp_path / "out") == before
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-2][:20])  # its proposal too: the same is proposed again
    assert run_sweep(sweep, tmp_path / "out") == before


def test_a_run_of_another_recipe_in_a_trials_place_is_not_believed(by_rule, tmp_path):
    by_rule(near_a_third)
    sweep = sweep_of(FILE | {"trials": 2}, default_name="rates")
    run_sweep(sweep, tmp_path / "out")
    (tmp_path / "out" / "trials.jsonl").unlink()
    write_recipe(recipe("general", crop=4), tmp_path / "out" / "cells" / "trial-1-s0")
    with pytest.raises(UserError, match="is the run of another recipe; remove it, or give another --out"):
        run_sweep(sweep, tmp_path / "out")


def test_the_same_recipe_is_trained_once(by_rule, tmp_path):
    begun, said = by_rule(near_a_third), []
    sweep = sweep_of(FILE | {"search": {"flip": [True, False]}}, default_name="flips")
    found = run_sweep(sweep, tmp_path / "out", tell=said.append)
    assert len(begun) == 2 and len(found.trials) == 12 and not found.importance
    assert sum("the same as trial" in line for line in said) == 10


def test_values_keep_their_range_and_the_recipe_as_it_is_its_digits(by_rule, tmp_path):
    begun = by_rule(near_a_third)
    search = {"learning_rate": {"low": 0.123456, "high": 0.123459}}
    sweep = sweep_of(FILE | {"search": search, "fields": {"learning_rate": 0.1234567}}, default_name="digits")
    found = run_sweep(sweep, tmp_path / "out")
    assert begun[0].learning_rate == 0.1234567
    assert all(0.123456 <= row.changes["learning_rate"] <= 0.123459 for row in found.trials)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serach": {}}, "unknown key 'serach'; did you mean 'search'"),
        ({"search": {}}, r"nothing to search: give a table \[search\] with at least one field"),
        ({"search": {"learning_rat": [0.1, 0.2]}}, "unknown recipe field 'learning_rat'; did you mean 'learning_rate'"),
        ({"search": {"seed": [1, 2]}}, "search: seed cannot be searched"),
        ({"search": {"validation": [0.1, 0.2]}}, "search: validation cannot be searched; it says"),
        ({"search": {"widths": {"low": 1, "high": 2}}}, "search: widths is no single number; give a list of values to try"),
        ({"search": {"crop": {"low": 1}}}, "search: crop is .*; give low and high, and log = true for steps by factors"),
        ({"search": {"crop": {"low": 1, "high": 2, "log": 1}}}, "give low and high, and log = true"),
        ({"search": {"crop": {"low": 3, "high": 10**20}}}, "search: crop goes from 3 to 1e.20"),
        ({"search": {"views": [1, 2]}}, "search: views cannot be searched; it says what is measured, or trials have no use"),
        ({"fields": {"name": "x"}}, "name is set by the sweep itself; leave it out of .fields."),
        ({"search": {"crop": {"low": 3, "high": 1}}}, "search: crop goes from 3 to 1; give a low that is below high"),
        ({"search": {"head_rate": {"low": 0, "high": 1, "log": True}}}, "give a low above 0 that is below high"),
        ({"search": {"crop": {"low": 0.5, "high": 3}}}, "crop is 0.5; give a whole number"),
        ({"search": {"learning_rate": {"low": "a", "high": 3}}}, "learning_rate is 'a'; give a number"),
        ({"search": {"crop": [1]}}, "search: crop is .1.; give a list of two values or more, or low and high"),
        ({"search": {"crop": 1}}, "search: crop is 1; give a list of two values or more"),
        ({"search": {"crop": [1, 1]}}, "search: crop has a value twice"),
        ({"search": {"optimizer": ["muon", "mun"]}}, "unknown optimizer 'mun'; did you mean 'muon'"),
        ({"trials": 0}, "trials is 0; give a whole number from 1 to 10,000"),
        ({"seeds": True}, "seeds is True; give a whole number from 1 to 10,000"),
        ({"metric": "f1"}, "metric is 'f1'; choose accuracy, balanced_accuracy, top5 or loss"),
        ({"name": "a/b"}, "name is 'a/b'; give one that a folder can have"),
        ({"fields": 3}, r"fields is not a table; begin it with \[fields\]"),
        ({"fields": {"seed": 3}}, "seed is set by the sweep itself; leave it out of .fields."),
        ({"fields": {"validation": 0}}, r"trains on all images \(validation 0\), so that nothing is left to judge trials by"),
        ({"recipe": "genral"}, "unknown recipe 'genral'"),
    ],
)  # fmt: skip
def test_what_a_sweep_file_may_not_say(changes, message):
    with pytest.raises(UserError, match=message):
        sweep_of(FILE | changes, default_name="rates")


def test_a_range_and_a_list_are_read(tmp_path):
    (tmp_path / "s.toml").write_text(
        'recipe = "general"\n[search]\ncrop = { low = 0, high = 2 }\nflip = [true, false]\n'
    )
    sweep = read_sweep(tmp_path / "s.toml")
    assert sweep.space == {"crop": Range(0, 2), "flip": (True, False)} and (sweep.trials, sweep.seeds) == (20, 5)
    assert sweep.name == "s" and sweep.dataset == "fashion-mini"
    other = read_sweep(tmp_path / "s.toml", trials=3, seeds=2)
    assert (other.trials, other.seeds) == (3, 2) and other.plan() == sweep.plan()
    (tmp_path / "s.toml").write_text("trials = 1\n")
    with pytest.raises(UserError, match=r"s.toml: nothing to search"):
        read_sweep(tmp_path / "s.toml")


def test_a_field_without_effect_is_not_searched():
    momentum = {"momentum": {"low": 0.1, "high": 0.9}}
    with pytest.raises(UserError, match="momentum has no effect without optimizer sgd or muon"):
        sweep_of(FILE | {"fields": {"optimizer": "adam"}, "search": momentum}, default_name="rates")
    both = momentum | {"optimizer": ["adam", "sgd"]}
    assert set(sweep_of(FILE | {"search": both}, default_name="rates").space) == {"momentum", "optimizer"}


def test_a_folder_that_leaves_nothing_to_judge_by_is_refused_before_anything_is_trained(tmp_path, by_rule):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 40 * number).save(tmp_path / "set" / name / f"{number}.png")
    sweep = sweep_of(FILE | {"dataset": str(tmp_path / "set"), "fields": {"validation": 0.0}}, default_name="rates")
    with pytest.raises(UserError, match="nothing is left to judge it by; give validation"):
        run_sweep(sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_values_without_effect_beside_others_are_the_baselines_and_tried_once(tmp_path, by_rule):
    search = {"cutmix": [0.0, 0.5], "mix_until": [0.6, 0.7]}
    begun = by_rule(lambda made: made.cutmix + made.mix_until)
    fields = {"cutmix": 0.5, "mix_until": 0.8}
    found = run_sweep(
        sweep_of(FILE | {"fields": fields, "search": search, "trials": 8}, default_name="rates"), tmp_path
    )
    assert {(made.cutmix, made.mix_until) for made in begun} <= {(0.0, 0.8), (0.5, 0.6), (0.5, 0.7)}
    assert len(begun) == len(set(begun)) and all(trial.value is not None for trial in found.trials)
    assert (found.recipe.cutmix, found.recipe.mix_until) == (0.5, 0.7)


def test_the_process_of_a_trial_takes_what_the_sweep_took(tmp_path, capsys):
    """Its recipe is written whole: what has no effect in it was set by nobody."""
    made = vary(recipe("general"), cutmix=0.0, mix_until=0.8, epochs=0.02, widths=(8, 8, 16))
    write_recipe(made, tmp_path)
    words = ["train", "fashion-mini", "--config", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]
    assert command_line([*words, "--no-report", "--threads", "1"]) == 0, capsys.readouterr().err
    assert Run.open(tmp_path / "run").recipe == made
    own = replace(made, name="mine")
    write_recipe(own, tmp_path)
    assert command_line([*words[:-1], str(tmp_path / "own"), "--no-report", "--threads", "1"]) == 0
    assert Run.open(tmp_path / "own").recipe == own


def test_without_optuna_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"a sweep needs optuna; install it with: pip install 'thumbnet\[tune\]'"):
        run_sweep(sweep_of(FILE, default_name="rates"), tmp_path / "out")


def test_the_command_searches_tries_the_best_on_fresh_seeds_and_goes_on(tmp_path):
    (tmp_path / "rates.toml").write_text(
        'trials = 2\nseeds = 1\nrecipe = "general"\n[fields]\nepochs = 1\nwidths = [8, 8, 16]\nbatch_size = 250\n'
        "[search]\nlearning_rate = [0.0001, 0.2]\n"
    )
    plan = thumbnet_command("sweep", "rates.toml", "--plan", cwd=tmp_path, **ONE_THREAD)
    assert "2 trials and 2 x 1 fresh seed: 4 runs, about " in plan.stdout, plan.stderr
    assert not (tmp_path / "sweeps").exists()
    result = thumbnet_command("sweep", "rates.toml", "--jobs", 2, "--threads", 1, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["trials"] == 2 and told["best"]["changes"]["learning_rate"] in (0.0001, 0.2)
    assert [group["name"] for group in told["fresh_seeds"]["groups"]] == ["baseline", "best trial"]
    again = thumbnet_command("sweep", "rates.toml", "--threads", 1, cwd=tmp_path)
    assert again.returncode == 0 and "2 trials, 2 made already" in again.stderr
    assert "optimistic: the best of many" in again.stdout
    folder = tmp_path / "sweeps" / "rates"
    assert (folder / "trials.png").is_file() and (folder / "best.toml").is_file()
    assert (folder / "fresh" / f"trial-{told['best']['trial']}" / "study.html").is_file()
    assert not list(tmp_path.rglob("test-openings.jsonl"))
    missing = thumbnet_command("sweep", "none.toml", cwd=tmp_path)
    assert missing.returncode == 2
    assert "there is no sweep file none.toml; give a TOML file with a table [search]" in missing.stderr
