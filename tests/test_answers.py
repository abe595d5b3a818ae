"""Answers of other programs: read, scored, and compared image by image with those of runs."""

import csv
import json

import numpy as np
import pytest
import torch

from conftest import CPU
from conftest import thumbnet as command
from thumbnet.errors import UserError
from thumbnet.judging.answers import evaluate_answers, read_answers
from thumbnet.judging.evaluation import evaluate, score_predictions
from thumbnet.judging.image_by_image import compare_answers
from thumbnet.judging.pairs import PairedImages
from thumbnet.judging.statistics import mcnemar, wilson_interval
from thumbnet.recipes import recipe
from thumbnet.training.loop import train

BASE = recipe("general", widths=(8, 16, 16), epochs=8, batch_size=32, validation=0.4)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return train(BASE, tiny, tmp_path_factory.mktemp("answers") / "run", machine=CPU)


def softmax(logits):
    return torch.from_numpy(logits).softmax(1).numpy()


def table(path, rows, columns=("class", "predicted")):
    """A CSV file."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def as_other_program(run, path, *, wrong=0, order=None, by="image", split="validation"):
    """What the run said as a CSV of another program, its first right answers made wrong, in another order."""
    kept = run.predictions(split)
    names, said, labels = kept.classes, kept.logits.argmax(1).clone(), kept.labels
    for place in torch.nonzero(said == labels)[:wrong, 0]:
        said[place] = (said[place] + 1) % len(names)
    rows = [
        (row, names[label], names[guess])
        for row, label, guess in zip(kept.rows.tolist(), labels.tolist(), said.tolist(), strict=True)
    ]
    rows = [rows[place] for place in order] if order is not None else rows
    return table(path, [row if by else row[1:] for row in rows], ([by] if by else []) + ["class", "predicted"])


# ---------------------------------------------------------------- scores of a file


def test_probabilities_of_another_program_get_the_scores_that_the_run_gets(run, tmp_path):
    kept = run.predictions()
    np.savez(
        tmp_path / "keras.npz",
        labels=kept.labels.numpy()[:, None],  # N 1, as Keras loads CIFAR's
        probabilities=softmax(kept.logits.numpy()),
        classes=np.array(kept.classes),
    )
    found, expected = evaluate_answers(tmp_path / "keras.npz"), score_predictions(kept)
    assert (found.accuracy, found.top5, found.confusion) == (expected.accuracy, expected.top5, expected.confusion)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert found.brier == pytest.approx(expected.brier, abs=1e-5)
    assert found.calibration.error == pytest.approx(expected.calibration.error, abs=1e-4)
    assert found.classes == kept.classes


def test_logits_and_the_file_that_evaluate_writes_are_answers_too(run, tiny, tmp_path):
    run.predictions().save(tmp_path / "said.npz")
    np.savez(tmp_path / "bare.npz", labels=run.predictions().labels.numpy(), logits=run.predictions().logits.numpy())
    expected = evaluate(run, machine=CPU, data=tiny)
    assert evaluate_answers(tmp_path / "said.npz").confusion == expected.confusion
    assert evaluate_answers(tmp_path / "bare.npz").loss == pytest.approx(expected.loss, abs=1e-6)
    assert evaluate_answers(tmp_path / "bare.npz").classes == tuple("0123456789")  # by their numbers


def test_labels_may_be_names_where_the_classes_are_named(tmp_path):
    labels, probabilities = np.array(["eel", "cat", "eel"]), np.eye(3)[[2, 0, 1]]
    np.savez(
        tmp_path / "named.npz", labels=labels, probabilities=probabilities, classes=np.array(["cat", "dog", "eel"])
    )
    scores = evaluate_answers(tmp_path / "named.npz")
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.confusion == ((1, 0, 0), (0, 0, 0), (0, 1, 1))
    assert scores.loss == pytest.approx(-np.log(1e-12) / 3, rel=1e-6)  # a probability of 0 is no infinite loss
    np.savez(tmp_path / "half.npz", labels=labels, probabilities=probabilities)
    with pytest.raises(UserError, match="has names as labels and no array classes"):
        evaluate_answers(tmp_path / "half.npz")


def test_a_csv_has_one_answer_and_is_compared_not_evaluated(tmp_path):
    path = table(tmp_path / "said.csv", [("cat", "cat"), ("dog", "cat")])
    with pytest.raises(UserError, match="has one answer for each image, and evaluate needs a probability"):
        evaluate_answers(path)
    assert [it.right for it in compare_answers([path]).answers] == [1]


# ---------------------------------------------------------------- compared


def test_a_run_and_another_program_are_compared_image_by_image(run, tmp_path):
    kept = run.predictions()
    shuffled = np.random.default_rng(0).permutation(len(kept.labels))
    other = as_other_program(run, tmp_path / "keras.csv", wrong=9, order=shuffled)
    found = compare_answers([run, other])
    hits = int(kept.hits().sum())
    assert [(it.name, it.right, it.images) for it in found.answers] == [
        (str(run.path), hits, len(kept.labels)),
        (str(other), hits - 9, len(kept.labels)),
    ]
    assert found.answers[1].interval95 == wilson_interval(hits - 9, len(kept.labels))
    [pair] = found.pairs
    assert isinstance(pair.images, PairedImages)
    assert (pair.images.only_first, pair.images.only_second) == (9, 0)
    assert pair.images.p == pair.adjusted_p == mcnemar(9, 0)
    assert pair.significant and not pair.claimed  # of these networks, not of recipes
    assert pair.sentence.startswith(f'The network of "{run.path}" is better than that of "{other}" by')
    assert "not about their recipes" in pair.sentence
    assert found.warnings[0].startswith(f'what "{other}" was trained on and chosen by is not known')


def test_a_difference_that_chance_makes_is_not_claimed_of_answers(run, tmp_path):
    other = as_other_program(run, tmp_path / "keras.csv", wrong=2)
    [sentence] = compare_answers([run, other]).sentences
    assert sentence.startswith("No difference can be claimed between the networks of")


def test_several_files_are_adjusted_together(run, tmp_path):
    files = [as_other_program(run, tmp_path / f"{wrong}.csv", wrong=wrong) for wrong in (6, 9)]
    found = compare_answers([run, *files])
    first = found.pairs[0]
    assert first.p == mcnemar(6, 0) and first.adjusted_p == pytest.approx(
        2 * mcnemar(6, 0)
    )  # Holm's, the second of three
    assert len(found.pairs) == 3 and any("3 comparisons were made" in told for told in found.warnings)


def test_answers_are_matched_by_file_then_by_image_then_by_order(tmp_path):
    truth = ("cat", "dog", "eel")
    left = [(f"{name}/1.png", place, name, name) for place, name in enumerate(truth)]
    one = table(tmp_path / "one.csv", left, ("file", "image", "class", "predicted"))
    turned = [(f"{name}/1.png", 7 + place, name, "cat") for place, name in enumerate(truth)][::-1]
    two = table(tmp_path / "two.csv", turned, ("file", "image", "class", "predicted"))
    assert [it.right for it in compare_answers([one, two]).answers] == [3, 1]  # by file: numbers differ
    numbered = [(2, "eel", "eel"), (0, "cat", "dog"), (1, "dog", "dog")]
    three = table(tmp_path / "three.csv", numbered, ("image", "class", "predicted"))
    found = compare_answers([one, three])
    assert (found.pairs[0].images.only_first, found.pairs[0].images.only_second) == (1, 0)
    four = table(tmp_path / "four.csv", [("eel", "eel"), ("cat", "eel"), ("dog", "eel")])
    assert [it.right for it in compare_answers([three, four]).answers] == [
        2,
        1,
    ]  # neither image nor file in both: by order
    turned_about = table(tmp_path / "five.csv", [("cat", "dog"), ("dog", "dog"), ("eel", "dog")])
    with pytest.raises(UserError, match=r"do not agree of which class answer 1 is .*in the same order"):
        compare_answers([three, turned_about])


def test_numbers_count_the_classes_of_the_run(run, tmp_path):
    kept = run.predictions()
    rows = zip(kept.rows.tolist(), kept.labels.tolist(), kept.logits.argmax(1).tolist(), strict=True)
    numbers = table(tmp_path / "numbers.csv", rows, ("image", "class", "predicted"))
    for sources in ([run, numbers], [numbers, run]):
        assert [it.right for it in compare_answers(sources).answers] == [int(kept.hits().sum())] * 2
    beyond = table(tmp_path / "beyond.csv", [(0, 0, 10)], ("image", "class", "predicted"))
    with pytest.raises(UserError, match="has the class 10, and 10 classes count from 0 to 9"):
        compare_answers([run, beyond])


def test_numbers_are_names_where_classes_are_called_by_numbers(tmp_path):
    classes = np.array(["7", "3"])
    np.savez(tmp_path / "a.npz", labels=np.array([0, 1, 1]), predicted=np.array([0, 1, 0]), classes=classes)
    other = table(tmp_path / "b.csv", [("7", "3"), ("3", "3"), ("3", "3")])
    assert [it.right for it in compare_answers([tmp_path / "a.npz", other]).answers] == [2, 2]


def test_test_images_that_were_opened_twice_claim_nothing(run, tmp_path, tiny):
    evaluate(run, split="test", machine=CPU, data=tiny)
    other = as_other_program(run, tmp_path / "keras.csv", wrong=9, split="test")
    assert compare_answers([run, other], split="test").pairs[0].significant
    run.count_test_opening(tiny)
    found = compare_answers([run, other], split="test")
    assert found.sentences == [
        f'No difference can be claimed between "{run.path}" and "{other}": the test set was opened more than once for a run.'
    ]
    assert found.warnings[0].startswith(f"the test set was opened more than once for {run.path}")
    assert (
        compare_answers([run, as_other_program(run, tmp_path / "v.csv", wrong=9)]).pairs[0].significant
    )  # validation images


# ---------------------------------------------------------------- what cannot be


def test_answers_for_other_images_are_refused(run, tmp_path):
    other = as_other_program(run, tmp_path / "some.csv", order=range(5))
    with pytest.raises(
        UserError,
        match=r"are of different images: image .* is in .*run \(validation images\) only \(--split test takes",
    ):
        compare_answers([run, other])
    with pytest.raises(
        UserError,
        match=r"are of different images: image .* is in .*run \(validation images\) only \(--split test takes",
    ):
        compare_answers([other, run])
    bare = as_other_program(run, tmp_path / "bare.csv", order=range(5), by=None)
    with pytest.raises(UserError, match="and no column or array in both tells which image one is of"):
        compare_answers([run, bare])
    with pytest.raises(UserError, match="are named more than once"):
        compare_answers([other, other])
    unknown = table(tmp_path / "unknown.csv", [("cat", "T-shirt/tops")])
    with pytest.raises(UserError, match=r"unknown class 'T-shirt/tops'|unknown class 'cat'"):
        compare_answers([run, unknown])


BROKEN_TABLES = {
    "has no column predicted": "class,guess\ncat,dog\n",
    "row 2 of the answers has nothing under predicted": "class,predicted\ncat,dog\ncat\n",
    "row 1 of the answers has more values than there are columns": "class,predicted\ncat,dog,eel\n",
    "has no answers; give one for each image": "class,predicted\n",
    "has image 4 twice": "image,class,predicted\n4,cat,cat\n4,dog,dog\n",
    "has no column class; its first line names": "",
}


@pytest.mark.parametrize("complaint", BROKEN_TABLES)
def test_a_broken_table_is_one_line(complaint, tmp_path):
    (tmp_path / "said.csv").write_text(BROKEN_TABLES[complaint])
    with pytest.raises(UserError, match=complaint):
        read_answers(tmp_path / "said.csv")


def test_a_table_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "said.csv").write_bytes(b"class,predicted\n\xff\xfe,\x00")
    with pytest.raises(UserError, match=r"cannot read .*said.csv"):
        read_answers(tmp_path / "said.csv")
    with pytest.raises(UserError, match=r"cannot read .*none.csv: No such file"):
        read_answers(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"is no file of answers; give a name that ends in .csv or .npz"):
        read_answers(tmp_path / "said.txt")


EYE = np.eye(3)
BROKEN_ARRAYS = {
    "has no array labels; give labels with logits": {"probabilities": EYE},
    "has no array predicted": {"labels": np.arange(3)},
    "its labels are float64 3; give one whole number or text": {"labels": np.arange(3.0), "probabilities": EYE},
    "its labels are int64 3 x 2": {"labels": np.ones((3, 2), np.int64), "probabilities": EYE},
    "its probabilities are float64 2 x 3; give a float": {"labels": np.arange(3), "probabilities": EYE[:2]},
    "its logits are int64 3 x 3": {"labels": np.arange(3), "logits": EYE.astype(np.int64)},
    "names 2 classes, and its logits have 3 columns": {
        "labels": np.arange(3),
        "logits": EYE,
        "classes": np.array(["a", "b"]),
    },
    "some of its logits are no finite numbers": {"labels": np.arange(3), "logits": np.full((3, 3), np.inf)},
    "probabilities of its image 0 are negative or do not add up to 1": {
        "labels": np.arange(3),
        "probabilities": 5 * EYE,
    },
    "its predicted are int64 2; give one whole number": {"labels": np.arange(3), "predicted": np.arange(2)},
    "unknown class '3'; known: 0, 1, 2": {"labels": np.arange(1, 4), "probabilities": EYE},
    "has the class 3, and 3 classes count from 0 to 2": {
        "labels": np.arange(1, 4),
        "probabilities": EYE,
        "classes": np.array(["a", "b", "c"]),
    },
    "its files are float64 3": {"labels": np.arange(3), "probabilities": EYE, "files": np.arange(3.0)},
}


@pytest.mark.parametrize("complaint", BROKEN_ARRAYS)
def test_broken_arrays_are_one_line(complaint, tmp_path):
    np.savez(tmp_path / "said.npz", **BROKEN_ARRAYS[complaint])
    with pytest.raises(UserError, match=complaint):
        evaluate_answers(tmp_path / "said.npz")


def test_arrays_of_objects_are_not_opened(tmp_path):
    np.savez(tmp_path / "said.npz", labels=np.array([{}, 1], dtype=object))
    with pytest.raises(UserError, match="holds Python objects, which could run code"):
        read_answers(tmp_path / "said.npz")


# ---------------------------------------------------------------- the command line


def test_the_command_line_evaluates_and_compares_files(run, tmp_path):
    kept = run.predictions()
    np.savez(tmp_path / "keras.npz", labels=kept.labels.numpy(), probabilities=softmax(kept.logits.numpy()))
    shown = command("evaluate", "keras.npz", "--confusion", "c.csv", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"keras.npz: answers for {len(kept.labels)} images of 10 classes\naccuracy ")
    assert "confusion    c.csv" in shown.stdout and (tmp_path / "c.csv").is_file()
    found = json.loads(command("evaluate", "keras.npz", "--json", cwd=tmp_path).stdout)
    assert (found["run"], found["split"], found["views"]) == ("keras.npz", None, None)
    assert found["accuracy"] == pytest.approx(float(kept.hits().double().mean()))
    refused = command("evaluate", "keras.npz", "--split", "test", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("--split needs a run, and keras.npz is a file of answers; leave it out")

    as_other_program(run, tmp_path / "torch.csv", wrong=9)
    shown = command("compare", str(run.path), "torch.csv", "--csv", "out.csv", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert f"image by image ({len(kept.labels)} images)" in shown.stdout
    assert 'is better than that of "torch.csv"' in shown.stdout
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [int(row["right"]) for row in rows] == [int(kept.hits().sum()), int(kept.hits().sum()) - 9]
    assert [row["test_openings"] for row in rows] == [str(run.test_openings), ""]
    found = json.loads(command("compare", str(run.path), "torch.csv", "--json", cwd=tmp_path).stdout)
    assert found["pairs"][0]["images"]["only_first"] == 9 and found["split"] == "validation"
    refused = command("compare", str(run.path), "torch.csv", "--metric", "top5", cwd=tmp_path)
    assert refused.returncode == 2 and "--metric top5 needs a run" in refused.stderr
