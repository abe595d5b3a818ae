"""Recipes: the battery over the registry, the classic one to the letter, and the messages for what does not fit."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from thumbnet.cli.fitting import recipe_for
from thumbnet.data.batches import whole
from thumbnet.errors import UserError
from thumbnet.models.registry import create_model
from thumbnet.progress import Lines
from thumbnet.recipes import (
    DEFAULTS,
    RECIPES,
    Recipe,
    default_for,
    list_recipes,
    name_of_group,
    recipe,
    title_of,
    without_mirrors,
)
from thumbnet.recipes.fitting import fitted_to, for_classes, suited
from thumbnet.recipes.schedule import learning_rate, resolution, total_steps


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_hashable_complete_and_named_as_it_is_asked_for(name):
    made = recipe(name)
    assert made.name == name
    assert hash(made) == hash(recipe(name))
    assert Recipe(**dataclasses.asdict(made)) == made
    assert f"--recipe {name}" in RECIPES[name].__doc__ or name in ("general", *DEFAULTS.values())
    create_model(made.model, classes=10, widths=made.widths, depth=made.depth, dropout=made.dropout)


@pytest.mark.parametrize("name", list_recipes())
def test_the_learning_rate_stays_within_the_peak_and_ends_low(name):
    made = recipe(name)
    total = total_steps(made, steps := 40)
    rates = [learning_rate(made, *divmod(step, steps), steps) for step in range(total)]
    assert max(rates) == pytest.approx(made.learning_rate, rel=0.1)
    assert min(rates) >= 0
    assert rates[-1] < made.learning_rate / 20


def test_digits_are_not_mirrored_whatever_recipe_is_chosen_for_them():
    assert not recipe(default_for("mnist")).flip
    for name in ("general", "plain"):
        assert not recipe(name, **without_mirrors("mnist", {})).flip
        assert recipe(name, **without_mirrors("cifar10", {})).flip
    assert without_mirrors("mnist", {"flip": True}) == {"flip": True}  # typed


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
        ({"batch_size": 1}, "batch_size is 1; it must be 2 or more"),
        ({"batch_size": 2.5}, "batch_size is 2.5; give a whole number"),
        ({"batch_size": float("inf")}, "batch_size is inf; give a whole number"),
        ({"batch_size": float("nan")}, "batch_size is nan; give a whole number"),
        ({"batch_size": "ten"}, "batch_size is 'ten'; give a whole number"),
        ({"batch_size": True}, "batch_size is True; give a whole number"),
        ({"epochs": 0}, "epochs is 0; it must be 0.01 or more"),
        ({"epochs": float("inf")}, "epochs is inf; it must be finite"),
        ({"widths": (8, 0)}, "widths is 0; it must be 1 or more"),
        ({"resolution": (0.5, 17)}, "resolution is 17; it must be 0.25 or more and at most 16"),
        ({"model": "resnet18"}, "for model 'resnet18' take --recipe plain"),
        ({"resolution": ()}, "resolution has no parts; give at least one, as in 0.75 1"),
        ({"cutmix": 0.6, "mixup": 0.6}, "they sum to at most 1"),
        ({"micro_batch": 7}, "micro_batch 7 does not divide batch_size"),
        ({"views": 3}, "views is 3; choose one of 1, 2, 6"),
        ({"optimizer": "muon", "l2": 0.1}, "l2 0.1 is for adam and sgd; muon keeps every norm fixed"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": -1}, "learning_rate is -1; it must be 0 or more"),
        ({"label_smoothing": 1}, "label_smoothing is 1; it must be 0 or more and below 1"),
        ({"dropout": (0.1, 1.0)}, "dropout is 1; it must be 0 or more and below 1"),
        ({"dropout": 0.1}, "dropout is 0.1; give a list of numbers"),
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm'; did you mean 'adam'?"),
        ({"model": "resnet17"}, "unknown model 'resnet17'; did you mean 'resnet18'?"),
        ({"learning_rat": 1}, "unknown recipe field 'learning_rat'; did you mean 'learning_rate'?"),
        ({"flip": 1}, "flip is 1; give a value of type bool"),
        ({"weight_decay": 0.1, "optimizer": "sgd"}, "weight_decay 0.1 is for adamw; with sgd set l2 0.05"),
        ({"weight_decay": 0.1}, "weight_decay 0.1 is for adamw; muon keeps every norm fixed"),
        ({"beta1": 0.8}, "beta1 has no effect without optimizer adam or adamw"),
        ({"mix_until": 0.5}, "mix_until has no effect without cutmix or mixup"),
        ({"penalize": "stages"}, "penalize has no effect without l2 or weight_decay"),
        (
            {"penalize": "stages", "optimizer": "sgd", "l2": 1e-3},
            "penalize stages reaches no kernel of model 'speednet_slim', which has no stages; give penalize kernels",
        ),
        (
            {
                "flip": False,
                "stem_until": 0.5,
                "optimizer": "sgd",
                "model": "small_resnet",
                "widths": (),
                "dropout": (),
            },
            "stem_until has no effect without model speednet",
        ),
        ({"folds": 5, "fold": 1, "validation": 0.1}, "validation has no effect without folds 0"),
        ({"drop_after": (0.5,)}, "drop_after has 1 places and drop_factors 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_received_and_what_to_do(changes, message):
    with pytest.raises(UserError) as refused:
        recipe("general", **changes)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_model_has_widths_depth_and_dropout_of_its_own_where_they_were_not_typed_with_it():
    made = recipe("general", model="resnet18", optimizer="sgd", learning_rate=0.1)
    assert (made.widths, made.depth, made.label_smoothing) == ((), 0, recipe("general").label_smoothing)
    assert recipe("cifar10-96", model="small_resnet", optimizer="adam", learning_rate=0.1).depth == 0
    assert recipe("cifar100-classic", model="resnet18").dropout == ()
    assert recipe("cifar100-classic", model="resnet50_classic").dropout == recipe("cifar100-classic").dropout
    assert recipe("general", model="speednet").widths == recipe("general").widths  # which it takes
    typed = {"optimizer": "sgd", "learning_rate": 0.1}
    with pytest.raises(UserError, match="model 'resnet18' has widths and depth of its own; leave them out"):
        recipe("general", model="resnet18", widths=(8, 16, 32), **typed)
    with pytest.raises(UserError, match="dropout has 1 rates for model 'resnet50_classic', which takes 3"):
        recipe("general", model="resnet50_classic", dropout=(0.1,), **typed)
    with pytest.raises(UserError, match="give a value of type str"):
        recipe("general", model=["resnet18"])


def test_a_recipe_of_ones_own_or_of_another_version_is_shown_by_what_it_sets():
    mine = Recipe(name="mine", epochs=4, seed=3)
    assert title_of(mine) == "mine" and name_of_group(mine) == "mine, epochs 4"


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown recipe 'cifar10-clasic'; did you mean 'cifar10-classic'"):
        recipe("cifar10-clasic")


def test_a_recipe_cannot_be_changed_after_it_was_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe("general").epochs = 3


def test_the_resolutions_follow_each_other_in_equal_parts_of_the_run():
    made = recipe("general", epochs=1.5, resolution=(0.5, 0.75, 1.0))
    parts = [resolution(made, *divmod(step, 20), 20) for step in range(total_steps(made, 20))]
    assert parts == [0.5] * 10 + [0.75] * 10 + [1.0] * 10


def test_a_run_of_a_fraction_of_an_epoch_has_that_fraction_of_its_steps_and_one_at_least():
    assert total_steps(recipe("general", epochs=1.5), 100) == 150
    assert total_steps(recipe("general", epochs=0.01), 3) == 1


@pytest.mark.parametrize(
    ("dataset", "name"), [("cifar10", "cifar10-94"), ("cifar100", "cifar100-76"), ("x/y", "general")]
)
def test_every_data_set_has_a_default_recipe(dataset, name):
    assert default_for(dataset) == name


def test_few_images_get_smaller_batches_and_more_epochs_and_many_keep_the_recipe():
    made = recipe("general")
    assert fitted_to(made, 6_000) is made
    few = fitted_to(made, 90)
    assert few.batch_size == 9 and few.epochs == 30 and few.learning_rate == made.learning_rate
    assert few.epochs * (90 // few.batch_size) >= 300
    assert fitted_to(made, 30).batch_size == 8 and fitted_to(made, 5).batch_size == 5
    sgd = fitted_to(recipe("plain"), 320)
    assert sgd.batch_size == 32 and sgd.learning_rate == recipe("plain").learning_rate / 2


@pytest.mark.parametrize(("classes", "rate"), [(2, 0.33), (10, 0.33), (20, 0.93), (50, 3.7), (100, 10.0)])
def test_the_dense_layer_of_general_learns_faster_where_there_are_many_classes(classes, rate):
    assert for_classes(recipe("general"), classes) == recipe("general", head_rate=rate)


def images_of(count, classes, side=32):
    """What a recipe is fitted to."""
    split = whole(torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    return SimpleNamespace(train=split, classes=range(classes), image_size=(side, side))


def test_many_classes_are_told_and_a_rate_that_was_typed_is_kept(capsys):
    many = images_of(5_000, 100)
    fitted = recipe_for(recipe("general"), many, {}, Lines())
    assert fitted == recipe("general", head_rate=10.0) == suited(recipe("general"), many, {})
    assert capsys.readouterr().err == "note: 100 classes, many for general: head_rate 10 (not 0.33)\n"
    assert recipe_for(recipe("general"), many, {"head_rate": 2.0}, Lines()).head_rate == 2
    assert recipe_for(recipe("general"), images_of(5_000, 10), {}, Lines()) == recipe("general")
    for name in ("cifar100-76", "plain"):  # rates of its own; no such rate
        assert recipe_for(recipe(name), many, {}, Lines()) == recipe(name)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("side", "resolution"),
    [(32, (0.75, 1.0)), (22, (0.75, 1.0)), (20, (1.0,)), (16, (1.0,)), (10, (1.6,)), (8, (2.0,))],
)
def test_small_images_are_trained_on_whole_or_enlarged(side, resolution, capsys):
    data = images_of(5_000, 10, side)
    assert recipe_for(recipe("general"), data, {}, Lines()).resolution == resolution
    parts = " ".join(f"{part:g}" for part in resolution)
    told = f"note: images of {side} pixels, small for general: resolution {parts} (not 0.75 1)\n"
    assert capsys.readouterr().err == ("" if resolution == (0.75, 1.0) else told)
    assert suited(recipe("general"), data, {"resolution": (0.5,)}).resolution == (0.5,)
    assert suited(recipe("plain"), data, {}) == recipe("plain")  # a network that takes any size


def test_a_batch_that_was_typed_is_kept_and_the_epochs_are_reckoned_with_it():
    assert fitted_to(recipe("general"), 5_400, batch_size=1_000) == recipe("general")  # many images: nothing is fitted
    few = fitted_to(recipe("general"), 22, batch_size=8)
    assert few.batch_size == 8 and few.epochs == 150  # two steps each
    sgd = fitted_to(recipe("plain"), 22, batch_size=16)
    assert sgd.learning_rate == recipe("plain").learning_rate and sgd.epochs == 300


def test_another_model_gets_the_recipe_that_suits_any_model():
    assert default_for("cifar10", "resnet18") == "plain"
    assert default_for("cifar10", "speednet") == "cifar10-94"


def test_another_model_without_stages_has_its_penalty_on_every_kernel_and_older_runs_keep_theirs():
    assert recipe("cifar10-classic", model="speednet").penalize == "kernels"
    as_it_was = dataclasses.replace(
        recipe("cifar10-classic"), model="speednet"
    )  # of a run from before this was refused
    assert as_it_was.penalize == "stages"
