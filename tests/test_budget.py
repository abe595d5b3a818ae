"""Time budgets: what is read, what is chosen for a machine of known speed, and a real run under one."""

import json
import re
import time
import tomllib
from dataclasses import replace

import pytest

from conftest import thumbnet
from thumbnet.cli import train as cli
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import UserError
from thumbnet.machine import Machine
from thumbnet.measuring.budget import FINISH, LADDER, RESERVE, expected_accuracy, parse_budget, plan_within
from thumbnet.measuring.operations import training_flops
from thumbnet.progress import Reporter
from thumbnet.recipes import recipe, vary
from thumbnet.recipes.schedule import resolution, total_steps
from thumbnet.training import timing
from thumbnet.training.deadline import Deadline, most_steps, seconds_of


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
    """A machine that computes one image in `per_image` seconds, with the widest network or the narrowest."""

    def make(per_image, *, by_resolution=False):
        def step_seconds(recipe, data, backend, *, steps=5):
            return {part: recipe.batch_size * per_image * (part if by_resolution else 1) for part in recipe.resolution}

        monkeypatch.setattr(timing, "step_seconds", step_seconds)

    return make


@pytest.mark.parametrize("by_resolution", [False, True])
@pytest.mark.parametrize("seconds", [20, 100, 1000])
def test_the_epochs_fill_the_budget_less_reserve_and_finish(data, machine_of, seconds, by_resolution, monkeypatch):
    machine_of(1e-3, by_resolution=by_resolution)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    chosen, deadline = plan_within(data, seconds)
    planned = timing.training_seconds(chosen, data, deadline.seconds)
    assert planned == pytest.approx(seconds * (1 - RESERVE) - FINISH, abs=max(deadline.seconds.values()))


@pytest.mark.parametrize("done", [0, 5, 30, 54, 200])
@pytest.mark.parametrize("left", [1.0, 5.9, 6.1, 6.6, 12.0, 100.3])
def test_no_plan_takes_longer_than_there_is_and_none_leaves_time_for_a_step(left, done):
    chosen = recipe("general", batch_size=100, resolution=(0.5, 1.0))
    timed = (chosen, 54, {0.5: 0.05, 1.0: 0.1}, 2.0)  # 54 steps an epoch, and a validation that takes two of them
    total = most_steps(left, *timed, done=done)
    assert seconds_of(total, *timed, done=done) <= left < seconds_of(total + 1, *timed, done=done)


def test_a_plan_counts_every_step_at_its_resolution_and_every_validation():
    chosen = recipe("general", resolution=(0.5, 1.0), epochs=1.5)
    timed = (chosen, 10, {0.5: 1.0, 1.0: 3.0}, 2.0)
    # 15 steps, seven and a half at half the side; validations after the tenth and the fifteenth, both at full
    assert seconds_of(15, *timed) == 7.5 * 1 + 7.5 * 3 + 2 * (2 * 3)
    assert seconds_of(15, *timed, done=11) == 4 * 3 + 2 * 3


def ended(budget, speed, monkeypatch, *, steps=50, stall=(1e9, 0.0)):
    """When a planned run ends whose machine is `speed(t)` times as slow as when it was timed, and the recipe it ends with.

    `stall`: when the machine stands still, and for how many seconds.
    """
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    seconds, checks = {0.5: 0.03, 1.0: 0.1}, 1.5
    chosen = recipe("general", resolution=(0.5, 1.0))
    chosen = vary(chosen, epochs=most_steps(budget, chosen, steps, seconds, checks) / steps)
    deadline, done = Deadline(budget, seconds, checks), 0
    while done < total_steps(chosen, steps):
        chosen = deadline.replanned(chosen, done // steps, done % steps, steps)
        taken = seconds[resolution(chosen, done // steps, done % steps, steps)]
        done += 1
        if done % steps == 0 or done == total_steps(chosen, steps):
            taken *= 1 + checks
        before = clock[0]
        clock[0] += taken * speed(before)
        if before < stall[0] <= clock[0]:
            clock[0] += stall[1]
    return clock[0], chosen


SPEEDS = {
    "as timed": lambda t: 1.0,
    "twice as slow": lambda t: 2.0,
    "a third faster": lambda t: 0.67,
    "slower from the middle on": lambda t: 1.0 if t < 30 else 1.7,
    "faster from the middle on": lambda t: 1.7 if t < 30 else 1.0,
    "slow at the very end": lambda t: 1.0 if t < 54 else 2.0,
    "every ten seconds another": lambda t: (1.0, 2.0, 0.8)[int(t / 10) % 3],
}


@pytest.mark.parametrize("speed", SPEEDS.values(), ids=SPEEDS.keys())
def test_a_run_ends_on_time_however_the_machine_changes_its_speed(speed, monkeypatch):
    end, made = ended(60.0, speed, monkeypatch)
    assert 60 * 0.97 < end < 60 + 0.5
    assert made.epochs > 5


def test_a_machine_that_keeps_its_speed_makes_the_epochs_that_were_planned(monkeypatch):
    chosen = recipe("general", resolution=(0.5, 1.0))
    planned = most_steps(60.0, chosen, 50, {0.5: 0.03, 1.0: 0.1}, 1.5) / 50
    assert ended(60.0, SPEEDS["as timed"], monkeypatch)[1].epochs == pytest.approx(planned, abs=2 / 50)


@pytest.mark.parametrize("change", [0.5, 2.0])
def test_it_does_so_wherever_the_speed_changes(change, monkeypatch):
    for place in range(60):
        end, _ = ended(60.0, lambda t, place=place: 1.0 if t < place else change, monkeypatch)
        assert 60 * 0.97 < end < 60 + 0.5, place


@pytest.mark.parametrize("after", [0.3, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("seconds", [7.0, 20.0])
def test_a_stall_costs_its_own_time_and_not_the_run(after, seconds, monkeypatch):
    end, made = ended(60.0, SPEEDS["as timed"], monkeypatch, stall=(after, seconds))
    assert 60 * 0.97 < end < 60 + 0.5
    assert made.epochs > ended(60.0 - seconds, SPEEDS["as timed"], monkeypatch)[1].epochs * 0.75


def test_a_machine_that_sleeps_beyond_the_deadline_ends_with_the_step_that_slept(monkeypatch):
    end, made = ended(60.0, SPEEDS["as timed"], monkeypatch, stall=(20.0, 1e4))
    assert 1e4 + 20 <= end < 1e4 + 21
    assert made.epochs < ended(60.0, SPEEDS["as timed"], monkeypatch)[1].epochs * 0.7


def test_more_time_climbs_to_wider_networks_and_sharper_images(data, machine_of):
    machine_of(1e-4)
    chosen = [plan_within(data, seconds)[0] for seconds in (8, 12, 20, 50, 600)]
    assert [recipe.widths for recipe in chosen] == [rung.fields["widths"] for rung in LADDER]
    assert chosen[0].resolution[-1] < chosen[-1].resolution[-1] == 1


def test_resolutions_that_leave_too_few_pixels_are_left_out(data, machine_of):
    machine_of(1e-4)
    assert plan_within(data, 10)[0].resolution == (0.75,)  # 14 of 28 pixels would be too few


def test_what_was_asked_for_is_kept(data, machine_of):
    machine_of(1e-4)
    chosen, _ = plan_within(data, 30, changes={"batch_size": 50, "seed": 3, "crop": 4, "label_smoothing": 0.3})
    assert (chosen.batch_size, chosen.seed, chosen.crop, chosen.label_smoothing) == (50, 3, 4, 0.3)


def test_another_model_is_planned_with_widths_of_its_own(data, machine_of):
    machine_of(1e-4)
    typed = {"model": "resnet18", "optimizer": "sgd", "learning_rate": 0.1}
    chosen, _ = plan_within(data, 30, changes=typed)
    assert (chosen.model, chosen.widths, chosen.optimizer) == ("resnet18", (), "sgd")
    with pytest.raises(UserError, match="model 'resnet18' has widths and depth of its own"):
        plan_within(data, 30, changes=typed | {"widths": (8, 16, 32)})


def test_many_classes_get_a_dense_layer_that_learns_faster(data, machine_of):
    machine_of(1e-4)
    many = replace(data, classes=tuple(f"class {number}" for number in range(100)))
    assert plan_within(many, 60)[0].head_rate == 10 and plan_within(data, 60)[0].head_rate == 0.33
    assert plan_within(many, 60, changes={"head_rate": 1.0})[0].head_rate == 1
    named = plan_within(many, 60, recipe="general")[0]
    assert named.head_rate == 0.33


def test_with_a_recipe_only_its_epochs_are_chosen(data, machine_of):
    machine_of(1e-4)
    chosen, _ = plan_within(data, 30, recipe="cifar10-83")
    assert (chosen.name, chosen.widths) == ("cifar10-83", (32, 128, 256))
    assert chosen.epochs > 10


def test_a_budget_that_is_over_before_the_first_step_is_refused(data, machine_of):
    machine_of(1.0)
    with pytest.raises(UserError, match="give more time"):
        plan_within(data, 10, started=time.time() - 8)
    machine_of(0.1)  # some steps would fit, fewer than the shortest run has
    with pytest.raises(UserError, match="give more time"):
        plan_within(data, 26, recipe="general", changes={"batch_size": 2})


def test_the_expected_accuracy_lies_between_those_of_cheaper_and_dearer_records(monkeypatch):
    points = [{"training_flops": 1e12, "accuracy": 0.8}, {"training_flops": 1e14, "accuracy": 0.9}]
    monkeypatch.setattr(
        "thumbnet.measuring.results.recorded", lambda: [{"kind": "frontier", "dataset": "cifar10", "points": points}]
    )
    assert expected_accuracy(1e13, "cifar10") == pytest.approx(0.85)
    assert expected_accuracy(1e15, "cifar10") is None
    assert expected_accuracy(1e13, "cifar100") is None


def test_the_expected_accuracy_is_that_of_the_work_on_the_images_left_to_train_on(monkeypatch):
    whole, chosen, asked = load_dataset("fashion-mini", validation=0), recipe("general", epochs=2), []
    monkeypatch.setattr(cli, "plan_within", lambda *words, **options: (chosen, None))
    monkeypatch.setattr(cli, "expected_accuracy", lambda flops, name: asked.append((flops, name)))
    cli.recipe_in_time(60, whole, None, {}, Machine(), Reporter())
    held_out = whole.with_validation(**chosen.cut)
    assert (
        asked == [(training_flops(chosen, held_out), "fashion-mini")] != [(training_flops(chosen, whole), whole.name)]
    )


def test_a_run_under_a_budget_ends_with_a_rate_near_zero_and_records_what_was_chosen(tmp_path):
    result = thumbnet("train", "fashion-mini", "--time-budget", "12s", "--out", "run", "--json", cwd=tmp_path)
    assert re.search(r"budget 12 s: the run ended after \d+\.\d s", result.stderr), result.stderr
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["validation_accuracy"] > 0.6  # on a slow or busy machine, too
    chosen = tomllib.loads((tmp_path / "run" / "changes.toml").read_text())
    assert chosen["epochs"] > 0
    summary = json.loads(result.stdout)
    page = (tmp_path / "run" / "report.html").read_text()
    assert ("A time budget moved the epochs" in page) == (summary["epochs"] != summary["epochs_planned"])
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["learning_rate"] < 0.1 * tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["learning_rate"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--time-budget", "soon"), "give seconds, minutes or hours"),
        (("--time-budget", "5s"), "give 10 s or more"),
        (("--time-budget", "1m", "--epochs", "3"), "leave out --epochs 3"),
        (("--time-budget", "1m", "--resume"), "leave out --time-budget"),
        (("--time-budget", "1m", "--out", "taken"), "taken is taken; choose another --out"),
    ],
)
def test_budgets_that_cannot_be_kept_are_refused_in_one_line(tmp_path, words, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "something").touch()
    result = thumbnet("train", "fashion-mini", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
