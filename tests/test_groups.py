"""What belongs together, told by a column or by paths: how it is held out, judged, compared and remembered."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import thumbnet as command
from tables import paint, patients
from thumbnet.cli.main import run as command_line
from thumbnet.data.datasets import load_dataset
from thumbnet.data.folder import list_folder
from thumbnet.data.groups import groups_by, numbered
from thumbnet.data.labelled import labelled_images
from thumbnet.data.pictures import pictures_signature, read_pictures
from thumbnet.data.table import list_table
from thumbnet.errors import UserError
from thumbnet.judging.answers import Answers
from thumbnet.judging.calibration import reliability, threshold_for
from thumbnet.judging.evaluation import evaluate, score_predictions
from thumbnet.judging.image_by_image import groups_of
from thumbnet.judging.pairs import difference_by_group, exchanged, grouped_difference, paired_by_images
from thumbnet.judging.robustness import evaluate_robustness
from thumbnet.judging.statistics import mcnemar, widest_half
from thumbnet.recipes import recipe, vary
from thumbnet.recipes.fitting import suited
from thumbnet.report.sections import data_section, reproduce
from thumbnet.runs.data_record import DataRecord
from thumbnet.runs.run import Run
from thumbnet.studies.study_file import read_study

SMALL = ("--epochs", "1", "--batch-size", "4", "--widths", "8", "16", "16", "--image-size", "16", "--threads", "1")


def beetles(folder, *, each=4, count=6, of="{}_{}.png", test=0):
    """Pictures of beetles in folders of two genera, `each` of one beetle, no two alike; the last `test` in test/."""
    for genus, letter in (("Meloe", "B"), ("Lytta", "C")):
        for beetle in range(count):
            for number in range(each):
                home = folder / "test" / genus if beetle >= count - test else folder / genus
                path = home / of.format(f"{letter}{beetle:03}", number)
                path.parent.mkdir(parents=True, exist_ok=True)
                colour = (9 * beetle, 40 * number, 200 if letter == "B" else 50)
                Image.new("RGB", (16, 16), colour).save(path)
    return folder


# --- a column of a table -------------------------------------------------------------------------------------------


def test_images_of_one_group_are_all_held_out_or_all_trained_on(tmp_path):
    data = load_dataset(patients(tmp_path), image_size=4)
    for seed in range(6):
        for cut in (data.with_validation(0.25, seed=seed), data.with_validation(0, seed=seed, folds=3, fold=1)):
            owners = [
                {data.files["train"][row].split("-")[0] for row in part.rows.tolist()}
                for part in (cut.train, cut.validation)
            ]
            assert not owners[0] & owners[1] and len(owners[1]) > 1
            assert len(cut.validation) == 4 * len(owners[1])
    loose = data.with_validation(0.25, seed=0, copies_together=False)
    assert {row // 4 for row in loose.train.rows.tolist()} & {row // 4 for row in loose.validation.rows.tolist()}


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ([], "12 of training images; none of them both trained on and held out"),
        (
            ["test"],
            "12 of training images; 1 group has training and test images; what is measured on these looks too good",
        ),
    ],
)
def test_a_report_tells_of_groups(split, told, tmp_path):
    path = patients(tmp_path)
    rows = path.read_text().splitlines()
    if split:
        rows = [rows[0] + ",split", rows[1] + ",test", *(row + ",train" for row in rows[2:])]
    path.write_text("\n".join(rows) + "\n")
    data = load_dataset(path, image_size=4, validation=0.25)
    run = SimpleNamespace(data=DataRecord.of(data))
    assert ("groups", told) in data_section(run, None)["rows"]


def test_accuracy_of_images_in_groups_is_known_less_well_wherever_it_is_told(tmp_path):
    patients(tmp_path)
    command("train", "labels.csv", "--validation", "0.5", "--epochs", "1", "--batch-size", "4", "--widths", "8", "16", "16",
            "--image-size", "16", "--threads", "1", "--out", "run", cwd=tmp_path)  # fmt: skip
    run = Run.open(tmp_path / "run")
    kept = run.predictions("validation")
    scores = score_predictions(kept)
    assert kept.groups.tolist() == [row // 4 for row in kept.rows.tolist()] and scores.groups == 6
    alone = score_predictions(replace(kept, groups=None))
    assert scores.interval95[1] - scores.interval95[0] > alone.interval95[1] - alone.interval95[0]
    assert run.summary["validation_groups"] == 6 and tuple(run.summary["validation_interval95"]) == scores.interval95
    said = command("evaluate", "run", cwd=tmp_path).stdout
    low, high = scores.interval95
    assert "24 validation images of 6 groups" in said and f"95 % interval {low:.2%} to {high:.2%}" in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "24 validation images of 6 groups" in page and "as those of 6 groups are worth" in page


def test_images_without_a_group_are_alone(pets):
    listing = list_table(pets("image,label,group\na.png,cat,\nb.png,dog,\nc.png,cat,7\n"))
    pack = read_pictures(listing, image_size=4)
    assert len(set(pack.arrays["train_groups"].tolist())) == 3


def test_a_group_of_a_column_that_misses_some_is_the_whole_number_that_it_was(pets):
    listing = list_table(pets("image,label,group\na.png,cat,12\nb.png,dog,12.0\nc.png,cat,12.5\n"))
    first, same, other = read_pictures(listing, image_size=4).arrays["train_groups"].tolist()
    assert first == same != other


def test_groups_keep_to_their_images_where_some_are_broken(tmp_path):
    path = patients(tmp_path, count=4)
    (tmp_path / "0-1.png").write_bytes(b"no image")
    data = load_dataset(path, image_size=4, validation=0, skip_broken=True)
    owners = [name.split("-")[0] for name in data.files["train"]]
    assert len(owners) == 15 and data.groups["train"].tolist() == [int(owner) for owner in owners]


def test_groups_that_training_and_test_share_are_told_and_a_fault(tmp_path):
    path = patients(tmp_path)
    head, *rows = path.read_text().splitlines()
    moved = [f"{row},{'test' if row.startswith(('0-0', '3-1', '3-2')) else 'train'}" for row in rows]
    path.write_text("\n".join([f"{head},split", *moved]) + "\n")
    told = "2 groups have training and test images; what is measured on these looks too good"
    assert load_dataset(path, image_size=4).notes[0] == told
    done = command("doctor", "labels.csv", "--image-size", "8", cwd=tmp_path)
    assert f"fault  {told}" in done.stdout
    path.write_text(
        "\n".join([f"{head},split", *(f"{row},{'test' if row[0] == '3' else 'train'}" for row in rows)]) + "\n"
    )
    assert "groups have" not in command("doctor", "labels.csv", "--image-size", "8", cwd=tmp_path).stdout


def test_groups_of_all_splits_are_kept_and_older_runs_know_their_data_by_those_of_training_alone(tmp_path):
    path = patients(tmp_path)
    head, *rows = path.read_text().splitlines()
    moved = [f"{row},{'test' if int(row.split('-')[0]) % 3 == 0 else 'train'}" for row in rows]
    path.write_text("\n".join([f"{head},split", *moved]) + "\n")
    data = load_dataset(path, image_size=4, validation=0.25)
    assert data.groups_at("test", torch.arange(16)).tolist() == [8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11]
    assert [data.group_names[number] for number in data.groups["test"].unique().tolist()] == ["p0", "p3", "p6", "p9"]
    assert data.groups_at("validation", data.validation.rows).tolist() == [
        row // 4 for row in data.validation.rows.tolist()
    ]
    path.write_text("\n".join([f"{head},split", *(row.replace("P3,test", "P6,test") for row in moved)]) + "\n")
    again = load_dataset(path, image_size=4)
    assert len(again.groups["test"].unique()) == 3 and again.fingerprint == data.fingerprint
    path.write_text("\n".join([f"{head},split", *(row.replace("P4,train", "P5,train") for row in moved)]) + "\n")
    assert load_dataset(path, image_size=4).fingerprint != data.fingerprint


def test_numbers_of_groups_are_the_same_in_all_splits_and_those_of_training_come_first():
    numbers, names = numbered({"test": ["b", "", "c"], "train": ["a", "b", "", "b"], "validation": ["", ""]})
    assert numbers == {"train": [0, 1, 2, 1], "test": [1, 3, 4]}  # none is named in the validation split
    assert names == ["a", "b", "", "", "c"]


# --- a pattern for paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "group"),
    [
        ("([^/]+)_", "B017_3.jpg", "b017"),
        ("([^/]+)_", "B017_left_3.jpg", "b017_left"),
        ("(.+)/", "B017/left/3.jpg", "b017/left"),
        ("B[0-9]+", "2021-05-03 B017 left.png", "b017"),
        ("(p[0-9]+)-(eye[0-9]+)", "p12-eye2-1.png", "p12/eye2"),
        ("(p[0-9]+)(-eye[0-9]+)?", "p12.png", "p12/"),
        ("B[0-9]+", "nothing.png", ""),
        ("[^.]+", "NA.png", "na"),  # a name, where in the cell of a table it says that there is none
        ("(p[0-9]+)?-?(eye[0-9]+)?", "x.png", ""),
    ],
)
def test_a_pattern_finds_the_group_in_a_path(pattern, path, group):
    assert groups_by(pattern, {"train": [path]}) == {"train": [group]}


def test_pictures_in_whose_names_a_pattern_finds_the_same_are_held_out_together(tmp_path):
    data = load_dataset(beetles(tmp_path / "beetles", test=1), image_size=8, group_by="([^/]+)_", validation=0.3)
    for part in (data.train, data.validation):
        owners = [data.files["train"][row].rpartition("_")[0] for row in part.rows.tolist()]
        assert all(owners.count(owner) == 4 for owner in owners)
    assert data.group_count == 10 and len(data.groups["test"].unique()) == 2
    assert "Meloe/B000_0.png" in data.files["train"] and data.group_names[0] == "c000"
    loose = load_dataset(tmp_path / "beetles", image_size=8, validation=0.3)
    assert loose.group_count is None and loose.fingerprint != data.fingerprint


def test_the_folder_of_a_class_is_no_part_of_the_path_whatever_split_it_is_in(tmp_path):
    folder = beetles(tmp_path / "M_beetles", test=1)
    for home in (folder, folder / "test"):
        (home / "Meloe").rename(home / "Meloe_niger")
    groups = list_folder(folder, "([^/]+)_").groups
    assert set(groups["test"]) == {"b005", "c005"} and not set(groups["test"]) & set(groups["train"])
    paint(folder / "test" / "Meloe_niger", "B001_9.png")
    listing = list_folder(folder, "([^/]+)_")
    assert listing.facts["shared_groups"] == {"test": 1}
    signatures = {pictures_signature(list_folder(folder, pattern), 4) for pattern in ("", "([^/]+)_", "[BC][0-9]+")}
    assert len(signatures) == 3


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("[", r"group_by '\[' is no regular expression: unterminated character set at position 0; correct it"),
        ("B[0-9]+x", "puts no two training images together: it finds nothing in 'C000_0.png'; give a regular"),
        ("_", "group_by '_' puts all training images together, for it finds '_' in each; give a regular expression"),
        (".+", "puts no two training images together: it finds 'c000_0.png' in 'C000_0.png', and nothing twice; give"),
    ],
)
def test_a_pattern_that_puts_nothing_together_is_refused(pattern, told, tmp_path):
    with pytest.raises(UserError, match=told):
        load_dataset(beetles(tmp_path / "beetles"), group_by=pattern)


def test_pictures_of_no_group_are_told_and_so_are_names_that_look_like_series(tmp_path):
    folder = beetles(tmp_path / "beetles")
    [asked] = load_dataset(folder, image_size=8).notes
    assert asked.startswith(
        "the pictures seem to come in series; if those of one show the same animal, patient or the like"
    )
    assert asked.endswith("keep them together with --group-by '([^/]+)_'")
    done = command("doctor", "beetles", "--image-size", "8", cwd=tmp_path)
    assert "note   the pictures seem to come in series" in done.stdout
    paint(folder / "Meloe", "loose.png")
    found = load_dataset(folder, image_size=8, group_by="([^/]+)_")
    assert found.notes == ["group_by finds nothing in the paths of 1 training image; each counts as alone"]


@pytest.mark.parametrize(
    ("of", "count", "each", "pattern"),
    [
        ("{}_{}.png", 6, 4, "([^/]+)_"),
        ("{}-left-{}.png", 6, 4, "([^/]+)-"),
        ("{} ({}).png", 6, 4, "([^/]+) "),
        ("{}/{}.png", 6, 4, "(.+)/"),
        ("{}{}.png", 6, 4, ""),  # nothing joins them
        ("{}_{}.png", 2, 4, ""),  # too few beetles for a series to be one
        ("{}_{}.png", 6, 1, ""),  # one picture each
        ("IMG_{1}{0}.png", 6, 4, ""),  # no number before
        ("left-{1}.png", 1, 6, ""),
    ],
)
def test_a_pattern_is_suggested_where_names_look_like_series(of, count, each, pattern, tmp_path):
    facts = list_folder(beetles(tmp_path / "beetles", of=of, count=count, each=each)).facts
    assert facts == ({"series": pattern} if pattern else {})
    if pattern:
        assert len(set(list_folder(tmp_path / "beetles", pattern).groups["train"])) == 2 * count


def test_nothing_is_suggested_where_numbers_begin_anew_in_each_class(tmp_path):
    paint(tmp_path, *(f"{kind}/{animal}_{view}.png" for kind in "abc" for animal in range(6) for view in range(4)))
    assert list_folder(tmp_path).facts == {}


def test_a_pattern_is_looked_for_in_the_paths_as_a_table_has_them(tmp_path):
    paint(
        tmp_path,
        *(
            f"{split}/B{animal}/{split}{view}.png"
            for split in ("train", "test")
            for animal in range(4)
            for view in "12"
        ),
    )
    rows = [
        f"B{animal}\\{split}{view}.png,{animal % 2},{split}"
        for split in ("train", "test")
        for animal in range(4)
        for view in "12"
    ]
    (tmp_path / "t.csv").write_text("\n".join(["image,label,split", *rows]) + "\n")
    listing = list_table(tmp_path / "t.csv", "(.+)/")
    assert listing.images["train"][0][0] == "train/B0/train1.png" and listing.groups["train"][:3] == ["b0", "b0", "b1"]
    assert listing.facts["shared_groups"] == {"test": 4}
    assert labelled_images(tmp_path / "t.csv", ("0", "1"), "(.+)/").groups[:3] == ("b0", "b0", "b1")


def test_a_pattern_is_for_pictures_and_tables_without_a_column_of_groups(tmp_path):
    with pytest.raises(UserError, match="group_by is for images in files; fashion-mini comes as it was published"):
        load_dataset("fashion-mini", group_by="B")
    path = patients(tmp_path)
    with pytest.raises(
        UserError, match=r"has groups in its column 'patient_id'; leave out group_by '.*', or that column"
    ):
        load_dataset(path, group_by="([^/]+)-")
    text = "\n".join(row.rpartition(",")[0] for row in path.read_text().splitlines())
    path.write_text(text + "\n")
    data = load_dataset(path, image_size=4, group_by="([^/]+)-")
    assert data.group_count == 12 and "words of" not in " ".join(data.notes)


# --- what is judged ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on beetles, some of them for testing, whose names tell which is which."""
    folder = tmp_path_factory.mktemp("grouped")
    beetles(folder / "beetles", test=2)
    done = command(
        "train", "beetles", "--group-by", "([^/]+)_", "--validation", "0.4", *SMALL, "--out", "run", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_remembers_its_pattern_and_judges_test_images_by_their_groups(trained):
    run = Run.open(trained / "run")
    assert run.data["group_by"] == "([^/]+)_" and "c000" not in json.dumps(run.data)  # names of patients stay at home
    assert "--group-by '([^/]+)_'" in reproduce(run)[0]
    found = json.loads(command("evaluate", "run", "--split", "test", "--json", cwd=trained).stdout)
    assert (found["images"], found["groups"]) == (16, 4)
    alone = score_predictions(replace(run.predictions("test"), groups=None))
    low, high = found["interval95"]
    assert high - low > alone.interval95[1] - alone.interval95[0]
    again = command("evaluate", "run", "--split", "test", cwd=trained)
    assert "16 test images of 4 groups" in again.stdout and "nothing was opened" in again.stderr


def test_data_that_are_read_by_another_pattern_are_not_taken_for_changed_ones(trained):
    run = Run.open(trained / "run")
    with pytest.raises(
        UserError, match=r"was read with group_by '', for the run .*run with '\(\[\^/\]\+\)_'; give that"
    ):
        evaluate(run, data=load_dataset(trained / "beetles", image_size=16))


@pytest.mark.parametrize(
    ("fact", "value", "told"),
    [
        ("group_by", 5, "its group_by is 5"),
        ("columns", 5, "its columns are no names"),
        ("columns_named", [], "its columns_named is"),
    ],
)
def test_a_record_of_data_that_names_no_pattern_or_columns_is_damaged(fact, value, told, trained, tmp_path):
    record = json.loads((trained / "run" / "data.json").read_text()) | {fact: value}
    (tmp_path / "data.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"data.json is damaged: {told}"):
        DataRecord.read(tmp_path / "data.json")


def test_answers_that_were_kept_without_groups_get_them(trained):
    run = Run.open(trained / "run")
    command("evaluate", "run", "--split", "test", cwd=trained)
    run.save_predictions(replace(run.predictions("test"), groups=None))
    assert "16 test images of 4 groups" in command("evaluate", "run", "--split", "test", cwd=trained).stdout


def test_new_pictures_of_animals_that_were_trained_on_are_told(trained):
    run = Run.open(trained / "run")
    data = run.load_data()
    known = data.group_names[int(data.groups["train"][data.train.rows[0]])].upper()
    genus = "Meloe" if known.startswith("B") else "Lytta"
    paint(trained / "new" / genus, f"{known}_8.png", f"{known}_9.png", "B990_1.png", "B990_2.png", "B991_1.png")
    done = command("evaluate", "run", "--on", "new", "--json", cwd=trained)
    found = json.loads(done.stdout)
    assert (found["images"], found["groups"], found["trained_on"], found["of_groups_trained_on"]) == (5, 3, 0, 2)
    assert "2 of these images are of groups that the run was trained on; on the other 3 the accuracy is" in done.stderr
    assert "5 labelled images of 3 groups of new" in command("evaluate", "run", "--on", "new", cwd=trained).stdout
    (trained / "new" / genus / "B980_0.png").write_bytes(b"torn")
    found = json.loads(command("evaluate", "run", "--on", "new", "--skip-broken", "--json", cwd=trained).stdout)
    assert (found["images"], found["groups"], found["of_groups_trained_on"]) == (5, 3, 2)
    paint(trained / "alone" / genus, "a.png", "b.png")
    done = command("evaluate", "run", "--on", "alone", "--json", cwd=trained)
    assert "the run's group_by '([^/]+)_' finds nothing in the paths of 2 images; each counts as alone" in done.stderr
    found = json.loads(done.stdout)
    assert (found["groups"], found["trained_on"], found["of_groups_trained_on"]) == (None, 0, None)


def test_groups_of_new_labelled_images_come_from_their_table_or_arrays(tmp_path):
    assert labelled_images(patients(tmp_path), ("ill", "well")).groups[:5] == ("p0", "p0", "p0", "p0", "p1")
    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "new.npz", images=images, labels=np.arange(3) % 2, groups=np.array([7, 8, 7]))
    assert labelled_images(tmp_path / "new.npz", ("0", "1")).groups == ("7", "8", "7")


def test_robustness_and_thresholds_know_groups(trained):
    done = command("evaluate", "run", "--robustness", cwd=trained)
    validation = Run.open(trained / "run").data["validation"]
    half = 100 * widest_half(validation, validation // 4)
    run = Run.open(trained / "run")
    some = evaluate_robustness(run, images=9)
    kept = run.predictions("validation")
    rows = torch.linspace(0, validation - 1, 9).long()
    assert some.groups == len(kept.groups[rows].unique()) and run.robustness["groups"] == some.groups
    told = f"within {half:.1f} points (95 % interval, {validation} images of {validation // 4} groups)"
    assert told in done.stdout and widest_half(16, 4) > widest_half(16)
    confidence, correct = torch.linspace(0.5, 1, 40), torch.ones(40, dtype=torch.bool)
    groups = torch.arange(40) // 4
    alone, found = threshold_for(confidence, correct, 0.9), threshold_for(confidence, correct, 0.9, groups)
    assert found.groups == 10 and found.interval95[0] < alone.interval95[0] and found.confidence == alone.confidence
    assert "40 images of 10 groups" in found.in_words()
    assert (
        "too few groups to show 90.00%: it takes at least 35 without a mistake" in found.in_words()
        and alone.lacking == 0
    )
    assert (
        reliability(confidence, correct, groups)[-1].interval95[0] < reliability(confidence, correct)[-1].interval95[0]
    )


# --- two networks on the same images -------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 3), (9, 2), (1, 14), (40, 22)])
def test_groups_of_one_image_are_compared_as_images_are(only_first, only_second):
    rows = [(-1, 1)] * only_first + [(1, 1)] * only_second + [(0, 1)] * 5
    assert exchanged(rows) == pytest.approx(mcnemar(only_first, only_second), rel=1e-9)


def test_whole_groups_are_exchanged():
    assert exchanged([(4, 4)] * 6) == pytest.approx(2 / 2**6)  # where 24 images would be 2 / 2**24
    # Of the signs of 3, 2 and 1, the sums 6 and -6, 4 and -4 are as far from 0 as 4.
    assert exchanged([(3, 5), (2, 4), (-1, 9)]) == pytest.approx(4 / 8)
    assert exchanged([]) == 1


def test_groups_are_told_apart_by_their_numbers():
    first, second = np.array([True, False, False, True]), np.array([True, True, True, False])
    assert difference_by_group(first, second, np.array([2, 2, 5, 5])) == [(1, 2), (0, 2)]


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.8])
def test_a_difference_over_groups_is_in_its_interval_and_rarely_claimed_where_there_is_none(alike):
    """Two networks as good as each other, whose answers go together within a group to a degree."""
    random = np.random.default_rng(int(10 * alike))
    inside = claimed = as_images = 0
    for _ in range(400):
        groups = np.repeat(np.arange(16), random.integers(4, 14, 16))
        of_group = random.random((2, 16)) < 0.7
        own = random.random((2, len(groups))) < 0.7
        same = random.random(len(groups)) < alike
        right = np.where(same, of_group[:, groups], own)
        found = paired_by_images((right[0], right[1], groups))
        inside += found.interval95[0] <= 0 <= found.interval95[1]
        claimed += found.p < 0.05
        as_images += paired_by_images((right[0], right[1], None)).p < 0.05
    assert inside / 400 > 0.93 and claimed / 400 < 0.06 + 0.02
    assert (as_images / 400 > 0.2) == (alike == 0.8)  # what it would be to take the images for independent


def test_of_one_group_nothing_follows_and_where_networks_agree_not_everything():
    assert grouped_difference([(3, 9)]) == (-1.0, 1.0)
    low, high = grouped_difference([(0, 4)] * 10)
    assert low == -high and 0.1 < high < math.sqrt(10) * 0.1


def test_two_runs_are_compared_by_groups(trained):
    done = command("train", "beetles", "--group-by", "([^/]+)_", "--validation", "0.4", *SMALL, "--learning-rate", "0.01",
                   "--out", "other", cwd=trained)  # fmt: skip
    assert done.returncode == 0, done.stderr
    [pair] = json.loads(command("compare", "run", "other", "--json", cwd=trained).stdout)["pairs"]
    images = Run.open(trained / "run").data["validation"]
    assert (pair["images"]["images"], pair["images"]["groups"]) == (images, images // 4)
    said = command("compare", "run", "other", cwd=trained).stdout
    assert (
        f"on the same {images} images of {images // 4} groups" in said and "with groups exchanged as wholes p" in said
    )


def test_runs_by_different_patterns_are_not_compared_and_it_is_told_why(trained):
    done = command("train", "beetles", *SMALL, "--out", "ungrouped", cwd=trained)
    assert done.returncode == 0, done.stderr
    refused = command("compare", "run", "ungrouped", cwd=trained)
    assert refused.returncode == 2 and "(group_by '([^/]+)_'), ungrouped on beetles" in refused.stderr


def test_answers_of_another_program_are_compared_by_the_groups_that_a_run_knows(trained):
    assert command("evaluate", "run", "--predictions", "answers.csv", cwd=trained).returncode == 0
    text = (trained / "answers.csv").read_text().splitlines()
    (trained / "answers.csv").write_text("\n".join([text[0], *reversed(text[1:])]) + "\n")
    found = json.loads(command("compare", "answers.csv", "run", "--json", cwd=trained).stdout)
    assert found["pairs"][0]["images"]["groups"] == found["images"] // 4
    kept = Run.open(trained / "run").predictions("validation")
    [here] = {tuple(answers["interval95"]) for answers in found["answers"]}
    assert here == pytest.approx(score_predictions(kept).interval95)
    for name in ("answers.csv", "answers.npz"):  # which say themselves which images belong together
        command("evaluate", "run", "--predictions", name, cwd=trained)
        alone = json.loads(command("evaluate", name, "--json", cwd=trained).stdout)
        assert tuple(alone["interval95"]) == pytest.approx(here) and alone["groups"] == len(kept.groups.unique())
    groups = torch.arange(len(kept.labels)) ** 2 // 40  # not as many images in each
    names = [
        kept.files[row] for row in torch.randperm(len(groups), generator=torch.Generator().manual_seed(1)).tolist()
    ]
    same = np.array(["x"] * len(names))
    shuffled = Answers("answers", same, same, images={"file": tuple(names)})
    of_run = replace(shuffled, groups=groups.numpy(), images={"file": kept.files})
    assert groups_of([shuffled, of_run]).tolist() == [groups[kept.files.index(name)].item() for name in names]


# --- studies and the rest --------------------------------------------------------------------------------------------


def test_folds_of_groups_of_different_sizes_have_the_same_recipe(tmp_path):
    folder = beetles(tmp_path / "beetles", count=9)
    for beetle in range(3):
        paint(folder / "Meloe", *(f"B{beetle:03}_{view}.png" for view in range(10, 30)))
    data = load_dataset(folder, image_size=8, group_by="([^/]+)_")
    start = recipe("general")
    cuts = [data.with_validation(0, seed=0, folds=3, fold=fold) for fold in range(3)]
    made = [suited(start, cut, {"folds": 3, "fold": fold, "validation": 0.0}) for fold, cut in enumerate(cuts)]
    assert len({len(cut.train) for cut in cuts}) > 1 and len({vary(one, fold=0) for one in made}) == 1


def test_doctor_and_preview_read_tables_and_patterns_too(tmp_path):
    path = patients(tmp_path)
    path.write_text(path.read_text().replace("image,label,patient_id", "photo,kind,who"))
    words = ["labels.csv", "--columns", "label=kind,group=who", "--image-size", "8"]
    assert command("doctor", *words, cwd=tmp_path).returncode == 0
    assert command("preview", *words, "--threads", "1", "--widths", "8", "16", "16", cwd=tmp_path).returncode == 0
    beetles(tmp_path / "beetles", test=1)
    paint(tmp_path / "beetles" / "test" / "Meloe", "B001_9.png")
    done = command("doctor", "beetles", "--group-by", "([^/]+)_", "--image-size", "8", cwd=tmp_path)
    assert "fault  1 group has training and test images" in done.stdout


@pytest.mark.parametrize("options", [{"group_by": 5}, {"columns": ["label"]}])
def test_a_pattern_or_columns_of_another_type_are_refused(options, tmp_path):
    with pytest.raises(UserError, match=r"(group_by|columns) is (5|\['label'\]); give a text"):
        load_dataset(beetles(tmp_path / "beetles"), **options)


def test_a_study_reads_its_pictures_by_a_pattern(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    (trained / "s.toml").write_text("dataset = 'beetles'\nimage_size = 16\ngroup_by = '([^/]+)_'\nseeds = 1\n[[variant]]\n"
                                    "name = 'one'\nepochs = 1\n")  # fmt: skip
    [variant] = read_study(trained / "s.toml").variants
    assert variant.decoding == {"image_size": 16, "group_by": "([^/]+)_"}
    (trained / "t.toml").write_text((trained / "s.toml").read_text().replace("'([^/]+)_'", "7"))
    assert command_line(["study", "t.toml", "--plan"]) == 2
    assert "group_by is 7; give a text, a regular expression" in capsys.readouterr().err
