"""What is recorded of a campaign, how sittings are joined, and how a record is told."""

import json

import pytest

from thumbnet.measuring.record import joined, summary_of_campaign
from thumbnet.measuring.results import as_of_the_present_recipe, campaign_table, compared_with_published, in_words
from thumbnet.recipes import recipe

ENVIRONMENT = {
    "processor": "a processor", "gpu": None, "threads": 2, "precision": "fp32",
    "thumbnet": "1", "commit": None, "python": "3", "torch": "2", "numpy": "2",
}  # fmt: skip


def row(seed, accuracy, clock):
    """What one run gives back."""
    return {
        "seed": seed, "accuracy": accuracy, "accuracy_1_view": accuracy - 0.01, "top5": 0.99, "train_clock": clock,
        "cold_wall": clock + 3, "images_per_second": 1000.0, "peak_memory_mb": 900 + seed, "environment": ENVIRONMENT,
    }  # fmt: skip


def record(rows, **changes):
    made = summary_of_campaign(recipe("cifar10-83", **changes), "cifar10", "test", rows, changes)
    return made | {"part_of_ceiling": 0.5}


def test_a_record_holds_every_seed_and_their_mean_spread_and_median_clock():
    made = record([row(0, 0.83, 9.0), row(1, 0.85, 30.0), row(2, 0.84, 10.0)])
    assert made["n"] == 3 and made["seeds"] == [0, 1, 2] and len(made["runs"]) == 3
    assert made["accuracy"] == pytest.approx(0.84)
    assert made["accuracy_sd"] == pytest.approx(0.01)
    assert made["accuracy_1_view"] == pytest.approx(0.83)
    assert (made["train_clock"], made["train_clock_range"], made["cold_wall"]) == (10.0, [9.0, 30.0], 13.0)
    assert made["peak_memory_mb"] == 902
    json.dumps(made, allow_nan=False)


def test_a_record_of_a_gpu_tells_the_memory_there_and_an_older_one_none():
    made = record([row(0, 0.83, 9.0) | {"peak_gpu_memory_mb": 1_500}, row(1, 0.83, 9.0)])
    assert made["peak_gpu_memory_mb"] == 1_500
    assert "| 0.9 GB, 1.5 on the GPU |" in campaign_table([made])[-1]
    older = record([row(0, 0.83, 9.0)])
    assert older["peak_gpu_memory_mb"] is None and "| 0.9 GB |" in campaign_table([older])[-1]


def test_one_seed_has_no_spread_and_no_interval():
    made = record([row(0, 0.83, 9.0)])
    assert made["accuracy_sd"] is None and made["accuracy_interval95"] is None
    assert "% test accuracy (n = 1)" in in_words(made)
    assert "% test accuracy on fashion-mini (n = 1)" in in_words(made | {"dataset": "fashion-mini"})
    assert "% test accuracy on cifar10 (n = 1)" in in_words(made | {"recipe": "cifar100-76"})
    assert "| 83.00% |  |" in campaign_table([made])[-1]


def test_a_new_record_is_told_as_a_ratio_to_the_published_one():
    old, new = record([row(0, 0.83, 10.0), row(1, 0.84, 10.0)]), record([row(2, 0.845, 5.0), row(3, 0.845, 5.0)])
    assert compared_with_published(new, [old]) == [
        "cifar10-83: +1.00 points and 0.50 x the train clock of the published record (83.50% in 10.0 s on a processor)"
    ]
    assert compared_with_published(record([row(0, 0.8, 5.0)], epochs=1), [old]) == []  # another recipe


def test_versions_of_every_sitting_are_told_once():
    sittings = [
        record([row(seed, 0.83, 9.0) | {"environment": {**ENVIRONMENT, "torch": torch}}]) | {"command": [torch]}
        for seed, torch in enumerate("2322")
    ]
    whole = sittings[0]
    for later in sittings[1:]:
        whole = joined(whole, later)
    assert whole["seeds"] == [0, 1, 2, 3] and whole["versions"]["torch"] == "2"
    assert [one["torch"] for one in whole["other_versions"]] == ["3"]
    assert (whole["command"], whole["added"]) == (["2"], [["3"], ["2"], ["2"]])


def test_accuracies_are_of_all_sittings_and_clocks_of_the_last():
    first, last = record([row(0, 0.83, 30.0), row(1, 0.83, 30.0)]), record([row(2, 0.86, 9.0), row(3, 0.86, 10.0)])
    both = joined(first | {"command": ["1"]}, last | {"command": ["2"]})
    assert both["accuracy"] == pytest.approx(0.845) and both["n"] == 4 and both["accuracy_sd"] > 0.01
    assert (both["train_clock"], both["train_clock_range"], both["cold_wall"]) == (9.5, [9.0, 10.0], 12.5)
    assert [run["train_clock"] for run in both["runs"]] == [30.0, 30.0, 9.0, 10.0]


def test_seeds_that_later_versions_added_are_told():
    rows = [
        row(seed, 0.83, 9.0) | {"environment": {**ENVIRONMENT, "torch": torch}} for seed, torch in enumerate("2232")
    ]
    made = record(rows)
    assert made["versions"]["torch"] == "2"
    assert [one["torch"] for one in made["other_versions"]] == ["3"]


def test_a_record_is_told_by_what_differs_from_the_recipe_as_it_is_now():
    record = {
        "kind": "campaign",
        "recipe": "cifar10-94-gpu",
        "epochs": 10,
        "changes": {"epochs": 10, "resolution": [0.5, 1.0]},
    }
    assert as_of_the_present_recipe(record)["changes"] == {"resolution": [0.5, 1.0]}
    assert as_of_the_present_recipe({**record, "recipe": "forgotten"})["changes"] == record["changes"]
    older = {**record, "epochs": 9, "changes": {}}  # before campaigns recorded all fields
    assert as_of_the_present_recipe(older)["changes"] == {"epochs": 9}
    fields = json.loads(json.dumps(vars(recipe("cifar10-94-gpu", learning_rate=0.1))))
    moved = {**record, "changes": {"crop": 4}, "fields": fields | {"crop": 4}}
    assert as_of_the_present_recipe(moved)["changes"] == {"crop": 4, "learning_rate": 0.1}


def test_a_record_from_before_there_were_ensembles_is_of_one_network():
    present = recipe("cifar100-80")
    record = {"kind": "campaign", "recipe": "cifar100-80", "epochs": present.epochs, "changes": {}}
    assert present.members == 2 and as_of_the_present_recipe(record)["changes"] == {"members": 1}
    fields = json.loads(json.dumps(vars(present)))
    assert as_of_the_present_recipe(record | {"fields": fields})["changes"] == {}


def test_a_campaign_records_every_field_of_its_recipe():
    varied = recipe("general", crop=3)
    record = summary_of_campaign(varied, "fashion-mini", "test", [row(0, 0.9, 10.0)], {"crop": 3})
    assert record["fields"]["crop"] == 3 and record["fields"]["learning_rate"] == varied.learning_rate
    assert {"name", "seed", "validation"}.isdisjoint(record["fields"])
