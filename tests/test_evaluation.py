"""Evaluation: exact counts for any batch size, scores against brute force, and the lock on the test images."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import CPU, pictures, thumbnet
from thumbnet.backend import prepare
from thumbnet.data.batches import whole
from thumbnet.data.datasets import assemble, load_dataset
from thumbnet.data.embedded import read_fashion_mini
from thumbnet.data.images import decode_image
from thumbnet.data.pack import Pack
from thumbnet.errors import UserError
from thumbnet.judging import evaluation
from thumbnet.judging.evaluation import average_over_views, evaluate, predict_logits, score
from thumbnet.judging.groups import evaluation_of
from thumbnet.judging.robustness import evaluate_robustness
from thumbnet.judging.statistics import wilson_interval
from thumbnet.machine import Machine
from thumbnet.recipes import recipe, vary
from thumbnet.runs.run import Run
from thumbnet.shipping.loading import load
from thumbnet.training.loop import train

CLASSES = tuple("abcdefgh")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    made = recipe("general", widths=(16, 16, 32), epochs=2, batch_size=32)
    return train(made, tiny, tmp_path_factory.mktemp("evaluated") / "run", machine=CPU)


class Reads(torch.nn.Module):
    """Logits that are the image's own pixels, so that each row can be recognised."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        return images.flatten(1)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 32, 66, 67, 68, 1000])
def test_every_image_is_measured_exactly_once_whatever_the_batch_size(batch_size, monkeypatch):
    monkeypatch.setattr(evaluation, "PIXELS_AT_ONCE", 4 * batch_size)
    images = torch.arange(67 * 4, dtype=torch.uint8).view(67, 1, 2, 2)
    model = Reads()
    logits = predict_logits(model, whole(images, torch.zeros(67, dtype=torch.int64)), prepare(CPU))
    torch.testing.assert_close(logits * 255, images.flatten(1).float())
    assert sum(model.seen) == 67


@pytest.mark.parametrize(
    ("height", "width", "pixels", "expected"),
    [
        (32, 32, None, 500),
        (16, 64, None, 500),
        (28, 28, None, 653),
        (1_000, 1_000, None, 1),
        (32, 32, 1_000 * 32**2, 1_000),
    ],
)
def test_a_batch_has_so_many_pixels_and_one_image_at_least(height, width, pixels, expected):
    split = whole(torch.zeros(2, 1, height, width, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    assert evaluation.batch_size(split, prepare(CPU), pixels) == expected


@pytest.mark.parametrize("count", [1, 2, 5, 67])
def test_scores_equal_those_counted_one_by_one(count):
    random = torch.Generator().manual_seed(count)
    logits = torch.randn(count, 8, generator=random)
    labels = torch.randint(0, 8, (count,), generator=random)

    scores = score(logits, labels, CLASSES, split="validation")

    hits = top5 = 0
    loss = 0.0
    confusion = [[0] * 8 for _ in range(8)]
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        ranked = sorted(range(8), key=lambda k: -row[k])
        hits += ranked[0] == label
        top5 += label in ranked[:5]
        loss += math.log(sum(math.exp(value) for value in row)) - row[label]
        confusion[label][ranked[0]] += 1
    assert scores.images == count
    assert scores.accuracy == pytest.approx(hits / count)
    assert scores.top5 == pytest.approx(top5 / count)
    assert scores.loss == pytest.approx(loss / count, rel=1e-6)
    assert [list(row) for row in scores.confusion] == confusion
    assert list(scores.support) == [sum(row) for row in confusion]
    for label in range(8):
        images = sum(confusion[label])
        if images == 0:
            assert scores.per_class[label] is None
        else:
            assert scores.per_class[label] == pytest.approx(confusion[label][label] / images)


def test_precision_recall_f1_and_brier_are_scikit_learns():
    from sklearn.metrics import brier_score_loss, precision_recall_fscore_support

    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 8, (300,), generator=random)
    logits = torch.randn(300, 8, generator=random) + 2 * torch.nn.functional.one_hot(labels, 8)
    scores = score(logits, labels, CLASSES, split="test")
    theirs = precision_recall_fscore_support(labels, logits.argmax(1), labels=range(8))
    for ours, expected in zip((scores.precision, scores.per_class, scores.f1, scores.support), theirs, strict=True):
        assert list(ours) == pytest.approx(expected.tolist())
    assert scores.macro_f1 == pytest.approx(theirs[2].mean())
    brier = brier_score_loss(labels, logits.double().softmax(1).numpy(), labels=list(range(8)), scale_by_half=False)
    assert scores.brier == pytest.approx(brier)


def test_balanced_accuracy_counts_classes_alike_and_is_told_with_macro_f1():
    labels = torch.tensor([0] * 8 + [1] * 2)
    predicted = torch.tensor([0] * 8 + [0, 1])
    scores = score(torch.nn.functional.one_hot(predicted, 3).float(), labels, ("a", "b", "c"), split="test")
    assert scores.accuracy == 0.9
    assert scores.balanced_accuracy == 0.75  # the mean of 8 / 8 and 1 / 2; c has no images
    assert scores.macro_f1 == pytest.approx((16 / 17 + 2 / 3) / 2)
    told = scores.to_dict()
    assert (told["balanced_accuracy"], told["macro_f1"]) == (0.75, scores.macro_f1)


def test_what_a_class_has_no_images_for_is_none_and_never_nan():
    logits = torch.tensor([[3.0, 0, 0], [3, 0, 0], [0, 0, 3]])
    scores = score(logits, torch.tensor([0, 0, 0]), ("a", "b", "c"), split="test")
    assert scores.per_class == (2 / 3, None, None)
    assert scores.precision == (1, None, 0)
    assert scores.f1 == (pytest.approx(0.8), None, 0)
    assert scores.per_class_interval95[1] is None
    assert "NaN" not in json.dumps(scores.to_dict())


def test_the_most_confused_come_first():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    logits = torch.nn.functional.one_hot(torch.tensor([1, 1, 0, 0, 1, 2]), 3).float()
    scores = score(logits, labels, ("a", "b", "c"), split="test")
    assert scores.most_confused() == [("a", "b", 2, pytest.approx(2 / 3)), ("b", "a", 1, 0.5)]


def test_predictions_are_kept_and_give_the_scores_again(run, tiny):
    scores = evaluate(run, machine=CPU, data=tiny)
    again = evaluation.score_predictions(run.predictions("validation"), temperature=run.temperature)
    assert again == scores


def test_training_fits_a_temperature_that_lowers_the_loss(run):
    kept = json.loads((run.path / "calibration.json").read_text())
    assert kept["temperature"] == run.temperature != 1
    assert kept["loss_after"] <= kept["loss"]
    assert kept["images"] == run.summary["validation_images"]


def test_a_run_from_before_there_were_temperatures_gets_one_when_it_is_evaluated(run, tiny, tmp_path):
    shutil.copytree(run.path, tmp_path / "old")
    (tmp_path / "old" / "calibration.json").unlink()
    shutil.rmtree(tmp_path / "old" / "predictions")
    old = Run.open(tmp_path / "old")
    assert old.temperature == 1
    with pytest.raises(
        UserError, match="has no predictions of its validation images; make them with: thumbnet evaluate"
    ):
        old.predictions("validation")
    evaluate(old, machine=CPU, data=tiny)
    assert old.temperature == pytest.approx(run.temperature, rel=1e-4)


def test_with_fewer_than_five_classes_top5_counts_all():
    scores = score(torch.eye(3), torch.tensor([2, 0, 1]), ("a", "b", "c"), split="validation")
    assert (scores.accuracy, scores.top5) == (0, 1)


def test_the_interval_is_wilsons():
    # Values of scipy.stats.binomtest(k, n).proportion_ci(method="wilson"), checked against it here.
    from scipy.stats import binomtest

    for hits, trials in ((0, 10), (3, 10), (10, 10), (8340, 10_000)):
        expected = binomtest(hits, trials).proportion_ci(confidence_level=0.95, method="wilson")
        assert wilson_interval(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_views_average_the_image_its_mirror_image_and_both_shifted():
    images = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    identity = torch.nn.Flatten(0, -1)

    def model(x):
        return identity(x).view(x.shape)

    two = average_over_views(model, images, 2)
    torch.testing.assert_close(two, (images + images.flip(3)) / 2)
    six = average_over_views(model, images, 6)
    centre = 0.25 * (images[0, 0, 2, 2] * 2)
    corners = 0.125 * (images[0, 0, 1, 1] + images[0, 0, 3, 3] + images[0, 0, 1, 1] + images[0, 0, 3, 3])
    assert six[0, 0, 2, 2] == pytest.approx((centre + corners).item())


def test_evaluating_again_gives_what_training_measured(run, tiny):
    scores = evaluate(run, data=tiny, machine=CPU)
    assert scores.accuracy == run.summary["validation_accuracy"]
    assert scores.loss == pytest.approx(run.summary["validation_loss"])
    assert scores.images == 24


def test_opening_the_test_split_is_counted_each_time_and_before_measuring(run, tiny, monkeypatch):
    before = run.test_openings
    scores = evaluate(run, split="test", data=tiny, machine=CPU)
    assert scores.images == 100
    assert run.test_openings == before + 1
    monkeypatch.setattr(evaluation, "predict_logits", lambda *words, **more: pytest.fail("measured"))
    with pytest.raises(pytest.fail.Exception):
        evaluate(run, split="test", views=6, data=tiny, machine=CPU)
    assert run.test_openings == before + 2


def test_answers_kept_of_the_test_images_are_scored_without_opening_them_again(run, tiny, monkeypatch):
    first = evaluate(run, split="test", data=tiny, machine=CPU)
    before, rows = run.test_openings, len(run.evaluations)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "predict_logits", lambda *words, **more: pytest.fail("measured"))
        told: list[str] = []
        again, said = evaluation.measure(run, split="test", data=tiny, machine=CPU, say=told.append)
    assert again == first and torch.equal(said.logits, run.predictions("test").logits)
    assert told == ["the answers kept of an earlier opening of the test set; nothing was opened"]
    assert (run.test_openings, len(run.evaluations)) == (before, rows)
    other = replace(tiny, fingerprint="0" * 16)  # test images that were added, say
    evaluate(run, split="test", data=other, machine=CPU)
    assert run.test_openings == before + 1
    run.predictions_path("test", 1).write_bytes(b"damaged")
    assert evaluate(run, split="test", data=tiny, machine=CPU) == first and run.test_openings == before + 2
    evaluate(run, split="test", data=tiny, machine=replace(CPU, precision="bf16"))  # other bits, perhaps other answers
    assert run.test_openings == before + 3
    assert evaluate(run, split="test", data=tiny, machine=CPU) == first and run.test_openings == before + 4


def test_what_fails_before_measuring_opens_no_test_image(run, tiny, monkeypatch):
    before = run.test_openings
    for options in ({"machine": Machine(device="mps" if torch.cuda.is_available() else "cuda")}, {"views": 3}):
        with pytest.raises(UserError, match=r"not available|views"):
            evaluate(run, split="test", data=tiny, **options)
    monkeypatch.setattr(Run, "model", lambda self: (_ for _ in ()).throw(UserError("damaged")))
    with pytest.raises(UserError, match="damaged"):
        evaluate(run, split="test", views=6, data=tiny, machine=CPU)
    assert run.test_openings == before


def test_one_look_with_several_views_keeps_what_one_view_says_too(run, tiny):
    before = run.test_openings
    evaluate(run, split="test", views=2, data=tiny, machine=CPU)
    assert [row["views"] for row in run.evaluations[-2:]] == [1, 2] and run.test_openings == before + 1
    assert evaluation_of(run, "test")["accuracy"] == run.evaluations[-2]["accuracy"]  # what `compare` goes by
    assert run.predictions("test").views == 1 and run.predictions("test", views=2).views == 2


def test_a_network_that_saw_no_mirror_images_is_not_measured_on_them(tiny, quick, tmp_path):
    still = vary(quick, flip=False, epochs=1)
    assert (still.test_views, vary(still, views=6).test_views, vary(quick, views=6).test_views) == (1, 1, 6)
    run = train(still, tiny, tmp_path / "still", machine=CPU, plots=False)
    with pytest.raises(UserError, match="trained without mirror images"):
        evaluate(run, views=2, data=tiny, machine=CPU)
    with pytest.raises(UserError, match="trained without mirror images"):
        load(run, machine=CPU).predict_proba(np.zeros((1, 28, 28), np.uint8), views=2)


def test_measuring_the_validation_split_opens_no_test_image(run, tiny):
    before = run.test_openings
    evaluate(run, data=tiny, machine=CPU)
    assert run.test_openings == before


@pytest.fixture
def moved(tiny):
    """The data after the last ten training images were moved to the test images."""
    pack = read_fashion_mini()
    arrays = {name: array[: 230 if name.startswith("train") else 100] for name, array in pack.arrays.items()}
    for kind in ("images", "labels"):
        arrays[f"test_{kind}"] = np.concatenate([arrays[f"test_{kind}"], pack.arrays[f"train_{kind}"][230:240]])
    return assemble("tiny", Pack(arrays, pack.description), {})


def test_data_that_changed_since_training_are_refused_for_validation(run, moved):
    with pytest.raises(UserError, match=r"has changed since the run .* undo what was changed, or train again"):
        evaluate(run, data=moved, machine=CPU)


@pytest.mark.parametrize("measured", [evaluate, evaluate_robustness])
def test_test_images_are_not_measured_where_training_images_may_be_among_them(run, moved, measured):
    before = run.test_openings
    with pytest.raises(
        UserError, match=r"training or validation images of tiny have changed .* may be among those it was trained on"
    ):
        measured(run, split="test", data=moved, machine=CPU)
    assert run.test_openings == before


def test_the_test_images_of_a_run_that_did_not_note_which_it_was_trained_on_are_measured(run, moved, tmp_path):
    older = Run(shutil.copytree(run.path, tmp_path / "older"), run.recipe, run.data)
    del older.data["fingerprint_of_training"]
    assert evaluate(older, split="test", data=moved, machine=CPU).images == 110


def test_test_images_that_were_added_or_changed_do_not_touch_what_was_held_out(run, tiny, tmp_path):
    pack = read_fashion_mini()
    arrays = {name: array[: 240 if name.startswith("train") else 50].copy() for name, array in pack.arrays.items()}
    fewer = assemble("tiny", Pack(arrays, pack.description), {})
    assert fewer.fingerprint != tiny.fingerprint
    assert evaluate(run, data=fewer, machine=CPU).accuracy == evaluate(run, data=tiny, machine=CPU).accuracy
    copied = Run.open(shutil.copytree(run.path, tmp_path / "run"))
    assert evaluate(copied, split="test", data=fewer, machine=CPU).images == 50


def test_other_classes_are_refused(run, tiny):
    pack = read_fashion_mini()
    arrays = {name: array[:240] for name, array in pack.arrays.items()}
    renamed = assemble("tiny", Pack(arrays, {"classes": [*"abcdefghij"]}), {})
    with pytest.raises(UserError, match="has the classes a, b, c, d, e and 5 more"):
        evaluate(run, data=renamed, machine=CPU)


def test_a_run_without_validation_says_so(tiny, tmp_path):
    made = recipe("general", epochs=1, batch_size=64, validation=0)
    whole_run = train(made, tiny, tmp_path / "run", machine=CPU)
    with pytest.raises(UserError, match=r"was trained on all its images \(validation 0\)"):
        evaluate(whole_run, data=tiny, machine=CPU)


def test_an_unfinished_run_cannot_be_measured(run, tiny, tmp_path):
    unfinished = Run.create(tmp_path / "run", vary(run.recipe, epochs=3), tiny.with_validation(0.1, seed=0), {})
    with pytest.raises(UserError, match="is unfinished"):
        evaluate(unfinished, data=tiny)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it has no recipe\.toml"):
        Run.open(tmp_path)
    with pytest.raises(UserError, match="there is no run folder"):
        Run.open(tmp_path / "absent")


def test_only_the_least_certain_images_get_all_views(monkeypatch):
    from thumbnet.backend import prepare
    from thumbnet.data.batches import whole
    from thumbnet.judging.evaluation import predict_logits
    from thumbnet.machine import Machine

    class Plain(torch.nn.Module):  # class 0 by the brightness of the left half: mirrored images are judged otherwise
        def forward(self, x):
            left = x[:, :, :, :4].mean(dim=(1, 2, 3)) * 8
            return torch.stack((left, torch.full_like(left, 2.0)), dim=1)

    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, :, :, :4] = (torch.arange(40) * 6).view(40, 1, 1, 1).byte()
    split, backend = whole(images, torch.zeros(40, dtype=torch.int64)), prepare(Machine(precision="fp32", device="cpu"))
    one, both = (predict_logits(Plain(), split, backend, views=views) for views in (1, 2))
    some = predict_logits(Plain(), split, backend, views=2, uncertain=0.25)
    doubtful = (one.softmax(1)[:, 0] - 0.5).abs().argsort()[:10]
    torch.testing.assert_close(some[doubtful], both[doubtful])
    others = torch.ones(40, dtype=torch.bool)
    others[doubtful] = False
    torch.testing.assert_close(some[others], one[others])
    assert not torch.equal(one[doubtful], both[doubtful])


@pytest.mark.parametrize("part", [-0.1, 1.5])
def test_a_part_of_uncertain_images_beyond_all_of_them_is_refused(part, run, tiny):
    with pytest.raises(UserError, match="give a part of the images, 0 to 1"):
        evaluate(run, data=tiny, views=6, uncertain=part, machine=CPU)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "5"], "--images 5 is for --robustness; all images of the split are measured without it"),
        (
            ["--uncertain", "0.2"],
            "--uncertain 0.2 says which images get more views than one; give --views 2 or 6 with it",
        ),
        (
            ["--robustness", "--views", "6", "--uncertain", "0.2"],
            "--robustness measures one view and keeps a table of its own",
        ),
        (
            ["--split", "test", "--predictions", "/proc/no/said.csv"],
            "cannot write /proc/no/said.csv: /proc: No such file or directory; choose another place",
        ),
        (["--confusion", "folder.csv"], "cannot write folder.csv: it is a folder; give the name of a file"),
        (["elsewhere"], "there is no run folder elsewhere; `thumbnet train` makes one and prints its location"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(words, message, run, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    before = run.test_openings
    result = thumbnet("evaluate", run.path, *words, cwd=tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert message in result.stderr
    assert run.test_openings == before


def test_the_locked_split_says_how_it_is_opened(tiny):
    with pytest.raises(AttributeError, match=r"locked and has no 'images': thumbnet.evaluate\(run, split='test'\)"):
        _ = tiny.test.images


@pytest.mark.parametrize("own", ["", "val"])  # validation images cut from the training images; a split of their own
def test_the_predictions_of_pictures_name_their_files(own, tmp_path):
    for split in filter(None, ("train", "test", own)):
        pictures(tmp_path / "pics" / split, count=6)
    data = load_dataset(tmp_path / "pics", validation=0)
    made = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=4, validation=0.3)
    run = train(made, data, tmp_path / "run", machine=CPU, plots=False)
    for split, folder in (("validation", own or "train"), ("test", "test")):
        evaluate(run, split=split, machine=CPU)
        said = run.predictions(split)
        rows = list(csv.DictReader(io.StringIO(said.as_csv())))
        assert [Path(row["file"]).parent.as_posix() for row in rows] == [f"{folder}/{row['class']}" for row in rows]
        shown = [decode_image(tmp_path / "pics" / file, channels=3, size=(32, 32)) for file in said.files]
        chosen = data.test.unlock() if split == "test" else run.check_data(data).validation
        assert np.array_equal(chosen.images[said.rows].numpy(), np.stack(shown))
