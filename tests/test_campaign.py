"""Campaigns: what they record, that runs are fresh and count their look at the test set."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy import stats

from conftest import pictures, thumbnet
from test_record import record, row
from thumbnet.cli.main import run as command_line
from thumbnet.errors import Interrupted, UserError
from thumbnet.judging.comparison import compare
from thumbnet.judging.statistics import mean_interval
from thumbnet.machine import Machine
from thumbnet.measuring import campaign, measured_run
from thumbnet.measuring.campaign import Ceilings, command_of, dataset_of, effective_changes
from thumbnet.measuring.measured_run import WARM_UP_STEPS, warming_up
from thumbnet.measuring.record import OF_A_CAMPAIGN, record_to_add_to
from thumbnet.measuring.results import as_of_the_present_recipe, campaign_table
from thumbnet.recipes import recipe, vary
from thumbnet.report import write_run_report
from thumbnet.runs.run import Run


def test_bench_compares_with_what_was_recorded_before_it_wrote(monkeypatch, capsys):
    old, new = record([row(0, 0.83, 10.0), row(1, 0.84, 10.0)]), record([row(2, 0.845, 5.0), row(3, 0.845, 5.0)])
    shelf = [old]

    def measured(*_, **__):
        shelf[0] = new
        return new

    monkeypatch.setattr("thumbnet.measuring.results.recorded", lambda: list(shelf))
    monkeypatch.setattr("thumbnet.measuring.campaign.measured_campaign", measured)
    assert command_line(["bench", "cifar10-83", "--seeds", "2"]) == 0
    assert "+1.00 points and 0.50 x the train clock" in capsys.readouterr().out


@pytest.mark.parametrize("n", [2, 3, 10, 31])
def test_the_interval_of_a_mean_is_students(n):
    values = [((7 * i) % 13) / 13 for i in range(n)]
    low, high = mean_interval(values)
    expected = stats.t.interval(0.95, n - 1, statistics.fmean(values), stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=1e-3)


def test_recipes_know_their_data_set_by_name():
    assert [dataset_of(name) for name in ("cifar10-94", "cifar100-quick", "fashion-mnist-94", "general")] == [
        "cifar10", "cifar100", "fashion-mnist", "fashion-mini",
    ]  # fmt: skip


SMALL = (
    "bench", "general", "--seeds", "2", "--first-seed", "5", "--epochs", "1", "--threads", "1", "--widths", "8", "16", "16",
    "--json",
)  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Where two seeds were trained in processes of their own, and their record."""
    folder = tmp_path_factory.mktemp("fresh")
    result = thumbnet(*SMALL, "--runs", "here", "--out", "results", cwd=folder)
    assert result.returncode == 0, result.stderr
    [made] = json.loads(result.stdout)["campaigns"]
    return folder, made


def test_bench_trains_each_seed_in_a_fresh_process_on_all_images_and_counts_its_look_at_the_test_set(fresh):
    folder, made = fresh
    assert json.loads((folder / "results" / "general.json").read_text()) == made
    assert (
        made["seeds"] == [5, 6] and made["changes"] == {"epochs": 1, "widths": [8, 16, 16]} and made["validation"] == 0
    )
    assert [run["test_openings"] for run in made["runs"]] == [1, 1]
    assert all(run["cold_wall"] > run["train_clock"] > 0 for run in made["runs"])
    assert made["runs"][0]["images"] == 1_000
    assert made["training_flops"] > 0 and made["part_of_ceiling"] > 0
    assert len(made["ceilings_flops_per_second"]) >= 2  # before the first, and after the last
    assert abs(made["ceiling_flops_per_second"] - statistics.median(made["ceilings_flops_per_second"])) <= 1
    for seed in (5, 6):
        summary = json.loads((folder / "here" / f"general-s{seed}" / "summary.json").read_text())
        assert summary["train_images"] == 6_000 and summary["validation_accuracy"] is None


def test_what_the_machine_can_do_is_seen_once_a_minute_and_at_the_end(monkeypatch):
    clock, found = [1_000.0], iter([3.0, 2.0, 4.0, 9.0])
    monkeypatch.setattr("thumbnet.measuring.campaign.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("thumbnet.measuring.operations.convolution_ceiling", lambda machine: next(found))
    ceilings = Ceilings(Machine())
    for seconds in (0, 10, 49, 1, 59, 1):  # since the look before: 0, 10, 59, 60, 59, 60
        clock[0] += seconds
        ceilings.look()
    assert ceilings.seen == [3.0, 2.0, 4.0]
    ceilings.look(anyway=True)
    assert ceilings.seen == [3.0, 2.0, 4.0, 9.0]


def test_the_record_of_another_campaign_is_not_lost(fresh):
    folder, made = fresh
    others = (("jitter", ["--jitter", "0.1"]), ("split", ["--split", "validation"]), ("crop", ["--crop", "2"]))
    for key, words in others:
        refused = thumbnet(
            "bench", "fashion-mnist-94", *SMALL[1:], *words, "--runs", "more", "--out", "results", cwd=folder
        )
        said = f"results/general.json holds a campaign with other {key}, which would be lost; give another --out"
        assert refused.returncode == 2 and said in refused.stderr and not (folder / "more").exists()
    later = ["6" if word == "5" else word for word in SMALL]  # the first seed
    refused = thumbnet(*later, "--runs", "more", "--out", "results", cwd=folder)
    said = "has seed 5, which would be lost; keep it by --add, give another --out, or measure that seed too"
    assert refused.returncode == 2 and said in refused.stderr and not (folder / "more").exists()
    assert json.loads((folder / "results" / "general.json").read_text()) == made


def test_a_replaced_record_is_told(fresh, tmp_path):
    folder, _ = fresh
    shutil.copytree(folder / "results", tmp_path / "results")
    again = thumbnet(*SMALL, "--resume", "--runs", folder / "here", "--out", "results", cwd=tmp_path)
    assert again.returncode == 0 and "results/general.json is replaced; it had 2 seeds" in again.stderr


def test_seeds_of_a_later_sitting_are_added_to_a_record(fresh, tmp_path):
    folder, made = fresh
    shutil.copytree(folder / "results", tmp_path / "results")
    words = [{"2": "1", "5": "7"}.get(word, word) for word in SMALL]  # the seed 7 alone
    result = thumbnet(*words, "--out", "results", "--add", cwd=tmp_path)
    assert result.returncode == 0 and "results/general.json now has 3 seeds" in result.stderr, result.stderr
    [both] = json.loads(result.stdout)["campaigns"]
    assert both == json.loads((tmp_path / "results" / "general.json").read_text())
    assert both["seeds"] == [5, 6, 7] and both["n"] == 3 and both["runs"][:2] == made["runs"]
    assert both["accuracy"] == statistics.fmean(run["accuracy"] for run in both["runs"])
    last = both["runs"][-1]  # clock and rate are those of the last sitting
    assert both["train_clock"] == last["train_clock"]
    training = last["train_clock"] - last["evaluation_seconds"]
    assert both["flops_per_second"] == round(both["training_flops"] / training)
    assert both["command"] == made["command"]
    assert [" ".join(words[2:7]) for words in both["added"]] == ["general --seeds 1 --first-seed 7"]
    again = thumbnet(*words, "--out", "results", "--add", "--runs", "more", cwd=tmp_path)
    assert again.returncode == 2 and "has seed 7 already; add others by --first-seed 8" in again.stderr
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(("seconds", "measured"), [(5, 1), (19, 1), (20, 2), (35, 3), (1000, 4)])
def test_no_seed_is_begun_that_would_end_after_the_time_limit(tmp_path, monkeypatch, seconds, measured):
    clock, said = [100.0], []

    def ten_seconds(order):
        clock[0] += 10
        return row(order["changes"]["seed"], 0.8, 9.0) | {"views": 1}

    monkeypatch.setattr(campaign, "in_fresh_process", ten_seconds)
    monkeypatch.setattr(campaign, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    made = campaign.run_campaign(
        "general", "fashion-mini", range(7, 11), folder=tmp_path, time_limit=seconds, tell=said.append
    )
    assert made["seeds"] == list(range(7, 7 + measured))
    assert made["command"][3:7] == ["--seeds", str(measured), "--first-seed", "7"]
    left = {1: ["no time left for the other 3 seeds, from 8 on"], 2: ["no time left for the other 2 seeds, from 9 on"]}
    left |= {3: ["no time left for the other 1 seed, from 10 on"], 4: []}
    assert [line for line in said if "no time left" in line] == left[measured]


def test_seeds_that_were_kept_do_not_count_as_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr(
        campaign, "measured_before", lambda order: row(order["changes"]["seed"], 0.8, 9.0) | {"views": 1}
    )
    made = campaign.run_campaign("general", "fashion-mini", range(3), folder=tmp_path, time_limit=0, resume=True)
    assert made["n"] == 3


def test_bench_ends_by_its_time_limit_and_shortens_no_record(fresh, tmp_path):
    folder, _ = fresh
    words = [*SMALL[1:], "--time-limit", "1s"]
    refused = thumbnet("bench", *words, "--out", "results", "--runs", "limited", cwd=folder)
    assert refused.returncode == 2 and not (folder / "limited").exists()
    assert "--time-limit may leave seeds out that it has; keep it by --add, or give another --out" in refused.stderr
    result = thumbnet("bench", words[0], "fashion-mnist-94", *words[1:], "--dataset", "fashion-mini", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    [made] = json.loads(result.stdout)["campaigns"]
    assert made["recipe"] == "general" and made["seeds"] == [5]
    assert "no time left for the other 1 seed, from 6 on" in result.stderr
    assert "no time left for fashion-mnist-94" in result.stderr


def test_a_sitting_without_a_record_before_it_begins_one_and_needs_its_folder(tmp_path):
    assert record_to_add_to(tmp_path / "general.json", "fashion-mini", "test", [0], {}, Machine()) is None
    result = thumbnet("bench", "general", "--add", cwd=tmp_path)
    assert result.returncode == 2
    assert "--add adds seeds to a record, so it needs the --out that the record is in" in result.stderr


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "changes",
            {"epochs": 2},
            "holds a campaign with other epochs, to which nothing can be added; give another --out",
        ),
        ("dataset", "mnist", "holds a campaign with other dataset, to which nothing can be added"),
        ("processor", "abacus", "was measured with processor abacus, and this would be with "),
        ("threads", 77, "was measured with threads 77, and this would be with 1; give another --out"),
        ("runs", [{"seed": "five"}], "general.json is damaged in its runs: 'seed' is 'five'"),
        ("fields", [1], "general.json is damaged: 'fields' is '[1]'"),
        ("kernels", "others", "was measured with kernels others, and this would be with "),
        (
            "command",
            ["--one-process"],
            "was measured with --one-process, and this would be without; measure both alike",
        ),
    ],
)
def test_what_is_of_another_campaign_or_machine_is_not_added_to(fresh, tmp_path, key, value, said):
    _, made = fresh
    path = tmp_path / "general.json"
    path.write_text(json.dumps(made | {key: value} | ({"fields": {}} if key == "changes" else {})))
    with pytest.raises(UserError) as caught:
        record_to_add_to(path, "fashion-mini", "test", [9], made["changes"], Machine(threads=1))
    assert said in str(caught.value)


def test_a_flag_that_changes_nothing_makes_no_other_campaign():
    own = recipe("general")
    assert effective_changes("general", {"batch_size": own.batch_size, "crop": own.crop + 1}) == {"crop": own.crop + 1}


def test_with_another_model_its_own_widths_belong_to_the_changes_and_to_the_command_that_repeats_them():
    typed = {"model": "resnet18", "optimizer": "sgd", "learning_rate": 0.05}
    changes = effective_changes("general", typed)
    assert changes == {**typed, "widths": ()} and effective_changes("general", changes) == changes
    chosen = vary(recipe("general"), **changes)
    fields = {name: value for name, value in vars(chosen).items() if name not in OF_A_CAMPAIGN}
    kept = {"kind": "campaign", "recipe": "general", "epochs": chosen.epochs, "changes": changes, "fields": fields}
    again = as_of_the_present_recipe(json.loads(json.dumps(kept)))["changes"]
    assert again == json.loads(json.dumps(changes))  # so that seeds can be added
    words = command_of(chosen, "fashion-mini", "test", [0], changes, Machine(), one_process=False)
    assert " ".join(words[9:]) == "--model resnet18 --optimizer sgd --learning-rate 0.05"


def test_measured_runs_can_be_compared_and_reported_without_another_look_at_the_test_set(fresh):
    folder, made = fresh
    paths = [folder / "here" / f"general-s{seed}" for seed in (5, 6)]
    found = compare(paths, split="test")
    [group] = found.groups
    assert [member.value for member in group.members] == [run["accuracy_1_view"] for run in made["runs"]]
    assert [Run.open(path).test_openings for path in paths] == [1, 1]
    assert Run.open(paths[0]).predictions("test").logits.shape == (1_000, 10)
    page = write_run_report(Run.open(paths[0])).read_text()
    assert "was not measured on test images" not in page and f"{made['runs'][0]['accuracy_1_view']:.2%}" in page


def test_the_command_of_a_record_repeats_it():
    chosen = recipe("cifar10-83", alternate_flip=False, widths=(8, 16, 16))
    changes, machine = {"alternate_flip": False, "widths": (8, 16, 16)}, Machine(threads=1, precision="fp32")
    words = command_of(chosen, "cifar100", "validation", [3, 4], changes, machine, one_process=True)
    expected = "thumbnet bench cifar10-83 --seeds 2 --first-seed 3 --split validation --dataset cifar100 --one-process "
    assert " ".join(words) == expected + "--no-alternate-flip --widths 8 16 16 --threads 1 --precision fp32"
    assert command_of(chosen, "cifar10", "test", [0], {}, Machine(), one_process=False)[-2:] == ["--split", "test"]


@pytest.mark.parametrize("field", ["--validation 0.2", "--folds 5"])
def test_what_keeps_images_from_training_is_refused_where_all_are_trained_on(tmp_path, field):
    result = thumbnet("bench", "general", *field.split(), cwd=tmp_path)
    said = "holds images out, and on the test split all are trained on; use --split validation"
    assert result.returncode == 2 and said in result.stderr.splitlines()[-1]


def test_the_run_that_warms_up_is_short_whatever_the_recipe(tmp_path):
    order = {
        "recipe": "cifar10-classic",
        "changes": {"seed": 3},
        "dataset": "fashion-mini",
        "data_dir": None,
        "decoding": {},
        "out": "x",
    }
    for held_out in ({}, {"folds": 5, "fold": 1, "validation": 0.1}):
        asked = order | {"changes": order["changes"] | held_out}
        short = warming_up(asked | {"split": "test", "resume": True}, str(tmp_path))
        assert short["split"] == "validation" and short["resume"] is False and short["changes"]["seed"] != 3
    assert short["changes"]["epochs"] * (5_400 // 64) == pytest.approx(WARM_UP_STEPS)


def test_a_signal_while_a_seed_is_measured_in_this_process_keeps_it_and_ends_the_campaign(tmp_path, monkeypatch):
    measured = []

    def one_run(order, workshop):
        measured.append(order["split"])
        if order["split"] == "test":
            os.kill(os.getpid(), signal.SIGTERM)
        Path(order["out"]).mkdir(parents=True)
        return {"seed": 0, "accuracy": 0.5}

    monkeypatch.setattr(measured_run, "one_run", one_run)
    options = {"folder": tmp_path, "one_process": True, "changes": {"epochs": 1}}
    with pytest.raises(Interrupted, match="stopped by SIGTERM; the same command with --resume goes on"):
        campaign.run_campaign("general", "fashion-mini", [0, 1], **options)
    assert measured == ["validation", "test"] and (tmp_path / "general-s0" / "bench.json").is_file()


def test_a_signal_in_the_run_that_warms_up_names_no_folder_that_is_gone(tmp_path, monkeypatch):
    def stopped(order, workshop):
        raise Interrupted(
            f"stopped by SIGINT; continue with: thumbnet train fashion-mini --out {order['out']} --resume"
        )

    monkeypatch.setattr(measured_run, "one_run", stopped)
    told = "stopped in the run that warms up, which is not kept; the same command with --resume begins with it again"
    with pytest.raises(Interrupted, match=f"^{told}$"):
        campaign.run_campaign("general", "fashion-mini", [0], folder=tmp_path, one_process=True)


def test_a_stopped_campaign_goes_on_inside_its_run_and_counts_the_seconds_of_both_processes(tmp_path):
    words = (
        "bench", "general", "--seeds", "1", "--epochs", "5", "--widths", "8", "16", "16", "--threads", "1",
        "--split", "validation",
    )  # fmt: skip
    began = time.monotonic()
    command = [sys.executable, "-m", "thumbnet.cli.main", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "runs" / "bench" / "general-s0"
    while not (run / "metrics.jsonl").is_file() and process.poll() is None and time.monotonic() < began + 120:
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=60)
    stopped_after = time.monotonic() - began
    assert process.returncode == 75 and "the same command with --resume goes on" in said
    assert (run / "checkpoint").exists()

    again = thumbnet(*words, cwd=tmp_path)
    assert again.returncode == 2 and "is there already; if its campaign was this one, go on by --resume" in again.stderr
    other = thumbnet(*words, "--batch-size", "50", cwd=tmp_path)
    said = "is there already, and no run of this recipe with these changes; give another --runs"
    assert other.returncode == 2 and said in other.stderr
    result = thumbnet(*words, "--resume", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    [row] = json.loads(result.stdout)["campaigns"][0]["runs"]
    assert 0 < row["seconds_before"] < stopped_after and row["train_clock"] > row["seconds_before"]

    kept = thumbnet(*words, "--resume", "--json", cwd=tmp_path)
    assert json.loads(kept.stdout)["campaigns"][0]["runs"] == [row]
    assert "as measured before" in kept.stderr and "as measured before" not in result.stderr
    assert not (tmp_path / "runs" / "latest").exists()  # that is for what somebody trained to use
    other = thumbnet(*words, "--resume", "--no-flip", cwd=tmp_path)
    assert other.returncode == 2 and "was measured with other changes" in other.stderr
    other = thumbnet(*words[:-4], "--threads", "2", *words[-2:], "--resume", cwd=tmp_path)
    assert other.returncode == 2 and "was measured with other machine" in other.stderr
    kept_row = run / "bench.json"
    written = kept_row.read_text()
    kept_row.write_text(re.sub(r'"processor": "[^"]*"', '"processor": "another"', written))
    other = thumbnet(*words, "--resume", cwd=tmp_path)
    assert other.returncode == 2 and "was measured with processor another, and this machine has" in other.stderr
    kept_row.write_text(written)
    recipe_file = run / "recipe.toml"  # as where the named recipe changed between two versions
    recipe_file.write_text(recipe_file.read_text().replace("crop = 1", "crop = 2"))
    other = thumbnet(*words, "--resume", cwd=tmp_path)
    assert other.returncode == 2 and "was measured with other fields of the recipe" in other.stderr


def test_a_folder_that_is_taken_is_told_before_the_first_of_several_recipes_is_trained(tmp_path):
    (tmp_path / "runs" / "bench" / "mnist-99-s0").mkdir(parents=True)
    (tmp_path / "runs" / "bench" / "mnist-99-s0" / "notes.txt").touch()
    result = thumbnet("bench", "general", "mnist-99", "--seeds", "1", cwd=tmp_path)
    assert result.returncode == 2 and "mnist-99-s0 is there already, and no run of this recipe" in result.stderr
    assert not (tmp_path / "runs" / "bench" / "general-s0").exists()


def test_a_folder_without_test_images_is_told_before_anything_is_trained(here, capsys):
    pictures(here / "photos", count=20)
    words = ["bench", "general", "--dataset", "photos", "--epochs", "1", "--batch-size", "10", "--seeds", "1"]
    assert command_line(words) == 2
    said = "put its images into photos/test/<class>/, or measure on held-out images by --split validation"
    assert f"photos has no test split; {said}" in capsys.readouterr().err and not (here / "runs").exists()


def test_bench_decodes_pictures_as_it_is_told_and_keeps_that_in_the_record(here, capsys):
    for split in ("train", "test"):
        pictures(here / "photos" / split, count=20)
    (here / "photos" / "train" / "a" / "torn.png").write_bytes(b"\x89PNG torn")
    words = (
        "bench general --dataset photos --epochs 1 --batch-size 10 --widths 8 16 16 --seeds 1 --threads 1 --out records"
    )
    decoding = ["--image-size", "24", "--skip-broken"]
    assert command_line([*words.split(), *decoding]) == 0
    run, made = Run.open("runs/bench/general-s0"), json.loads((here / "records" / "general.json").read_text())
    assert (run.data["image_size"], run.data["broken"]) == ([24, 24], ["train/a/torn.png"])
    assert (made["image_size"], made["skip_broken"], made["n"]) == (24, True, 1)
    assert "--dataset photos --image-size 24 --skip-broken" in " ".join(made["command"])
    assert command_line([*words.split(), *decoding, "--resume"]) == 0
    capsys.readouterr()
    assert command_line([*words.split(), "--skip-broken", "--runs", "others"]) == 2
    assert "holds a campaign with other image_size, which would be lost" in capsys.readouterr().err
    assert command_line([*words.split()[:-2], "--skip-broken", "--resume"]) == 2
    assert "was measured with other image_size; give another --runs" in capsys.readouterr().err
    assert command_line(["bench", "general", "--image-size", "24"]) == 2
    assert "image_size is for images in files, and none are trained on here" in capsys.readouterr().err


def test_what_a_seed_is_refused_for_is_told_in_one_line(tmp_path):
    result = thumbnet("bench", "general", "--seeds", "1", "--crop", "40", cwd=tmp_path)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert "seed 0 failed (crop 40 is not smaller than the images of 28 x 28 pixels); --resume keeps the others" in last


def test_seeds_in_one_process_have_the_networks_of_fresh_ones(fresh, tmp_path):
    folder, other = fresh
    together = thumbnet(*SMALL, "--runs", "together", "--one-process", cwd=tmp_path)
    assert together.returncode == 0, together.stderr
    for seed in (5, 6):
        runs = (folder / "here", tmp_path / "together")
        weights = [(run / f"general-s{seed}" / "model.safetensors").read_bytes() for run in runs]
        assert weights[0] == weights[1]
    [made] = json.loads(together.stdout)["campaigns"]
    assert made["cold_wall"] is None and made["accuracy"] == other["accuracy"] and made["n"] == 2
    assert [run["test_openings"] for run in made["runs"]] == [1, 1]
    assert "| - |" in campaign_table([made])[-1]


def test_bench_on_validation_leaves_the_test_set_closed(tmp_path):
    words = (
        "bench", "general", "--seeds", "1", "--epochs", "1", "--widths", "8", "16", "16", "--threads", "1",
        "--split", "validation", "--validation", "0.2", "--json",
    )  # fmt: skip
    result = thumbnet(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    [made] = json.loads(result.stdout)["campaigns"]
    assert made["runs"][0]["test_openings"] == 0 and made["runs"][0]["images"] == 1_200
    assert not (tmp_path / "runs" / "bench" / "general-s0" / "test-openings.jsonl").exists()


def test_bench_on_validation_measures_on_the_fold_that_is_held_out_and_goes_on(tmp_path):
    words = (
        "bench", "general", "--seeds", "1", "--epochs", "0.2", "--widths", "8", "16", "16", "--threads", "1",
        "--split", "validation", "--folds", "4", "--fold", "1", "--json",
    )  # fmt: skip
    result = thumbnet(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    [made] = json.loads(result.stdout)["campaigns"]
    run = Run.open(tmp_path / "runs" / "bench" / "general-s0")
    assert made["runs"][0]["images"] == 1_500 and (run.recipe.folds, run.recipe.fold) == (4, 1)
    assert made["runs"][0]["accuracy_1_view"] == run.summary["validation_accuracy"]
    again = thumbnet(*words, "--resume", cwd=tmp_path)
    assert again.returncode == 0 and "as measured before" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a recipe to measure"),
        (("cifar10-833",), "unknown recipe 'cifar10-833'; did you mean 'cifar10-83'?"),
        (("general", "--seeds", "0"), "seeds is 0; give 1 or more"),
        (("general", "--seed", "3"), "--first-seed and --seeds in place of --seed"),
        (
            ("general", "--time-limit", "soon"),
            "time-limit is 'soon'; give seconds, minutes or hours, as in 90s, 5m or 1h",
        ),
    ],
)
def test_what_bench_cannot_do_is_said_in_one_line(tmp_path, words, message):
    result = thumbnet("bench", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
