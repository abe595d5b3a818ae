"""Comparing runs: groups, what may be claimed and what not, and the files the command writes."""

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from conftest import CPU, thumbnet
from thumbnet.errors import UserError
from thumbnet.judging.claims import p_in_words
from thumbnet.judging.comparison import compare, compare_groups
from thumbnet.judging.evaluation import score_predictions
from thumbnet.judging.pairs import paired_bootstrap
from thumbnet.plots.groups import ends_figure
from thumbnet.recipes import name_of_group, names_of_groups, recipe, title_of, vary
from thumbnet.runs.paths import find_runs
from thumbnet.runs.predictions import Predictions
from thumbnet.runs.run import Run
from thumbnet.training.loop import train
from thumbnet.words import told_apart

BASE = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Run:
    return train(BASE, tiny, tmp_path_factory.mktemp("compared") / "run", machine=CPU)


class Runs:
    """Copies of one real run whose summaries say what a test wants."""

    def __init__(self, run: Run, folder: Path):
        self.run, self.folder = run, folder

    def made(self, name: str, seed: int, accuracy: float | None, **changes) -> Run:
        path = self.folder / name
        shutil.copytree(self.run.path, path)
        recipe_ = vary(self.run.recipe, seed=seed, **changes)
        text = (path / "recipe.toml").read_text()
        for field, value in {"seed": seed, **changes}.items():
            shown = str(value).lower() if isinstance(value, bool) else value
            text = re.sub(rf"^{field} = .*$", f"{field} = {shown}", text, flags=re.M)
        (path / "recipe.toml").write_text(text)
        summary = {**self.run.summary, "run": str(path), "seed": seed, "validation_accuracy": accuracy}
        (path / "summary.json").write_text(json.dumps(summary))
        made = Run.open(path)
        assert made.recipe == recipe_
        return made

    def group(self, name: str, values: list[float], **changes) -> list[Run]:
        return [self.made(f"{name}-{seed}", seed, value, **changes) for seed, value in enumerate(values)]


@pytest.fixture
def runs(trained, tmp_path):
    return Runs(trained, tmp_path)


def test_a_clear_difference_is_claimed_with_interval_n_and_p(runs):
    a = runs.group("a", [0.80, 0.81, 0.79, 0.80, 0.80])
    b = runs.group("b", [0.84, 0.85, 0.85, 0.84, 0.86], epochs=2)
    found = compare([*a, *b])
    [pair] = found.pairs
    assert [(group.n, round(group.mean, 3)) for group in found.groups] == [(5, 0.8), (5, 0.848)]
    assert re.fullmatch(
        r'"general.*epochs 2.*" is better than "general.*" by 4\.80 points '
        r"\(95 % interval 3\.44 to 6\.16; n = 5 pairs of the same seed, p = 0\.00061\)\.",
        pair.sentence,
    ), pair.sentence


def test_noise_is_not_claimed(runs):
    a = runs.group("a", [0.80, 0.82, 0.78])
    b = runs.group("b", [0.81, 0.79, 0.82], epochs=2)
    [pair] = compare([*a, *b]).pairs
    assert pair.sentence.startswith("No difference can be claimed between")
    assert "n = 3 pairs of the same seed" in pair.sentence


def test_seeds_that_hold_out_the_same_images_are_compared_in_pairs_others_are_not(runs):
    luck = [0.03, -0.02, 0.01, -0.03, 0.02]  # of the images a seed holds out
    a = runs.group("a", [0.80 + part for part in luck])
    b = runs.group("b", [0.81 + part + i / 1000 for i, part in enumerate(luck)], epochs=2)
    [pair] = compare([*a, *b]).pairs
    assert pair.by_seed and pair.claimed
    expected = scipy.stats.ttest_rel([run.summary["validation_accuracy"] for run in b], [0.80 + part for part in luck])
    interval = expected.confidence_interval(0.95)
    found = pair.difference
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    others = [
        runs.made(f"c-{seed}", seed + 9, run.summary["validation_accuracy"], epochs=2) for seed, run in enumerate(b)
    ]
    [pair] = compare([*a, *others]).pairs
    assert not pair.by_seed and not pair.claimed and "n = 5 and 5" in pair.sentence
    cut = [
        runs.made(f"d-{seed}", seed, run.summary["validation_accuracy"], validation=0.2) for seed, run in enumerate(b)
    ]
    assert not compare([*a, *cut]).pairs[0].by_seed


def with_images_of_its_own(run: Run) -> Run:
    """The run as if its seed had held out other images than the other seeds."""
    predictions = run.predictions("validation")
    run.save_predictions(dataclasses.replace(predictions, rows=predictions.rows + run.recipe.seed))
    return run


def test_a_claim_that_does_not_reach_beyond_the_images_says_so(runs):
    a, b = runs.group("a", [0.80] * 10), runs.group("b", [0.81, 0.802] * 5, epochs=2)
    faint = [*a, *runs.group("c", [0.81, 0.798, 0.803, 0.81, 0.80] * 2, epochs=3)]
    for run in [*faint, *b]:
        with_images_of_its_own(run)
    ratio = a[0].data["validation"] / a[0].data["train"]
    differences = np.array([run.summary["validation_accuracy"] for run in faint[10:]]) - 0.80
    t = differences.mean() / (differences.std(ddof=1) * np.sqrt(1 / 10 + ratio))  # Nadeau & Bengio's, as they write it
    found = compare(faint)
    [pair] = found.pairs
    assert pair.claimed and pair.difference.p < 0.05
    assert pair.other_images.p == pytest.approx(2 * scipy.stats.t.sf(t, 9)) and pair.other_images.p > 0.05
    assert pair.other_images.low < 0 < pair.difference.low
    assert any("so many seeds do not show it" in warning for warning in found.warnings)
    assert "holds for these images" in found.warnings[0]
    clear = compare([*a, *b])
    assert clear.pairs[0].claimed and clear.pairs[0].other_images and not clear.warnings


def test_nothing_is_said_of_other_images_where_seeds_share_theirs(runs):
    [pair] = compare([*runs.group("a", [0.80, 0.81]), *runs.group("b", [0.84, 0.86], epochs=2)]).pairs
    assert pair.by_seed and pair.other_images is None


def test_no_axis_of_an_accuracy_goes_beyond_what_there_is_whatever_the_intervals_of_few_runs(runs):
    found = compare([*runs.group("a", [0.05, 0.99]), *runs.group("b", [0.97, 0.99], epochs=2)])
    low, high = ends_figure(found).axes[0].get_xlim()
    assert found.groups[0].interval95 == pytest.approx((0, 1))
    assert (low, high) == (0, 1)


def test_a_difference_that_shows_as_none_favours_nobody(runs):
    a, b = runs.group("a", [0.80, 0.81, 0.79]), runs.group("b", [0.81, 0.79, 0.80], epochs=2)
    [pair] = compare([*a, *b]).pairs
    assert "0.00 points (95 % interval" in pair.sentence and "favour" not in pair.sentence


def test_the_last_bits_are_no_spread(runs):
    a = runs.group("a", [0.8, 0.8 + 1e-15, 0.8])
    b = runs.group("b", [0.8 + 1e-13, 0.8, 0.8], epochs=2)
    found = compare([*a, *b])
    assert found.pairs[0].difference is None and not found.pairs[0].claimed
    assert all(group.sd == 0 and group.interval95 is None for group in found.groups)


def test_for_the_loss_less_is_better(runs):
    a, b = runs.group("a", [0.8] * 3), runs.group("b", [0.8] * 3, epochs=2)
    for group, base in ((a, 1.0), (b, 0.5)):
        for i, run in enumerate(group):
            (run.path / "summary.json").write_text(json.dumps(run.summary | {"validation_loss": base * (1 + 0.01 * i)}))
    [pair] = compare([*a, *b], metric="loss").pairs
    assert re.match(r'"general.*epochs 2.*" is better than', pair.sentence)
    assert "0.5050 nats" in pair.sentence


def test_one_seed_claims_nothing(runs):
    [pair] = compare([*runs.group("a", [0.8, 0.81]), *runs.group("b", [0.99], epochs=2)]).pairs
    assert pair.difference is None
    assert re.match(r'No difference can be claimed: n = 1 for "general.*epochs 2', pair.sentence)


def test_groups_without_any_spread_claim_nothing(runs):
    found = compare([*runs.group("a", [0.8, 0.8]), *runs.group("b", [0.9, 0.9], epochs=2)])
    assert "each seed shows the same difference" in found.pairs[0].sentence
    other = compare([*runs.group("c", [0.8, 0.8], validation=0.3), *runs.group("d", [0.9, 0.9], epochs=2)])
    assert "neither group shows any spread" in other.pairs[0].sentence
    assert all(group.interval95 is None for group in found.groups)
    assert "NaN" not in json.dumps(found.to_dict())


def test_three_groups_are_compared_in_pairs_with_adjusted_p(runs):
    values = {"a": [0.80, 0.81, 0.79], "b": [0.83, 0.82, 0.84], "c": [0.81, 0.83, 0.80]}
    found = compare([run for i, (name, v) in enumerate(values.items()) for run in runs.group(name, v, epochs=1 + i)])
    assert len(found.pairs) == 3
    assert all(pair.adjusted_p >= pair.difference.p for pair in found.pairs)
    assert any("Holm" in warning for warning in found.warnings)


def test_several_comparisons_image_by_image_are_adjusted_too(runs):
    made = [runs.made(name, 0, 0.8, epochs=1 + i) for i, name in enumerate("abcd")]
    for run, right in zip(made, (80, 88, 88, 88), strict=True):
        said(run, right, 100)
    found = compare_groups([(run.path.name, run) for run in made], baseline=True)
    alone = compare_groups([(run.path.name, run) for run in made[:2]])
    assert alone.pairs[0].significant and not alone.pairs[0].claimed  # of two networks, and not of their recipes
    assert alone.pairs[0].adjusted_p == alone.pairs[0].p == pytest.approx(2 * 0.5**8)
    assert all(pair.adjusted_p == pytest.approx(3 * pair.p) for pair in found.pairs)
    assert "p = 0.023" in found.pairs[0].sentence
    assert any("3 comparisons were made" in warning for warning in found.warnings)


def test_with_a_baseline_each_is_compared_with_the_first(runs):
    named = [
        (name, run)
        for i, name in enumerate("abc")
        for run in runs.group(name, [0.8 + i / 100, 0.81 + i / 50], epochs=1 + i)
    ]
    found = compare_groups(named, baseline=True)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("a", "c")]


def said(run: Run, right: int, images: int, *, split: str = "validation", rows: int = 0) -> None:
    """Predictions of which the first `right` of `images` are right."""
    classes = run.classes
    labels = torch.arange(images) % len(classes)
    answers = torch.where(torch.arange(images) < right, labels, (labels + 1) % len(classes))
    logits = 3 * torch.nn.functional.one_hot(answers, len(classes)) - torch.linspace(0, 1, len(classes))
    Predictions(split, 1, classes, run.data["fingerprint"], torch.arange(images) + rows, labels, logits).save(
        run.predictions_path(split, 1)
    )


def test_two_networks_on_the_same_images_are_compared_image_by_image(runs):
    a, b = runs.made("a", 0, 0.8), runs.made("b", 0, 0.9, epochs=2)
    said(a, 80, 100)
    said(b, 90, 100)
    [pair] = compare([a, b]).pairs
    assert (pair.images.only_first, pair.images.only_second, pair.images.images) == (0, 10, 100)
    assert pair.images.p == pytest.approx(2 * 0.5**10)
    assert pair.images.interval95[0] == pytest.approx(0.04, abs=0.011)
    assert pair.sentence.startswith("The network of")
    assert "not about their recipes" in pair.sentence


def test_other_images_are_not_compared_image_by_image(runs):
    a, b = runs.made("a", 0, 0.8), runs.made("b", 1, 0.9, epochs=2)
    said(a, 80, 100)
    said(b, 90, 100, rows=1)
    [pair] = compare([a, b]).pairs
    assert pair.images is None
    assert "n = 1" in pair.sentence and "(they were measured on different images)" in pair.sentence


def test_damaged_predictions_are_told(runs):
    a, b = runs.made("a", 0, 0.8), runs.made("b", 0, 0.9, epochs=2)
    said(a, 80, 100)
    b.predictions_path("validation", 1).write_bytes(b"no archive")
    assert "does not hold predictions" in compare([a, b]).pairs[0].sentence


def test_top5_of_two_networks_is_compared_image_by_image_and_loss_is_not(runs):
    a, b = runs.made("a", 0, 0.8), runs.made("b", 0, 0.9, epochs=2)
    for run, right in ((a, 80), (b, 95)):
        (run.path / "summary.json").write_text(json.dumps(run.summary | {"validation_top5": right / 100}))
        said(run, right, 100)
    [pair] = compare([a, b], metric="top5").pairs
    among = []
    for run in (a, b):
        kept = run.predictions("validation")
        ranks = np.argsort(-kept.logits.numpy(), axis=1)[:, :5]
        among.append((ranks == kept.labels.numpy()[:, None]).any(1))
    assert pair.images.only_second == (among[1] & ~among[0]).sum() > 0
    assert "image by image only accuracy and top-5 are compared" in compare([a, b], metric="loss").pairs[0].sentence


def test_recipes_are_compared_by_balanced_accuracy_of_older_runs_too(runs, trained):
    kept = score_predictions(trained.predictions("validation")).balanced_accuracy
    assert (
        trained.summary["validation_balanced_accuracy"] == trained.metrics[-1]["validation_balanced_accuracy"] == kept
    )
    a, b = runs.group("a", [0.9, 0.9, 0.9]), runs.group("b", [0.8, 0.8, 0.8], epochs=2)
    for run, value in zip((*a, *b), (0.70, 0.71, 0.69, 0.80, 0.82, 0.78), strict=True):
        (run.path / "summary.json").write_text(json.dumps(run.summary | {"validation_balanced_accuracy": value}))
    found = compare([*a, *b], metric="balanced_accuracy")
    assert [round(group.mean, 4) for group in found.groups] == [0.7, 0.8]  # by accuracy it is the other way round
    assert "is better than" in found.sentences[0] and found.sentences[0].startswith(
        '"general, widths 8 16 16, epochs 2'
    )
    older = {key: value for key, value in a[0].summary.items() if key != "validation_balanced_accuracy"}
    (a[0].path / "summary.json").write_text(json.dumps(older))
    found = compare([*a, *b], metric="balanced_accuracy")
    assert found.groups[0].members[0].value == pytest.approx(kept)
    pair = compare([a[0], b[0]], metric="balanced_accuracy").pairs[0]
    assert "image by image only accuracy and top-5 are compared" in pair.sentence


@pytest.mark.parametrize(("only_first", "only_second", "images"), [(5, 20, 400), (30, 50, 1000), (300, 500, 10_000)])
def test_the_bootstrap_is_that_of_drawing_images_again(only_first, only_second, images):
    differences = torch.cat((-torch.ones(only_first), torch.ones(only_second)))
    differences = torch.nn.functional.pad(differences, (0, images - len(differences)))
    random = torch.Generator().manual_seed(1)
    means = torch.stack(
        [differences[torch.randint(0, images, (images,), generator=random)].mean() for _ in range(4000)]
    )
    expected = torch.quantile(means, torch.tensor([0.025, 0.975])).tolist()
    width = expected[1] - expected[0]
    assert paired_bootstrap(only_first, only_second, images) == pytest.approx(
        expected, abs=max(0.06 * width, 2.5 / images)
    )


def test_networks_that_were_never_apart_may_still_differ():
    low, high = paired_bootstrap(0, 0, 24)
    assert low < -0.04 and high > 0.04
    assert max(map(abs, paired_bootstrap(0, 0, 100_000))) < 1e-4


def test_the_test_set_opened_twice_allows_no_claim(runs):
    a, b = runs.group("a", [0.8, 0.81]), runs.group("b", [0.9, 0.91], epochs=2)
    for i, run in enumerate([*a, *b]):
        run.record_evaluation({"split": "test", "views": 1, "accuracy": 0.8 + i / 100})
        (run.path / "test-openings.jsonl").write_text("{}\n" * (2 if i == 0 else 1))
    found = compare([*a, *b], split="test")
    [pair] = found.pairs
    assert pair.sentence.startswith("No difference can be claimed between")
    assert pair.sentence.endswith("the test set was opened more than once for a run.")
    [alone] = compare([a[0], b[0]], split="test").pairs
    assert alone.sentence.endswith("the test set was opened more than once for a run.")  # and not for want of seeds
    assert (
        pair.difference is None
        and not pair.claimed
        and json.loads(json.dumps(found.to_dict()))["pairs"][0]["p"] is None
    )
    assert "opened more than once" in found.warnings[0]


def test_the_folds_of_a_seed_count_as_one(runs):
    a = [runs.made(f"f{fold}", 0, 0.8 + fold / 10, folds=2, fold=fold) for fold in range(2)]
    b = [runs.made(f"g{fold}", 1, 0.7, folds=2, fold=fold) for fold in range(2)]
    [group] = compare([*a, *b]).groups
    assert (group.n, group.values) == (2, pytest.approx([0.85, 0.7]))


def test_the_networks_of_all_folds_are_compared_image_by_image(runs):
    a = [runs.made(f"f{fold}", 0, 0.8, folds=2, fold=fold) for fold in range(2)]
    b = [runs.made(f"g{fold}", 0, 0.9, folds=2, fold=fold, epochs=2) for fold in range(2)]
    for run, right, start in ((a[0], 80, 0), (b[0], 90, 0), (a[1], 70, 100), (b[1], 72, 100)):
        said(run, right, 100, rows=start)
    [pair] = compare([*reversed(a), *b]).pairs
    assert (pair.images.images, pair.images.folds, pair.images.only_second) == (200, 2, 12)
    assert pair.sentence.startswith("The networks of") and "about these 4 networks" in pair.sentence


def test_other_folds_of_a_seed_are_refused(runs):
    a = [runs.made(f"f{fold}", 0, 0.8, folds=3, fold=fold) for fold in range(3)]
    b = [runs.made(f"g{fold}", 1, 0.9, folds=3, fold=fold) for fold in range(2)]
    with pytest.raises(
        UserError, match=r"seed 1 of .*g0 has the folds 0 and 1 of 3, that of .*f0 0, 1 and 2; give the same"
    ):
        compare([*a, *b])


def test_runs_that_were_made_on_unlike_machines_are_told(runs):
    a, b = runs.group("a", [0.8, 0.81]), runs.group("b", [0.9, 0.91], epochs=2)
    about = json.loads((a[0].path / "environment.json").read_text())
    assert not any("environments" in warning for warning in compare([*a, *b]).warnings)
    (a[0].path / "environment.json").write_text(json.dumps(about | {"precision": "bf16"}))
    assert "the environments of the runs differ: precision bf16 and fp32" in compare([*a, *b]).warnings


def test_test_images_that_changed_between_two_evaluations_are_refused(runs):
    a, b = runs.group("a", [0.8]), runs.group("b", [0.9], epochs=2)
    for run, fingerprint in ((a[0], "1" * 16), (b[0], "2" * 16)):
        run.record_evaluation({"split": "test", "views": 1, "accuracy": 0.8, "fingerprint": fingerprint})
    with pytest.raises(UserError, match="were measured on different test images"):
        compare([*a, *b], split="test")


@pytest.mark.parametrize(
    ("p", "words"),
    [(0.00004, "< 0.0001"), (0.004, "= 0.004"), (0.0499, "= 0.0499"), (0.0501, "= 0.0501"), (0.3, "= 0.30")],
)
def test_p_is_shown_with_the_digits_that_decide(p, words):
    assert p_in_words(p) == words


def test_the_same_seed_twice_is_no_second_draw(runs):
    with pytest.raises(UserError, match="same recipe and seed 0"):
        compare([runs.made("a", 0, 0.8), runs.made("b", 0, 0.8)])


def test_a_group_is_named_by_its_recipe_and_changes():
    changed = recipe("cifar10-94", seed=7, epochs=2, flip=False)
    assert name_of_group(changed) == title_of(changed) == "cifar10-94, epochs 2, flip no"
    much = vary(changed, crop=3, jitter=0.0)
    assert name_of_group(vary(changed, epochs=1.7142857142857142)) == "cifar10-94, epochs 1.71429, flip no"
    assert title_of(much) == "cifar10-94 with 4 fields changed" and name_of_group(much).endswith("crop 3, jitter 0.0")


def test_recipes_that_begin_with_different_weights_are_groups_of_their_own(runs):
    first = vary(BASE, start_from="/x/first/s0", folds=2)
    names = names_of_groups([first, vary(first, seed=1, fold=1), vary(first, start_from="/y/first/s0"), BASE])
    assert names[0] == names[1] and "start_from /x/first/s0" in names[0]
    assert "start_from /y/first/s0" in names[2] and names[3] == name_of_group(BASE)
    made = [runs.made(f"{place}-{seed}", seed, 0.8 + seed / 100) for place in "xy" for seed in (0, 1)]
    for run in made:
        run.recipe = vary(run.recipe, start_from=f"/{run.path.name[0]}/first/s0")
    groups = compare(made).groups
    assert [[member.path for member in group.members] for group in groups] == [
        [str(run.path) for run in made[:2]], [str(run.path) for run in made[2:]],
    ]  # fmt: skip


def test_numbers_that_look_alike_are_shown_with_every_digit_where_they_tell_groups_apart():
    epochs = (1.7142857142857142, 1.7142857142857144)
    assert [name.split("epochs ")[1] for name in names_of_groups([vary(BASE, epochs=one) for one in epochs])] == [
        f"{one}, batch_size 32" for one in epochs
    ]


def test_names_of_a_legend_keep_what_tells_them_apart():
    names = ["general, widths 16 32 64, epochs 1", "general, widths 16 32 64, epochs 1, learning_rate 0.01"]
    assert told_apart(names) == ["general", "learning_rate 0.01"]
    assert told_apart(names[:1]) == names[:1]
    long = [f"{'x' * 60}{end}" for end in "ab"]
    assert len(set(told_apart(long))) == 2 and all(len(name) <= 44 for name in told_apart(long))


# ---------------------------------------------------------------- what cannot be compared


def test_runs_on_other_data_are_refused(runs):
    a, b = runs.made("a", 0, 0.8), runs.made("b", 1, 0.8)
    with_test_images_added = {**b.data, "fingerprint": "0" * 16}
    assert compare([a, Run(b.path, b.recipe, with_test_images_added)]).groups[0].n == 2
    with pytest.raises(UserError, match="only runs on the same data compare"):
        compare([a, Run(b.path, b.recipe, {**with_test_images_added, "fingerprint_of_training": "0" * 16})])
    del with_test_images_added["fingerprint_of_training"]  # as in runs of versions that did not note it
    with pytest.raises(UserError, match="only runs on the same data compare"):
        compare([a, Run(b.path, b.recipe, with_test_images_added)])
    with pytest.raises(UserError, match="different classes"):
        compare([a, Run(b.path, b.recipe, {**b.data, "classes": ["cat", "dog"]})])


def test_seeds_of_one_recipe_are_described_and_no_difference_is_spoken_of(runs):
    found = compare(runs.group("a", [0.80, 0.81, 0.82]))
    [sentence] = found.sentences
    assert "has a mean accuracy of 81.00% (95 % interval 78.52% to 83.48%, n = 3); there is no other recipe" in sentence
    assert found.pairs == ()


def test_unfinished_single_and_repeated_runs_are_refused(runs):
    a, b = runs.made("a", 0, 0.8), runs.made("b", 1, 0.8)
    with pytest.raises(UserError, match="two runs or more"):
        compare([a])
    with pytest.raises(UserError, match="named twice"):
        compare([a, a.path])
    (a.path.parent / "latest").symlink_to(a.path)
    with pytest.raises(UserError, match=r"a and .*latest are the same run; name each run once"):
        compare([a, a.path.parent / "latest"])
    (b.path / "summary.json").unlink()
    with pytest.raises(UserError, match="is unfinished; continue with"):
        compare([a, b])


def test_what_was_not_measured_says_what_to_do(runs):
    a, b = runs.made("a", 0, None), runs.made("b", 1, 0.8)
    with pytest.raises(UserError, match="no validation accuracy; try --split test"):
        compare([a, b])
    with pytest.raises(UserError, match="was not measured on its test images; run: thumbnet evaluate"):
        compare([a, b], split="test")


def test_what_is_unfinished_or_hidden_in_a_folder_is_left_out(runs, tmp_path):
    half = runs.group("a", [0.8, 0.9])[0]
    (half.path / "summary.json").unlink()
    shutil.copytree(runs.run.path, tmp_path / ".doctor" / "fold-0")
    told = []
    assert [run.path.name for run in find_runs([tmp_path], told.append)] == ["a-1"]
    assert told == [f"note: left out as unfinished: {half.path}"]


def test_a_folder_stands_for_the_runs_below_it(runs, tmp_path):
    runs.group("a", [0.8, 0.9])
    assert [run.path.name for run in find_runs([tmp_path])] == ["a-0", "a-1"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no finished run"):
        find_runs([tmp_path / "empty"])
    told: list[str] = []
    (tmp_path / "a-0.log").write_text("said\n")
    named = [tmp_path / "a-0.log", tmp_path / "a-0", tmp_path / "a-1"]  # as a-* names them
    assert [run.path.name for run in find_runs(named, told.append)] == ["a-0", "a-1"]
    assert told == [f"note: left out as no folders: {tmp_path / 'a-0.log'}"]
    with pytest.raises(UserError, match=r"there is no run folder .*a-0\.log"):
        find_runs(named[:1])


# ---------------------------------------------------------------- the command


def test_the_command_prints_a_table_and_writes_csv_plot_and_page(runs, tmp_path):
    runs.group("a", [0.80, 0.81, 0.79])
    runs.group("b", [0.84, 0.85, 0.86], epochs=2)
    result = thumbnet("compare", ".", "--csv", "out.csv", "--plot", "out.png", "--report", "out.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "is better than" in result.stdout
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) == 6
    assert {float(row["accuracy"]) for row in rows} == {0.80, 0.81, 0.79, 0.84, 0.85, 0.86}
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "is better than" in (tmp_path / "out.html").read_text()


def test_json_has_groups_and_pairs_and_nothing_else_is_printed(runs, tmp_path):
    runs.group("a", [0.80, 0.81])
    runs.group("b", [0.84, 0.86], epochs=2)
    found = json.loads(thumbnet("compare", ".", "--json", cwd=tmp_path).stdout)
    assert [group["n"] for group in found["groups"]] == [2, 2]
    assert set(found["pairs"][0]) >= {"first", "second", "difference", "adjusted_p", "sentence"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "two runs or more"),
        (["compare", "nowhere"], "there is no run folder nowhere"),
        (["compare", ".", "--plot", "x.txt"], "--plot x.txt: give a name that ends in .png, .svg or .pdf"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, message, tmp_path):
    result = thumbnet(*words, cwd=tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert message in result.stderr


def test_results_are_frozen(runs):
    found = compare([*runs.group("a", [0.8, 0.81]), *runs.group("b", [0.9, 0.91], epochs=2)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.metric = "loss"
