"""Recipes: the battery over the registry, the classic one to the letter, and the messages for what does not fit."""

import dataclasses

import pytest

from thumbnet.errors import UserError
from thumbnet.models.registry import create_model
from thumbnet.recipes import RECIPES, Recipe, list_recipes, recipe
from thumbnet.schedule import learning_rate


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_hashable_complete_and_named_as_it_is_asked_for(name):
    made = recipe(name)
    assert made.name == name
    assert hash(made) == hash(recipe(name))
    assert Recipe(**dataclasses.asdict(made)) == made
    assert f"--recipe {name}" in RECIPES[name].__doc__ or name == "general"
    create_model(made.model, classes=10, dropout=made.dropout)


@pytest.mark.parametrize("name", list_recipes())
def test_the_learning_rate_stays_within_the_peak_and_ends_low(name):
    made = recipe(name)
    rates = [learning_rate(made, epoch, step, 4) for epoch in range(made.epochs) for step in range(4)]
    assert max(rates) == pytest.approx(made.learning_rate, rel=0.1)
    assert min(rates) >= 0
    assert rates[-1] < made.learning_rate / 20


@pytest.mark.parametrize("field", dataclasses.fields(Recipe), ids=lambda field: field.name)
def test_every_field_says_what_it_means(field):
    assert len(field.metadata["help"]) > 10


def report_rate(epoch):
    """The report's schedule, from its description: by epoch index from 0."""
    if epoch > 180:
        return 5e-7
    if epoch > 160:
        return 1e-6
    if epoch > 120:
        return 1e-5
    return 1e-4 if epoch > 80 else 1e-3


@pytest.mark.parametrize("name", ["cifar10-classic", "cifar100-classic"])
def test_the_classic_learning_rate_is_the_reports_in_every_epoch(name):
    made = recipe(name)
    assert [learning_rate(made, epoch, 0, 1) for epoch in range(160)] == pytest.approx(
        [report_rate(epoch) for epoch in range(160)]
    )


def test_a_shorter_classic_run_scales_the_drops_with_it():
    made = recipe("cifar10-classic", epochs=16)
    rates = [learning_rate(made, epoch, 3, 4) for epoch in range(16)]
    assert rates == pytest.approx([1e-3] * 9 + [1e-4] * 4 + [1e-5] * 3)


def test_the_classic_recipe_is_the_reports():
    made = recipe("cifar10-classic")
    assert (made.batch_size, made.epochs, made.optimizer) == (64, 160, "adam")
    assert (made.beta1, made.beta2, made.epsilon) == (0.9, 0.999, 1e-7)
    assert (made.zoom, made.shift, made.flip, made.crop, made.cutout) == (0.2, 0.15, True, 0, 0)
    assert (made.l2, made.penalize, made.normalize) == (1e-3, "stages", "none")
    assert (made.validation, made.label_smoothing, made.dropout) == (0.2, 0.0, ())
    hundred = recipe("cifar100-classic")
    assert dataclasses.replace(hundred, name=made.name, dropout=()) == made
    assert hundred.dropout == (0.15, 0.2, 0.2)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_warmup_rises_from_zero_to_the_peak_and_falls_to_zero(schedule):
    made = recipe("general", schedule=schedule, warmup=0.25, epochs=4, learning_rate=0.8)
    rates = [learning_rate(made, epoch, step, 100) for epoch in range(4) for step in range(100)]
    assert rates[0] == 0
    assert rates[50] == pytest.approx(0.4)
    assert rates[100] == pytest.approx(0.8)
    assert rates[-1] < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"epochs": 1.5}, "epochs is 1.5; give a whole number"),
        ({"epochs": float("inf")}, "epochs is inf; give a whole number"),
        ({"epochs": float("nan")}, "epochs is nan; give a whole number"),
        ({"epochs": "ten"}, "epochs is 'ten'; give a whole number"),
        ({"epochs": True}, "epochs is True; give a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": -1}, "learning_rate is -1.0; it must be 0 or more"),
        ({"label_smoothing": 1}, "label_smoothing is 1.0; it must be 0 or more and below 1"),
        ({"dropout": (0.1, 1.0)}, "dropout is 1.0; it must be 0 or more and below 1"),
        ({"dropout": 0.1}, "dropout is 0.1; give a list of numbers"),
        ({"optimizer": "adamm"}, "optimizer is 'adamm'; choose one of adam, adamw, sgd"),
        ({"model": "resnet17"}, "unknown model 'resnet17'; did you mean 'resnet18'?"),
        ({"learning_rat": 1}, "unknown recipe field 'learning_rat'; did you mean 'learning_rate'?"),
        ({"flip": 1}, "flip is 1; give a value of type bool"),
        ({"weight_decay": 0.1}, "weight_decay 0.1 is for adamw; with sgd set l2 instead"),
        ({"drop_after": (0.5,)}, "drop_after has 1 places and drop_factors 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_received_and_what_to_do(changes, message):
    with pytest.raises(UserError) as refused:
        recipe("general", **changes)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown recipe 'cifar10-clasic'; did you mean 'cifar10-classic'"):
        recipe("cifar10-clasic")


def test_a_recipe_cannot_be_changed_after_it_was_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe("general").epochs = 3
