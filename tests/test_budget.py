"""Time budgets: what is read, what is chosen for a machine of known speed, and a real run under one."""

import json
import re
import time
import tomllib

import pytest

from conftest import thumbnet
from thumbnet import timing
from thumbnet.budget import FINISH, LADDER, RESERVE, expected_accuracy, parse_budget, recipe_for_budget
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import UserError
from thumbnet.recipes import recipe, vary


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2 min", 120), ("1h", 3600), ("10s", 10)]
)
def test_budgets_are_seconds_minutes_or_hours(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5x", "1:30", "nan", "9s"])
def test_other_budgets_are_refused_with_what_was_received(text):
    with pytest.raises(UserError, match="time-budget is"):
        parse_budget(text)


@pytest.fixture
def data():
    return load_dataset("fashion-mini")


@pytest.fixture
def machine_of(monkeypatch):
    """A machine that computes one image at full resolution in `per_image` seconds, with the widest network or the narrowest."""

    def make(per_image):
        def step_seconds(recipe, data, backend, *, steps=5):
            return recipe.batch_size * per_image

        monkeypatch.setattr(timing, "step_seconds", step_seconds)

    return make


@pytest.mark.parametrize("seconds", [20, 100, 1000])
def test_the_epochs_fill_the_budget_less_reserve_and_finish(data, machine_of, seconds, monkeypatch):
    machine_of(1e-3)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    chosen = recipe_for_budget(data, seconds)
    planned = timing.training_seconds(chosen, data, chosen.batch_size * 1e-3)
    assert planned == pytest.approx(seconds * (1 - RESERVE) - FINISH, abs=0.1)


@pytest.mark.parametrize("left", [0.4, 1.0, 5.9, 6.1, 6.6, 12.0, 100.3])
def test_no_plan_takes_longer_than_there_is_and_none_leaves_time_for_a_step(data, left):
    chosen = recipe("general", batch_size=100)
    step = 0.1  # 54 of them an epoch, 5.4 s, and a validation of 0.2 s after every epoch that was begun
    epochs = timing.epochs_in(left, chosen, data, step)
    planned = timing.training_seconds(vary(chosen, epochs=epochs), data, step) if epochs else 0
    assert planned <= left + 1e-9
    more = vary(chosen, epochs=epochs + 1 / 54)
    assert timing.training_seconds(more, data, step) > left


def test_more_time_climbs_to_wider_networks_and_sharper_images(data, machine_of):
    machine_of(1e-4)
    chosen = [recipe_for_budget(data, seconds) for seconds in (8, 12, 20, 50, 600)]
    assert [recipe.widths for recipe in chosen] == [rung.fields["widths"] for rung in LADDER]
    assert chosen[0].resolution[-1] < chosen[-1].resolution[-1] == 1


def test_resolutions_that_leave_too_few_pixels_are_left_out(data, machine_of):
    machine_of(1e-4)
    assert recipe_for_budget(data, 10).resolution == (0.75,)  # 14 of 28 pixels would be too few


def test_what_was_asked_for_is_kept(data, machine_of):
    machine_of(1e-4)
    chosen = recipe_for_budget(data, 30, changes={"batch_size": 50, "seed": 3, "crop": 4, "label_smoothing": 0.3})
    assert (chosen.batch_size, chosen.seed, chosen.crop, chosen.label_smoothing) == (50, 3, 4, 0.3)


def test_with_a_recipe_only_its_epochs_are_chosen(data, machine_of):
    machine_of(1e-4)
    chosen = recipe_for_budget(data, 30, recipe="cifar10-83")
    assert (chosen.name, chosen.widths) == ("cifar10-83", (32, 128, 256))
    assert chosen.epochs > 10


def test_a_budget_that_is_over_before_the_first_step_is_refused(data, machine_of):
    machine_of(1.0)
    with pytest.raises(UserError, match="give more time"):
        recipe_for_budget(data, 10, started=time.time() - 8)
    machine_of(0.1)  # some steps would fit, fewer than the shortest run has
    with pytest.raises(UserError, match="give more time"):
        recipe_for_budget(data, 26, recipe="general", changes={"batch_size": 2})


def test_the_expected_accuracy_lies_between_those_of_cheaper_and_dearer_records(monkeypatch):
    points = [{"training_flops": 1e12, "accuracy": 0.8}, {"training_flops": 1e14, "accuracy": 0.9}]
    monkeypatch.setattr(
        "thumbnet.results.recorded", lambda: [{"kind": "frontier", "dataset": "cifar10", "points": points}]
    )
    assert expected_accuracy(1e13, "cifar10") == pytest.approx(0.85)
    assert expected_accuracy(1e15, "cifar10") is None
    assert expected_accuracy(1e13, "cifar100") is None


def test_a_run_under_a_budget_ends_with_a_rate_near_zero_and_records_what_was_chosen(tmp_path):
    result = thumbnet("train", "fashion-mini", "--time-budget", "15s", "--out", "run", "--json", cwd=tmp_path)
    assert re.search(r"budget 15 s: the run ended after \d+\.\d s", result.stderr), result.stderr
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["validation_accuracy"] > 0.6  # on a slow or busy machine, too
    chosen = tomllib.loads((tmp_path / "run" / "changes.toml").read_text())
    assert chosen["epochs"] > 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["learning_rate"] < 0.1 * tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["learning_rate"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--time-budget", "soon"), "give seconds, minutes or hours"),
        (("--time-budget", "5s"), "give 10 s or more"),
        (("--time-budget", "1m", "--epochs", "3"), "leave out --epochs 3"),
        (("--time-budget", "1m", "--resume"), "leave out --time-budget"),
    ],
)
def test_budgets_that_cannot_be_kept_are_refused_in_one_line(tmp_path, words, message):
    result = thumbnet("train", "fashion-mini", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
