"""Answers of other programs: read, scored, and compared image by image with those of runs."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from conftest import CPU
from conftest import thumbnet as command
from thumbnet.data.datasets import assemble
from thumbnet.data.embedded import read_fashion_mini
from thumbnet.data.pack import Pack
from thumbnet.errors import UserError
from thumbnet.judging.answers import as_predictions, evaluate_answers, read_answers
from thumbnet.judging.comparison import compare
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
    own, other = evaluate_answers(tmp_path / "said.npz"), evaluate_answers(tmp_path / "bare.npz")
    assert (own.split, own.views, other.split, other.views) == ("validation", 1, "answers", 1)
    kept = as_predictions(read_answers(tmp_path / "said.npz"))
    assert torch.equal(kept.rows, run.predictions().rows) and torch.equal(kept.labels, run.predictions().labels)


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


def test_answers_alone_get_the_scores_that_they_can_have(tmp_path):
    rows = [("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("eel", "cat")]
    scores = evaluate_answers(table(tmp_path / "said.csv", rows))
    assert (scores.accuracy, scores.classes) == (0.5, ("cat", "dog", "eel"))
    assert scores.confusion == ((1, 1, 0), (0, 1, 0), (1, 0, 0))
    assert scores.balanced_accuracy == pytest.approx((0.5 + 1 + 0) / 3)
    found = scores.to_dict()
    assert [found[name] for name in ("top5", "loss", "brier")] == [None] * 3
    assert set(found["calibration"].values()) == {None}
    np.savez(tmp_path / "said.npz", labels=np.array([0, 0, 1, 2]), predicted=np.array([0, 1, 1, 0]))
    assert evaluate_answers(tmp_path / "said.npz").confusion == scores.confusion


def test_what_scikit_learn_has_is_taken_as_it_is(tmp_path):
    classes, truth = np.array([100, 107, 109]), np.array([107, 100, 109, 107])
    probabilities = np.array([[0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0, 1, 0]])
    np.savez(tmp_path / "forest.npz", labels=truth, probabilities=probabilities, classes=classes)
    scores = evaluate_answers(tmp_path / "forest.npz")
    assert (scores.accuracy, scores.classes) == (0.75, ("100", "107", "109"))
    np.savez(
        tmp_path / "alone.npz", labels=truth.astype(float), predicted=classes[probabilities.argmax(1)], classes=classes
    )
    assert evaluate_answers(tmp_path / "alone.npz").confusion == scores.confusion
    np.savez(tmp_path / "two.npz", labels=np.array([True, False, True]), probabilities=np.eye(2, dtype=int)[[1, 1, 1]])
    assert evaluate_answers(tmp_path / "two.npz").confusion == ((0, 1), (0, 2))


def test_top5_is_not_told_where_it_hangs_on_ties(tmp_path):
    labels, probabilities = np.arange(7), np.eye(7)  # as of a tree, which gives the other classes nothing
    np.savez(tmp_path / "tree.npz", labels=labels, probabilities=probabilities)
    assert evaluate_answers(tmp_path / "tree.npz").to_dict()["top5"] is None
    smooth = 0.9 * probabilities + 0.1 * np.linspace(0, 1, 7) / np.linspace(0, 1, 7).sum()
    np.savez(tmp_path / "smooth.npz", labels=labels, probabilities=smooth)
    assert evaluate_answers(tmp_path / "smooth.npz").top5 == 1


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
    assert pair.sentence.endswith("this is about these 2 networks, not about the ways they were trained.")
    assert [it.matched_by for it in found.answers] == [None, "image"]
    assert found.warnings == (
        f'not known of "{other}": the training images, what chose the network, how often these images were seen',
    )


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


def test_runs_beside_a_file_are_compared_with_it_and_not_with_each_other(run, tiny, tmp_path):
    other = train(dataclasses.replace(BASE, learning_rate=0.01), tiny, tmp_path / "other", machine=CPU)
    file = as_other_program(run, tmp_path / "keras.csv")
    found = compare_answers([run, file, other])
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        (str(run.path), str(file)),
        (str(file), str(other.path)),
    ]


def test_runs_of_other_data_are_refused(run, tmp_path):
    pack = read_fashion_mini()
    arrays = {name: array[240:480] for name, array in pack.arrays.items() if name.startswith("train")}
    others = assemble("others", Pack(arrays, pack.description), {"location": "memory"})
    other = train(BASE, others, tmp_path / "other", machine=CPU)
    with pytest.raises(UserError, match="only runs on the same data compare"):
        compare_answers([run, other, as_other_program(run, tmp_path / "keras.csv")])


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
    found = compare_answers([three, four])  # neither image nor file in both
    assert [(it.right, it.matched_by) for it in found.answers] == [(2, None), (1, "order")]
    assert f'the images of "{four}" were matched by their order' in found.warnings[0]
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
    with pytest.raises(UserError, match="answer 1: class 10, and 10 classes count from 0 to 9"):
        compare_answers([run, beyond])


def test_numbers_are_names_where_classes_are_called_by_numbers(tmp_path):
    classes = np.array(["7", "3"])
    np.savez(tmp_path / "a.npz", labels=np.array([1, 0, 1]), predicted=np.array([0, 0, 1]), classes=classes)
    other = table(tmp_path / "b.csv", [("3", "3"), ("7", "3"), ("3", "3")])
    assert [it.right for it in compare_answers([tmp_path / "a.npz", other]).answers] == [2, 2]


def test_numbers_and_names_do_not_meet_without_classes(tmp_path):
    numbers = table(tmp_path / "numbers.csv", [(0, 0), (1, 0), (0, 0)])
    names = table(tmp_path / "names.csv", [("cat", "cat"), ("dog", "cat"), ("cat", "cat")])
    with pytest.raises(UserError, match=r"numbers.csv has numbers for its classes and .*names.csv names"):
        compare_answers([numbers, names])
    for classes in (["cat", "dog"], ["dog", "cat"]):
        said = np.array(["cat", "dog", "cat"])
        np.savez(tmp_path / f"{classes[0]}.npz", labels=said, predicted=said, classes=np.array(classes))
    assert [it.right for it in compare_answers([numbers, tmp_path / "cat.npz"]).answers] == [2, 3]
    with pytest.raises(UserError, match="others name theirs in different orders"):
        compare_answers([numbers, tmp_path / "cat.npz", tmp_path / "dog.npz"])


def test_the_file_that_names_most_classes_says_which_there_are(tmp_path):
    few = {"labels": np.array([0, 1, 0]), "predicted": np.array([0, 1, 1]), "classes": np.array(["cat", "dog"])}
    np.savez(tmp_path / "few.npz", **few)
    more = few | {"predicted": np.array([2, 1, 0]), "classes": np.array(["cat", "dog", "eel"])}
    np.savez(tmp_path / "more.npz", **more)
    for order in (("few", "more"), ("more", "few")):
        found = compare_answers([tmp_path / f"{name}.npz" for name in order])
        assert [it.right for it in found.answers] == [2, 2]


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


def test_images_class_by_class_need_something_that_tells_which_they_are(tmp_path):
    """As folders have them: another order within a class would make another p, and nothing would show it."""
    truth = ["cat"] * 20 + ["dog"] * 20
    one = table(tmp_path / "one.csv", [(name, "cat") for name in truth])
    two = table(tmp_path / "two.csv", [(name, "dog") for name in truth])
    with pytest.raises(UserError, match="class by class, and no column or array in both"):
        compare_answers([one, two])
    named = [(f"{name}/{number}.png", name, "cat") for number, name in enumerate(truth)]
    both = [
        table(tmp_path / f"{n}.csv", named[::step], ("file", "class", "predicted")) for n, step in ((3, 1), (4, -1))
    ]
    assert [it.right for it in compare_answers(both).answers] == [20, 20]


# ---------------------------------------------------------------- what cannot be


def test_answers_for_other_images_are_refused(run, tmp_path):
    other = as_other_program(run, tmp_path / "some.csv", order=range(5))
    with pytest.raises(
        UserError,
        match=r"are of different images: image .* is in .*run \(validation images\) only, where .* \(--split test takes",
    ):
        compare_answers([run, other])
    with pytest.raises(
        UserError,
        match=r"are of different images: image .* is in .*run \(validation images\) only, where .* \(--split test takes",
    ):
        compare_answers([other, run])
    bare = as_other_program(run, tmp_path / "bare.csv", order=range(5), by=None)
    with pytest.raises(UserError, match="and no column or array in both tells which image one is of"):
        compare_answers([run, bare])
    with pytest.raises(UserError, match=r"some.csv is named twice"):
        compare_answers([run, other, other])
    with pytest.raises(UserError, match=r"some.csv is a file of answers; thumbnet.compare_answers compares such"):
        compare([run, other])
    for nothing in ([], "some.csv"):
        with pytest.raises(UserError, match="give a list of runs and files of answers"):
            compare_answers(nothing)
    unknown = table(tmp_path / "unknown.csv", [("cat", "T-shirt/tops")])
    with pytest.raises(UserError, match=r"answer 1: unknown class '(T-shirt/tops|cat)'"):
        compare_answers([run, unknown])


BROKEN_TABLES = {
    "has no column predicted": "class,guess\ncat,dog\n",
    "row 2 of the answers has nothing under predicted": "class,predicted\ncat,dog\ncat\n",
    "row 1 of the answers has more values than there are columns": "class,predicted\ncat,dog,eel\n",
    "has no answers; give one for each image": "class,predicted\n",
    "has image 4 twice": "image,class,predicted\n4,cat,cat\n4,dog,dog\n",
    "has no column class; its first line must name the columns": "",
    "with commas between them .it has 'class:predicted'": "class:predicted\ncat:dog\n",
    "has more than one column class": "class,class,predicted\ncat,cat,dog\n",
}


@pytest.mark.parametrize("complaint", BROKEN_TABLES)
def test_a_broken_table_is_one_line(complaint, tmp_path):
    (tmp_path / "said.csv").write_text(BROKEN_TABLES[complaint])
    with pytest.raises(UserError, match=complaint):
        read_answers(tmp_path / "said.csv")


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_tables_are_read_as_spreadsheets_write_them(sign, tmp_path):
    rows = (
        ["image,class,predicted,note", '4,cat,dog,"odd, perhaps"']
        if sign == ","
        else ["image,class,predicted", "4,cat,dog"]
    )
    text = "\r\n".join(rows) if sign == "," else "\r\n".join(rows).replace(",", sign)
    (tmp_path / "said.csv").write_bytes(f"\ufeff{text}\r\n".encode())
    said = read_answers(tmp_path / "said.csv")
    assert (said.labels.tolist(), said.predicted.tolist(), said.images["image"]) == (["cat"], ["dog"], ("4",))


def test_a_table_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "said.csv").write_bytes(b"class,predicted\n\xff\xfe,\x00")
    with pytest.raises(UserError, match=r"said.csv: it is no text in UTF-8; save it as such"):
        read_answers(tmp_path / "said.csv")
    with pytest.raises(UserError, match=r"cannot read .*none.csv: No such file"):
        read_answers(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"is no file of answers; give a name that ends in .csv or .npz"):
        read_answers(tmp_path / "said.txt")


def test_one_odd_cell_among_numbers_is_the_one_that_is_named(run, tmp_path):
    rows = [(row, label, 3) for row, label in enumerate([3, 4, "nan", 5])]
    with pytest.raises(UserError, match="answer 3: 'nan' is no whole number, and most classes are"):
        compare_answers([table(tmp_path / "odd.csv", rows, ("image", "class", "predicted")), run])


def test_numbers_beyond_all_machines_are_one_line(run, tmp_path):
    huge = table(tmp_path / "huge.csv", [(0, "99999999999999999999", 3)], ("image", "class", "predicted"))
    with pytest.raises(UserError, match="class 99999999999999999999, and 10 classes count from 0 to 9"):
        compare_answers([huge, run])
    rows = np.array([1, 2**63, 5], np.uint64)
    np.savez(tmp_path / "rows.npz", labels=np.arange(3), probabilities=np.eye(3), rows=rows)
    with pytest.raises(UserError, match="its rows are uint64"):
        evaluate_answers(tmp_path / "rows.npz")
    named = table(tmp_path / "named.csv", [("x", "cat", "cat"), ("y", "dog", "cat")], ("image", "class", "predicted"))
    assert as_predictions(read_answers(named)).rows.tolist() == [0, 1]


EYE = np.eye(3)
THREE = np.array(["a", "b", "c"])
BROKEN_ARRAYS = {
    "has no array labels; give labels with logits": {"probabilities": EYE},
    "has no array predicted": {"labels": np.arange(3)},
    "its labels are float64 of shape .3,.; give one whole number or text": {
        "labels": np.arange(3) / 2,
        "probabilities": EYE,
    },
    "its labels are int64 of shape .3, 2.": {"labels": np.ones((3, 2), np.int64), "probabilities": EYE},
    "its probabilities are float64 of shape .2, 3.; give a number for each of 3 images": {
        "labels": np.arange(3),
        "probabilities": EYE[:2],
    },
    "of two classes, two columns": {"labels": np.array([0, 1, 1]), "probabilities": np.full((3, 1), 0.5)},
    "names 2 classes, and its logits have 3 columns": {"labels": np.arange(3), "logits": EYE, "classes": THREE[:2]},
    "some of its logits are no finite numbers": {"labels": np.arange(3), "logits": np.full((3, 3), np.inf)},
    "probabilities of its image 0 are negative or do not add up to 1": {
        "labels": np.arange(3),
        "probabilities": 5 * EYE,
    },
    "probabilities of its image 1 are negative": {
        "labels": np.arange(2),
        "probabilities": np.array([[1, 0], [-0.2, 1.2]]),
    },
    "probabilities of its image 2 are": {"labels": np.arange(3), "probabilities": EYE + np.array([[0], [0], [0.007]])},
    "has both logits and probabilities; keep one": {"labels": np.arange(3), "probabilities": EYE, "logits": EYE},
    "for 2 images its predicted is not the class of the largest probability": {
        "labels": np.arange(3),
        "probabilities": EYE,
        "predicted": np.array([0, 2, 1]),
    },
    "its predicted are int64 of shape .2,.; give one whole number or text for each image, 3 of them": {
        "labels": np.arange(3),
        "predicted": np.arange(2),
    },
    "answer 3: unknown class '3'; known: 0, 1, 2": {"labels": np.arange(1, 4), "probabilities": EYE},
    "answer 3: class 3, and 3 classes count from 0 to 2": {
        "labels": np.arange(1, 4),
        "probabilities": EYE,
        "classes": THREE,
    },
    "answer 1: class -1, and 3 classes count": {"labels": np.arange(3) - 1, "probabilities": EYE, "classes": THREE},
    "one of its classes has no name": {
        "labels": np.arange(3),
        "probabilities": EYE,
        "classes": np.array(["a", "", "c"]),
    },
    "its files are float64 of shape": {"labels": np.arange(3), "probabilities": EYE, "files": np.arange(3) + 0.5},
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
    assert float(rows[0]["low"]) == pytest.approx(found["answers"][0]["interval95"][0], abs=1e-6)
    assert float(rows[1]["high"]) == pytest.approx(found["answers"][1]["interval95"][1], abs=1e-6)
    turned = json.loads(command("compare", "torch.csv", str(run.path), "--json", cwd=tmp_path).stdout)
    assert [row["name"] for row in turned["answers"]] == ["torch.csv", str(run.path)]  # in the order they were named


def test_the_command_line_evaluates_answers_alone(tmp_path):
    table(tmp_path / "said.csv", [("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("eel", "cat")])
    shown = command("evaluate", "said.csv", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "accuracy     50.00%" in shown.stdout and "eel taken for cat: 1" in shown.stdout
    assert not any(word in shown.stdout for word in ("nan", "loss", "Brier", "calibration"))
    assert json.loads(command("evaluate", "said.csv", "--json", cwd=tmp_path).stdout)["loss"] is None
    refused = command("evaluate", "said.csv", "--predictions", "p.csv", cwd=tmp_path)  # they would be made up
    assert refused.returncode == 2 and not (tmp_path / "p.csv").exists()
    assert "--predictions writes probabilities, and said.csv has answers alone; leave it out" in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "k.npz", "--views", "2"), "--views needs a run, and k.npz is a file of answers; leave it out"),
        (("evaluate", "k.npz", "--uncertain", "0.5"), "--uncertain needs a run"),
        (("evaluate", "k.npz", "--images", "5"), "--images needs a run"),
        (("evaluate", "k.npz", "--skip-broken"), "--skip-broken needs a run"),
        (("evaluate", "k.npz", "--data-dir", "."), "--data-dir needs a run"),
        (("evaluate", "k.npz", "--threads", "1"), "--threads needs a run"),
        (
            ("evaluate", "k.npz", "k.csv"),
            "evaluate takes one file of answers, and 2 things are named; see: thumbnet compare",
        ),
        (("compare", "k.npz", "--metric", "top5"), "--metric top5 needs a run, and k.npz is a file of answers"),
        (("compare", "k.npz", "--plot", "x.png"), "--plot needs a run"),
        (
            ("compare", "k.npz", "--split", "test"),
            "--split test says which images of a run to take, and there is none here",
        ),
    ],
)
def test_what_a_file_of_answers_cannot_tell_is_refused(words, message, tmp_path):
    np.savez(tmp_path / "k.npz", labels=np.arange(3), probabilities=np.eye(3))
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
